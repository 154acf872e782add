"""Learning-rate schedules over a known number of optimizer steps.

Each is a multiple of the optimizer's own rate: it rises linearly over `warmup_steps`, then follows
its curve down to `final_fraction` at the last step. One class a curve; all are torch schedulers.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from diffusion_lab.ranges import Count, Natural, Share, checked


class WarmupSchedule(LRScheduler, ABC):
    """Linear warm-up, then a curve.

    Step k < warmup_steps runs at (k + 1) / warmup_steps of the full rate; after the last of
    `total_steps` it is down to `final_fraction`. The warm-up is cut to a tenth of a shorter run.
    """

    @checked
    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: Count,
        warmup_steps: Natural = 0,
        final_fraction: Share = 0.0,
    ) -> None:
        self.total_steps = int(total_steps)
        self.warmup_steps = min(int(warmup_steps), self.total_steps // 10)
        self.final_fraction = final_fraction
        super().__init__(optimizer)

    @abstractmethod
    def curve(self, progress: float) -> float:
        """Fraction of the way from the full rate to the final one left at progress in [0, 1]."""

    def factor(self, step: int) -> float:
        """Multiple of the full rate at optimizer step `step` = 0, 1, ..."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        length = max(1, self.total_steps - self.warmup_steps)
        left = self.curve(min(1.0, (step - self.warmup_steps) / length))
        return self.final_fraction + (1.0 - self.final_fraction) * left

    def state_dict(self) -> dict[str, Any]:
        """Where the schedule stands; its shape comes from the configuration when resuming."""
        shape = ("total_steps", "warmup_steps", "final_fraction")
        return {k: v for k, v in super().state_dict().items() if k not in shape}

    def get_lr(self) -> list[float | Tensor]:
        """The rate of each parameter group at the current step."""
        return [base * self.factor(self.last_epoch) for base in self.base_lrs]


class Constant(WarmupSchedule):
    """Warm-up, then the full rate; `final_fraction` has no effect."""

    def curve(self, progress: float) -> float:
        """1."""
        return 1.0


class Linear(WarmupSchedule):
    """Warm-up, then a straight line."""

    def curve(self, progress: float) -> float:
        """1 - progress."""
        return 1.0 - progress


class Cosine(WarmupSchedule):
    """Warm-up, then half a cosine (Loshchilov & Hutter, arXiv 1608.03983, one cycle)."""

    def curve(self, progress: float) -> float:
        """(1 + cos(pi progress)) / 2."""
        return 0.5 * (1.0 + math.cos(math.pi * progress))
