"""Claims as measurements: a study is a table of rows, and a row is one evaluation.

`runs` trains what a study needs; `rows` and `study` are what `conf/study/*.yaml` describe;
`running` goes through the rows and keeps them; `tables` writes what was found.
"""
