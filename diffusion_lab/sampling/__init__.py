"""Sampling: the loop, samplers, timestep spacing, guidance, constraints and noise.

Samplers see x0-hat only. Guidance, clipping and thresholding act on x0-hat; eps-hat is derived
from it afterwards, in `diffusion.gaussian.eps_from`. Read `sampler` (the only loop) first, then
`ancestral` and `pipeline`.
"""
