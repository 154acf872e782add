"""The metric that best.ckpt goes by."""

from __future__ import annotations

import math
import warnings
from typing import Any, Literal

import lightning.pytorch as pl

from diffusion_lab.metrics.catalog import LOGGED

LARGER_IS_BETTER = frozenset(
    {name for name, row in LOGGED.items() if row.better == "high"} | {"val/accuracy"}
)
"""Metrics of this package whose largest value is the best; of all others it is the smallest."""


class Best:
    """The best value of a metric so far.

    Args:
        monitor: Name of the metric as it is logged.
        mode: "min" where the smallest value is the best, "max" where the largest is.

    Raises:
        ValueError: another mode, or one that makes the worst value the best (ConfigError).
    """

    def __init__(self, monitor: str, mode: Literal["min", "max"]) -> None:
        if mode not in ("min", "max"):
            raise ValueError(f"callbacks.checkpoints.mode={mode!r} must be min or max")
        own = monitor in LOGGED or monitor in LARGER_IS_BETTER or monitor.startswith("val/loss")
        wanted = "max" if monitor in LARGER_IS_BETTER else "min"
        if own and mode != wanted:
            from diffusion_lab.errors import ConfigError

            raise ConfigError(
                f"callbacks.checkpoints.mode={mode}: {monitor} is the better the "
                f"{'larger' if wanted == 'max' else 'smaller'} it is; take mode={wanted}"
            )
        self.monitor, self.mode = monitor, mode
        self.value = math.inf if mode == "min" else -math.inf

    def updated(self, trainer: pl.Trainer) -> bool:
        """Whether the metric is better than ever before; then its value is kept.

        A value that an earlier validation logged is never better, so that validations without
        the metric change nothing.

        Raises:
            ConfigError: the metric is not logged and will not be.
        """
        logged = trainer.callback_metrics.get(self.monitor)
        if logged is None:
            refuse_unknown(self.monitor, trainer)
            return False
        value = float(logged)
        better = value < self.value if self.mode == "min" else value > self.value
        if better:
            self.value = value
        return better

    def state_dict(self) -> dict[str, Any]:
        """Value, metric and mode."""
        return {"best": self.value, "monitor": self.monitor, "mode": self.mode}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the value; one of another metric says nothing of this one and is left."""
        stored = (state.get("monitor", "val/loss"), state.get("mode", "min"))
        if stored == (self.monitor, self.mode):
            self.value = float(state["best"])
        else:
            warnings.warn(
                f"callbacks.checkpoints.monitor={self.monitor} (mode={self.mode}) was {stored[0]} "
                f"(mode={stored[1]}) so far: the next value is taken for the best",
                stacklevel=2,
            )


def refuse_never_logged(monitor: str, trainer: pl.Trainer) -> None:
    """Refuse, before training, a metric of samples that no callback is going to log.

    Raises:
        ConfigError: saying what switches it on.
    """
    if monitor in LOGGED and monitor not in _promised(trainer):
        from diffusion_lab.errors import ConfigError

        raise ConfigError(
            f"callbacks.checkpoints.monitor={monitor} is logged only while samples are scored: "
            "set callbacks.sample_metrics.every_n_epochs, e.g. to 1, or monitor val/loss"
        )


def refuse_unknown(monitor: str, trainer: pl.Trainer) -> None:
    """Refuse, after a validation, a metric that it did not log and that no later one will.

    Raises:
        ConfigError: naming those that are logged.
    """
    promised = _promised(trainer)
    if monitor not in promised:
        from diffusion_lab.errors import ConfigError

        raise ConfigError(
            f"callbacks.checkpoints.monitor={monitor!r} is not logged; there are "
            f"{', '.join(sorted({*trainer.callback_metrics, *promised}))}"
        )


def _promised(trainer: pl.Trainer) -> set[str]:
    """Metrics that callbacks log after some validations only."""
    return {name for c in trainer.callbacks for name in getattr(c, "promised", ())}  # type: ignore[attr-defined]
