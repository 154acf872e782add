"""What a user sees while a run trains."""

from __future__ import annotations

import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from diffusion_lab.ranges import NonNegative, checked
from diffusion_lab.status_line import StatusLine, clock
from diffusion_lab.training.callbacks.speed import Speed
from diffusion_lab.training.trainer_state import by_steps, callback_of, validates_training


class Progress(Callback):
    """Shows one line: epoch, steps, loss, images per second, time left.

    On a terminal the line is redrawn at most every `interval` seconds and kept once an epoch, or
    once a validation where those are counted in steps; elsewhere (a log file) a line is printed
    every `log_interval` seconds and at the same places. The loss is read from the device only for
    a line that is shown.
    """

    @checked
    def __init__(self, interval: NonNegative = 0.5, log_interval: NonNegative = 15.0) -> None:
        self._line = StatusLine()
        self.interval = interval if self._line.terminal else log_interval
        self._shown = self._started = 0.0
        self._first_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note when and where the run starts."""
        self._started = self._shown = time.perf_counter()
        self._first_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Show a line if the last one is old enough."""
        if trainer.is_global_zero and time.perf_counter() - self._shown > self.interval:
            self._show(trainer, outputs)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep a line for the validation, where those are counted in steps."""
        counted = validates_training(trainer) and by_steps(trainer)
        if trainer.is_global_zero and counted and trainer.global_step != trainer.max_steps:
            self._show(trainer, None, keep=True)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep a line for the epoch, and for the last step."""
        ended = trainer.global_step == trainer.max_steps or not by_steps(trainer)
        if trainer.is_global_zero and ended:
            self._show(trainer, None, keep=True)

    def on_train_end(self, *args: Any) -> None:
        """Go on below the line."""
        self._line.leave()

    def _show(self, trainer: Trainer, outputs: Any, keep: bool = False) -> None:
        self._shown = time.perf_counter()
        parts = [f"epoch {trainer.current_epoch + 1}{_of(trainer.max_epochs)}"]
        parts.append(f"step {trainer.global_step}{_of(_total(trainer))}")
        metrics = trainer.callback_metrics
        loss = outputs.get("loss") if isinstance(outputs, dict) else metrics.get("train/loss")
        if isinstance(loss, Tensor):
            parts.append(f"loss {loss.item():.4f}")
        if "val/loss" in metrics:
            parts.append(f"val {metrics['val/loss'].item():.4f}")
        speed = callback_of(trainer, Speed)
        if speed is not None and speed.rate:
            parts.append(f"{speed.rate:,.0f} images/s")
        left = self._seconds_left(trainer)
        if left is not None:
            parts.append(f"{clock(left)} left")
        self._line.write("  ".join(parts), keep)

    def _seconds_left(self, trainer: Trainer) -> float | None:
        """From the pace so far, validation and grids included once there was an epoch."""
        total, done = _total(trainer), trainer.global_step - self._first_step
        if total is None or done < 1:
            return None
        elapsed = time.perf_counter() - self._started
        return max(0.0, elapsed / done * (total - trainer.global_step))


def _total(trainer: Trainer) -> int | None:
    """Optimizer steps of the whole training, or None where it has no end."""
    total = trainer.estimated_stepping_batches
    return int(total) if 0 < total < float("inf") else None


def _of(number: int | None) -> str:
    return "" if number is None or number < 0 else f"/{number}"
