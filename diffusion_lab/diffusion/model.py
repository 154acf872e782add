"""GaussianDiffusion: a denoiser, a schedule and a parameterization -> x0-hat."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from diffusion_lab.diffusion.conditions import Condition, Query, with_each
from diffusion_lab.diffusion.gaussian import Level, combine
from diffusion_lab.diffusion.noise import Noise
from diffusion_lab.diffusion.parameterizations import Parameterization
from diffusion_lab.diffusion.schedules import Schedule
from diffusion_lab.errors import ArgumentError

LARGEST_TERMINAL_ALPHA = 0.05
"""Amplitude of the signal at t = 1 above which a standard normal start is called wrong."""


class Denoised(NamedTuple):
    """What one call of the model gives.

    Attributes:
        x0: Estimate of the clean image, (B, *).
        raw: The network's own output F, (B, *).
        variance_fraction: Learned fraction between the smallest and the largest log variance,
            (B, *), where a network predicts one.
    """

    x0: Tensor
    raw: Tensor | None = None
    variance_fraction: Tensor | None = None


DenoiseFn = Callable[[Query], Denoised]
"""What a sampler asks: a model with its guidance and the constraint on x0-hat inside."""


def ask_each(model: DenoiseFn, query: Query, givens: Sequence[Condition]) -> list[Denoised]:
    """The model's answers to one query under each condition, in one call of n B rows."""
    answer, n = model(with_each(query, givens)), len(givens)
    parts = [[None] * n if part is None else list(part.chunk(n)) for part in answer]
    return [Denoised(*same) for same in zip(*parts, strict=True)]


