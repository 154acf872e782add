"""The networks that may be injected; they know nothing of diffusion.

A network maps (x (B, *), embedding (B, E), extra channels (B, C, *) or None) to a tensor shaped
like x. Its `condition_inputs` (conditioner.py) makes the last two of what is known beside x:
`c_noise` (B,), a number of the order of 0 to 1000 for the noise level; `label` (B,), classes
counted from 0 with `num_classes` standing for "no class"; and further conditions by name.

A network of another library that maps (x, c_noise, label) needs none of this: a model calls it so.
"""
