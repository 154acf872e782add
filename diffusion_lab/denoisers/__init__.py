"""The networks that may be injected: they map (x, c_noise, label) to a tensor shaped like x.

They know nothing of diffusion: `c_noise` (B,) is already the number to embed, of the order of 0 to
1000, and `label` (B,) counts classes from 0, with `num_classes` standing for "no class".
"""
