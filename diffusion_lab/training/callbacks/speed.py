"""The clock of a training: images per second, as a curve and for whoever shows it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from diffusion_lab.training.trainer_state import validates_training


class Speed(Callback):
    """Measures images per second of the training alone; logs train/images_per_second.

    Validation, sampling and saving do not count, nor does the first step of a run, which warms up
    caches and compilers. A value of the curve covers the steps since the last validation; the
    callbacks `Progress` and `RunRecord` read `rate`.
    """

    def __init__(self) -> None:
        self._restart()

    def _restart(self) -> None:
        self.images = 0
        self._seconds = 0.0
        self._resumed_at: float | None = None
        self._warm = False
        self._logged = (0, 0.0)

    @property
    def seconds(self) -> float:
        """Seconds of training so far."""
        now = time.perf_counter()
        return self._seconds + (0.0 if self._resumed_at is None else now - self._resumed_at)

    @property
    def rate(self) -> float | None:
        """Images a second of the run; None until its second step has ended."""
        return self.images / self.seconds if self.images else None

    def on_train_start(self, *args: Any) -> None:
        """Reset the clock."""
        self._restart()

    def on_train_batch_start(self, *args: Any) -> None:
        """Resume the clock."""
        if self._resumed_at is None:
            self._resumed_at = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the images of all processes."""
        if not self._warm:
            self._restart()
            self._warm, self._resumed_at = True, time.perf_counter()
            return
        samples = batch["x0"] if isinstance(batch, Mapping) else batch[0]
        self.images += len(samples) * trainer.world_size

    def _pause(self, *args: Any) -> None:
        """Pause the clock."""
        self._seconds, self._resumed_at = self.seconds, None

    on_validation_start = on_train_epoch_end = on_save_checkpoint = _pause  # type: ignore[assignment]

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the speed since the last validation."""
        images, seconds = self.images - self._logged[0], self.seconds - self._logged[1]
        if validates_training(trainer) and images:
            pl_module.log("train/images_per_second", images / seconds, sync_dist=True)
            self._logged = (self.images, self.seconds)
