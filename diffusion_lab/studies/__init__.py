"""Claims as measurements: a study is a table of rows, and a row is one evaluation.

`runs` trains what a study needs; `rows` and `study` are what `conf/study/*.yaml` describe;
`execution` goes through the rows and keeps them; `results` writes what was found.
"""
