"""checkpoints/last.ckpt and checkpoints/best.ckpt of a run."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint

from diffusion_lab.training.checkpoint import CheckpointError
from diffusion_lab.training.sealed_files import remove_leftovers


class Checkpoints(Checkpoint):
    """Saves last.ckpt at the end of every epoch and best.ckpt at the best validation.

    Args:
        run_dir: The run's folder; files go to its folder `checkpoints`.
        monitor: Logged metric whose smallest value is the best; null keeps last.ckpt only.
        every_n_steps: Also save last.ckpt every so many optimizer steps; null for epochs only.

    Raises:
        ValueError: every_n_steps < 1.
    """

    def __init__(
        self,
        run_dir: str | Path,
        monitor: str | None = "val/loss",
        every_n_steps: int | None = None,
    ) -> None:
        if every_n_steps is not None and every_n_steps < 1:
            raise ValueError(
                f"callbacks.checkpoints.every_n_steps={every_n_steps} must be at least 1, or null"
            )
        self.folder = Path(run_dir) / "checkpoints"
        self.monitor = monitor
        self.every_n_steps = every_n_steps
        self.best = math.inf

    @property
    def last_path(self) -> Path:
        """The newest state."""
        return self.folder / "last.ckpt"

    @property
    def best_path(self) -> Path:
        """The state of the best validation."""
        return self.folder / "best.ckpt"

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuse a folder that cannot be written, before any training."""
        if stage != "fit" or not trainer.is_global_zero:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise CheckpointError(
                f"checkpoints cannot be written to {self.folder}: {error.strerror or error}; "
                "choose another run_dir"
            ) from None
        remove_leftovers(self.folder)

    def save(self, trainer: pl.Trainer, path: Path | None = None) -> Path:
        """Save the run's state, by default as last.ckpt; every process must call this."""
        path = path or self.last_path
        trainer.save_checkpoint(path)
        return path

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save in the middle of an epoch; its end has a save of its own."""
        every, step = self.every_n_steps, trainer.global_step
        if every and step % every == 0 and between_steps(trainer, batch_idx):
            self.save(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the best."""
        if trainer.sanity_checking or trainer.state.fn != "fit" or self.monitor is None:
            return
        value = trainer.callback_metrics.get(self.monitor)
        if value is None:
            raise ValueError(
                f"callbacks.checkpoints.monitor={self.monitor!r} is not logged; there are "
                f"{', '.join(sorted(trainer.callback_metrics))}"
            )
        if float(value) < self.best:
            self.best = float(value)
            self.save(trainer, self.best_path)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the last."""
        self.save(trainer)

    def state_dict(self) -> dict[str, Any]:
        """The best value so far."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the best value."""
        self.best = float(state_dict["best"])


def between_steps(trainer: pl.Trainer, batch_idx: int) -> bool:
    """Whether a run can be left after this batch and resumed exactly.

    Not while gradients are summed up for a later step, and not after an epoch's last batch: that
    epoch's validation is still to come, and its end has a save of its own.
    """
    summing = (batch_idx + 1) % trainer.accumulate_grad_batches != 0
    return not summing and batch_idx + 1 < trainer.num_training_batches
