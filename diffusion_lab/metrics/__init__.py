"""How good samples are: metrics with 95 % intervals, beside their values for real data.

`README.md` in this folder is the manual, `catalog` the table of all metrics. `scores` scores a set
of images and `points` a set of points; both compute estimates (`intervals`) of `distances`,
`diversity`, `classes` and `memorisation`. Images are compared in the `features` of a
`small_classifier`, which is stored in the `cache`; `inception` has the distances of papers.

Arguments with one meaning in all files: `labels`, int64 (N,), are the requested classes of N
samples, None for samples without a class; `groups`, int64 (N,), assign the samples to the groups of
a jackknife (`intervals.random_groups`); `real` are the images of the data set.
"""
