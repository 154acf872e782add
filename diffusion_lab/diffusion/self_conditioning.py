"""Self-conditioning: a network whose input is its own last x0-hat, or 0.

Chen et al., "Analog Bits" (arXiv 2208.04202, section 3.2 and algorithm 2).
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffusion_lab.diffusion.conditions import Query
from diffusion_lab.diffusion.gaussian import combine
from diffusion_lab.diffusion.model import Denoised, GaussianDiffusion
from diffusion_lab.diffusion.noise import Noise


def self_conditioned(model: GaussianDiffusion, query: Query, share: float, noise: Noise) -> Query:
    """A training query with the model's own x0-hat as its estimate, without a gradient.

    A random `share` of the images gets one (the paper's 0.5), the others get 0. The query of a
    network without self-conditioning stays as it is.
    """
    if not model.self_conditioning:
        return query
    with torch.no_grad():
        first: Tensor = model(query).x0
    chosen = noise.uniform(len(query.x)) < share
    estimate = combine((chosen.double(), first))
    return query._replace(given=query.given._replace(estimate=estimate))


class SelfConditioned:
    """A self-conditioning model that remembers its last x0-hat through one sampling call.

    Guidance asks for several answers in one batch; each gets its own as the next estimate. The
    first call has none.
    """

    def __init__(self, model: GaussianDiffusion) -> None:
        self.model, self.schedule, self.num_classes = model, model.schedule, model.num_classes
        self.last: Tensor | None = None

    def __call__(self, query: Query) -> Denoised:
        """The model's answer, which is its estimate the next time."""
        x, last = query.x, self.last
        if last is not None:
            if len(last) != len(x):  # guidance came or went: the first rows are the conditional's
                last = last[: len(x)].repeat(-(-len(x) // len(last)), *[1] * (x.ndim - 1))
            query = query._replace(given=query.given._replace(estimate=last[: len(x)]))
        denoised: Denoised = self.model(query)
        self.last = denoised.x0.detach()
        return denoised
