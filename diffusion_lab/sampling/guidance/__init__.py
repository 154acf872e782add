r"""Guidance: denoisers made of denoisers.

Everything acts on x0-hat. Since x0-hat, eps-hat, v and the score are affine in each other at one
(x_t, t), so is their guidance, as long as nothing is clipped in between: guide first, clip after.

`classifier_free` compares a model with itself under another condition, `second_model` with another
model; `strength` says how much of it acts at each noise level.
"""
