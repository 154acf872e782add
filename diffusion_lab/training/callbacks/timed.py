"""What callbacks that tell the speed of training share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from diffusion_lab.training.throughput import Throughput


class Timed(Callback):
    """Keeps `throughput` running while training steps run, and standing in between."""

    def __init__(self) -> None:
        self.throughput = Throughput()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start anew."""
        self.throughput = Throughput()

    def on_train_batch_start(self, *args: Any) -> None:
        """Training time runs."""
        self.throughput.start()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Count the images of all processes."""
        samples = batch["x0"] if isinstance(batch, Mapping) else batch[0]
        self.throughput.step(len(samples) * trainer.world_size)

    def on_validation_start(self, *args: Any) -> None:
        """Training time stands."""
        self.throughput.stop()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Training time stands."""
        self.throughput.stop()
