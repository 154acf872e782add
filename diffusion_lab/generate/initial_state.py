"""Sampling that starts from something: an image, a part of one, or chosen noise."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from diffusion_lab.diffusion.gaussian import marginal
from diffusion_lab.diffusion.model import GaussianDiffusion
from diffusion_lab.diffusion.noise import Noise
from diffusion_lab.sampling.constraints import Inpaint
from diffusion_lab.sampling.sample_noise import SampleNoise, slerp


@dataclass(frozen=True)
class InitialState:
    """What samples start from, sample by sample.

    Attributes:
        image: (N, *shape) in [-1, 1], or None.
        time: Noise level in (0, 1] that the images are brought to before they are denoised
            (SDEdit; Meng et al., arXiv 2108.01073); None starts from noise.
        known: 1 where the image is kept (`Inpaint`), broadcast to *shape; None for nowhere.
        x: (N, *shape), starting states in place of noise, or None.
    """

    image: Tensor | None = None
    time: float | None = None
    known: Tensor | None = None
    x: Tensor | None = None

    def of(
        self, model: GaussianDiffusion, first: int, count: int, noise: Noise
    ) -> tuple[Tensor | None, float | None, Inpaint | None]:
        """State, time and constraint of samples first .. first + count - 1."""
        device = next(model.parameters()).device
        rows = slice(first, first + count)
        if self.x is not None:
            return self.x[rows].to(device), None, None
        if self.image is None:
            return None, None, None
        image = self.image[rows].to(device)
        constraint = None if self.known is None else Inpaint(image, self.known)
        if self.time is None:
            return None, None, constraint
        level = model.schedule(model.schedule.snap(torch.tensor(self.time, dtype=torch.float64)))
        return marginal(image, noise.normal(image), level), float(level.t), constraint


def between_noises(
    model: GaussianDiffusion, shape: tuple[int, ...], rows: int, frames: int, seed: int
) -> InitialState:
    """`rows` ways of `frames` noises each, from noise 2k to noise 2k + 1 of the seed."""
    ends = SampleNoise(seed, 0, 2 * rows).normal(torch.empty(2 * rows, *shape))
    return InitialState(x=_ways(model.prior(model.schedule(model.schedule.t_max), ends), frames))


def _ways(ends: Tensor, frames: int) -> Tensor:
    """Spherical ways between ends 2k and 2k + 1, (rows * frames, *shape), row by row."""
    weights = torch.linspace(0, 1, frames).tolist()
    ways = [slerp(ends[0::2], ends[1::2], weight) for weight in weights]
    return rearrange(ways, "frames rows ... -> (rows frames) ...")


def between_inverted(ends: Tensor, frames: int) -> InitialState:
    """Ways between states (2 rows, *shape) that inversion ended in."""
    return InitialState(x=_ways(ends, frames))
