"""Which parts of a model fit together: what is checked when it is configured."""

from __future__ import annotations

import torch

from diffusion_lab.diffusion.parameterizations import Parameterization
from diffusion_lab.diffusion.schedules import Schedule

LARGEST_TERMINAL_ALPHA = 0.05
"""Amplitude of the signal at t = 1 above which a standard normal start is called wrong."""


def check_recoverable(parameterization: Parameterization, schedule: Schedule) -> None:
    """Check that x0 can be recovered at every trained time, D != 0; else a ValueError."""
    count = 1001 if schedule.steps is None else schedule.steps + 1
    level = schedule(torch.linspace(0, 1, count, dtype=torch.float64)[1:])
    zero = parameterization.determinant(level).abs() < 1e-12
    if bool(zero.any()):
        raise ValueError(
            f"{type(parameterization).__name__} cannot be used with {type(schedule).__name__}: at "
            f"t = {float(level.t[zero][0]):g} alpha is 0, so predicting the noise says nothing "
            "of the image. Predict v, velocity or x0"
        )


def terminal_mismatch(schedule: Schedule) -> str | None:
    """What is wrong with starting to sample from N(0, 1) where the schedule ends, or None.

    That start is right where alpha(1) = 0; a variance preserving schedule that keeps more than
    `LARGEST_TERMINAL_ALPHA` of the signal starts from the wrong noise.
    """
    level = schedule(schedule.t_max)
    if not bool(schedule.preserving(level)) or level.alpha <= LARGEST_TERMINAL_ALPHA:
        return None
    return (
        f"the schedule ends with {float(level.alpha):.3g} of the signal's amplitude left "
        f"(terminal SNR {float(level.alpha / level.sigma) ** 2:.2g}, "
        f"{float(level.log_snr) * 4.342944819:.0f} dB), but sampling starts from pure noise: "
        "more or scaled steps, a zero-terminal schedule or matched_prior=true cure it"
    )
