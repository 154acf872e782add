"""Claims as measurements: a study is a table of rows, and each row is one evaluation.

`study` is what `conf/study/*.yaml` describe; `trainings` trains the runs that are missing;
`execution` measures the rows and caches them; `results` writes the table and the pictures.
"""