class GaussianDiffusion(nn.Module):
    """Wraps a denoiser network into a model of x0 given x_t.

    A network knows nothing of diffusion; this class scales its input, gives it a number for the
    noise level (c_noise) and turns its output F into x0-hat = (b x_t - sigma F) / D (see
    `parameterizations`). It is called in one of two ways, both in `_output`:

    - A network of this package, or any other with a method `condition_inputs`, maps
      (x (B, *), embedding (B, E), extra channels or None) -> (B, *). The method makes the last two
      of (x, c_noise (B,), label) and of what is given by name, see below.
    - A network of another library maps (x (B, *), c_noise (B,), label (B,) int64 or None) ->
      (B, *), with the number `num_classes` for the null class.

    By name come `vector`, `image` and `estimate` where the condition has them, and `to`, the
    c_noise of where the sampler goes, for a network with `two_times`. One with `self_conditioning`
    always gets an `estimate`, its last x0-hat or 0 (Chen et al., "Analog Bits", arXiv 2208.04202,
    section 3.2).

    A network with twice the channels of its input says, in the second half, v in [-1, 1]: the log
    variance of a step of DDPM lies the fraction (v + 1) / 2 of the way from the smallest to the
    largest (Nichol & Dhariwal, arXiv 2102.09672, eq. 15).

    Args:
        denoiser: The network.
        schedule: t -> (alpha, sigma).
        parameterization: What the network's output means; checked against the schedule.
        data_mean: Subtracted around the network, so that it sees centred data.
        data_std: Standard deviation of the data, for input scaling and the matched prior; > 0.
        input_scaling: Divide the input by sqrt(alpha^2 data_std^2 + sigma^2), which is c_in of
            Karras et al. (arXiv 2206.00364, table 1) on every schedule.
        matched_prior: Start sampling from N(alpha data_mean, alpha^2 data_std^2 + sigma^2) in
            place of the papers' N(0, 1); matters where a schedule does not end in pure noise.

    Attributes:
        num_classes: Classes of the network without the null class; None where it has none.
        self_conditioning: Whether the network takes its last x0-hat as `estimate`.
        denoises: Whether the network's output is F: that of a classifier of noisy images, which
            says so by an attribute of this name, is not.

    Raises:
        ValueError: data_std <= 0, or a parameterization that cannot recover x0 on this schedule.
    """

    def __init__(
        self,
        denoiser: nn.Module,
        schedule: Schedule,
        parameterization: Parameterization,
        data_mean: float = 0.0,
        data_std: float = 1.0,
        input_scaling: bool = False,
        matched_prior: bool = False,
    ) -> None:
        super().__init__()
        if not data_std > 0:
            raise ArgumentError("data_std", data_std, "must be positive")
        parameterization.check(schedule)
        self.denoiser = denoiser
        self.schedule = schedule
        self.parameterization = parameterization
        self.data_mean = data_mean
        self.data_std = data_std
        self.input_scaling = input_scaling
        self.matched_prior = matched_prior
        self.num_classes: int | None = getattr(denoiser, "num_classes", None)
        self.self_conditioning = bool(getattr(denoiser, "self_conditioning", False))
        self.denoises = bool(getattr(denoiser, "denoises", True))

    def forward(self, query: Query) -> Denoised:
        """x0-hat of `query.x` (B, *) at the level `query.at`, where sigma > 0."""
        level = query.at
        x = self._centred(query.x, level.alpha)
        raw = self._output(query, combine((self._c_in(level), x)) if self.input_scaling else x)
        fraction = None
        if raw.shape[1] == 2 * x.shape[1]:
            raw, v = raw.chunk(2, dim=1)
            fraction = (v + 1) / 2
        _, b = self.parameterization.weights(level)
        d = self.parameterization.determinant(level)
        x0 = combine((b / d, x), (-level.sigma / d, raw))
        return Denoised(x0 + self.data_mean if self.data_mean else x0, raw, fraction)

    def self_conditioned(self, query: Query, share: float, noise: Noise) -> Query:
        """A training query with the model's own x0-hat as its estimate, without a gradient.

        Args:
            query: Noised images, without an estimate.
            share: Of the images that get one; the others get 0. The paper's 0.5.
            noise: Which images, one number each.

        Returns:
            The query; as it was for a network that takes no estimate.
        """
        if not self.self_conditioning:
            return query
        with torch.no_grad():
            first: Tensor = self(query).x0
        chosen = noise.uniform(len(query.x)) < share
        estimate = combine((chosen.double(), first))
        return query._replace(given=query.given._replace(estimate=estimate))

    def target(self, x0: Tensor, eps: Tensor, level: Level) -> Tensor:
        """F = a (x0 - data_mean) + b eps: what `raw` is trained towards."""
        a, b = self.parameterization.weights(level)
        return combine((a, x0 - self.data_mean if self.data_mean else x0), (b, eps))

    def prior(self, level: Level, eps: Tensor) -> Tensor:
        """What sampling starts from at `level`, made from standard normal eps (B, *)."""
        if not self.matched_prior:
            return combine((self.schedule.prior_std(level), eps))
        std = 1.0 / self._c_in(level)
        return combine((std, eps)) + float(level.alpha) * self.data_mean

    def terminal_mismatch(self) -> str | None:
        """What is wrong with starting from the prior where the schedule ends, or None.

        The papers' N(0, 1) is right where alpha(1) = 0; a variance preserving schedule that keeps
        more than `LARGEST_TERMINAL_ALPHA` of the signal starts sampling from the wrong noise.
        """
        level = self.schedule(self.schedule.t_max)
        preserving = bool(self.schedule.preserving(level))
        if self.matched_prior or not preserving or level.alpha <= LARGEST_TERMINAL_ALPHA:
            return None
        return (
            f"the schedule ends with {float(level.alpha):.3g} of the signal's amplitude left "
            f"(terminal SNR {float(level.alpha / level.sigma) ** 2:.2g}, "
            f"{float(level.log_snr) * 4.342944819:.0f} dB), but sampling starts from pure noise: "
            "more or scaled steps, a zero-terminal schedule or matched_prior=true cure it"
        )

    def _output(self, query: Query, x: Tensor) -> Tensor:
        """The network's output for the scaled input x, of x's dtype."""
        c_noise, given = self._c_noise(query.at, x), query.given
        named = {name: part for name, part in given._asdict().items() if name != "label"}
        if self.self_conditioning and given.estimate is None:
            named["estimate"] = torch.zeros_like(x)
        if getattr(self.denoiser, "two_times", False):
            named["to"] = c_noise if query.to is None else self._c_noise(query.to, x)
        named = {name: part for name, part in named.items() if part is not None}
        condition_inputs = getattr(self.denoiser, "condition_inputs", None)
        if condition_inputs is None:
            output: Tensor = self.denoiser(x, c_noise, given.label, **named)
        else:
            output = self.denoiser(x, *condition_inputs(x, c_noise, given.label, **named))
        return output.to(x.dtype)

    def _c_noise(self, level: Level, x: Tensor) -> Tensor:
        """The number that tells the network a level, (B,): float32, or float64 where x is.

        Where that is not finite, as ln sigma of data, it is the number of the cleanest trained
        level.
        """
        number = self.schedule.conditioning(level)
        if not level.sigma.all():
            cleanest = self.schedule.conditioning(self.schedule(self.schedule.t_min))
            number = torch.where(number.isfinite(), number, cleanest)
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        return number.to(x.device, dtype).expand(len(x))

    def _centred(self, x_t: Tensor, alpha: Tensor) -> Tensor:
        if not self.data_mean:
            return x_t
        return combine((1.0, x_t), (-alpha * self.data_mean, torch.ones_like(x_t)))

    def _c_in(self, level: Level) -> Tensor:
        return 1.0 / torch.sqrt((level.alpha * self.data_std) ** 2 + level.sigma**2)
