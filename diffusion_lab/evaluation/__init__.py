"""Scoring one model: of samples what `metrics` measures, of images their likelihood.

`request` composes and checks an evaluation and knows what it costs; `evaluators` know what to
measure on images and on points; `measuring` draws, counts and times; `likelihoods` computes what
`likelihood_request` asks for, and `likelihood_summary` adds it up.
"""
