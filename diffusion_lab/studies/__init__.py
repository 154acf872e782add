"""Claims as measurements: a study is a table of rows, and a row is one call of `evaluate`.

`cells` composes and checks a row and knows what it costs; `rulers` know what to measure on images
and on points; `measuring` draws, counts and times; `runs` trains what a study needs; `rows` and
`study` are what `conf/study/*.yaml` describe; `running` goes through the rows and keeps them.

Entry points import this package; it imports every other room but them, save for the loading of
a checkpoint, which `sample` and `evaluate` share.
"""
