"""How good samples are: a classifier, distances in its features, agreement of classes."""
