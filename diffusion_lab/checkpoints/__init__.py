"""Checkpoints as files: `format` reads and writes them, `finding` tells which one is meant.

`sealing` makes a damaged file tell of itself, `moved` knows the new names of old classes and
weights, `starting` lets a new training start from the weights of another. Only torch is needed, and
no code of a file is ever run.
"""
