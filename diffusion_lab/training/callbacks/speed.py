"""The speed of training as a curve."""

from __future__ import annotations

import lightning.pytorch as pl

from diffusion_lab.training.callbacks.timed import Timed
from diffusion_lab.training.throughput import Throughput


class Speed(Timed):
    """Logs train/images_per_second after every validation: of the training since the last one.

    Validation, drawing and saving do not count, nor does the first step of a run.
    """

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log, and measure anew."""
        if trainer.sanity_checking or trainer.state.fn != "fit" or not self.throughput.rate:
            return
        pl_module.log("train/images_per_second", self.throughput.rate, sync_dist=True)
        self.throughput = Throughput(warm=True)
