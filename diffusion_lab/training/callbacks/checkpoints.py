"""checkpoints/last.ckpt, best.ckpt and those kept for ever, step_001000.ckpt ..."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint

from diffusion_lab.errors import CheckpointError
from diffusion_lab.files import remove_leftovers
from diffusion_lab.ranges import Count, checked
from diffusion_lab.training.callbacks.monitoring import Best, refuse_never_logged
from diffusion_lab.training.trainer_state import between_steps, by_steps, training_ends_here


class Checkpoints(Checkpoint):
    """Saves last.ckpt at the end of every epoch and best.ckpt at the best validation.

    A step that is followed by a validation is saved after it, so that whoever resumes there finds
    its result in the records.

    Args:
        run_dir: The run's folder; files go to its folder `checkpoints`.
        monitor: Logged metric whose best value makes best.ckpt; null: no best.ckpt. One that only
            some validations log is looked at after these.
        mode: "min" where the smallest value is the best, "max" where the largest is.
        every_n_steps: Also save last.ckpt every so many optimizer steps; null for epochs only.
        keep_every_n_steps: Keep a file of its own, step_001000.ckpt, every so many optimizer
            steps; null for none.
        keep_every_n_epochs: The same at the end of every so many epochs, also named by the step.

    Raises:
        ArgumentError: a number below 1.
        ValueError: a mode that does not suit the metric.
    """

    @checked
    def __init__(
        self,
        run_dir: str | Path,
        monitor: str | None = "val/loss",
        mode: Literal["min", "max"] = "min",
        every_n_steps: Count | None = None,
        keep_every_n_steps: Count | None = None,
        keep_every_n_epochs: Count | None = None,
    ) -> None:
        self.folder = Path(run_dir) / "checkpoints"
        self.best = None if monitor is None else Best(monitor, mode)
        self.every_n_steps = every_n_steps
        self.keep_every_n_steps = keep_every_n_steps
        self.keep_every_n_epochs = keep_every_n_epochs
        self._saved_at = -1

    @property
    def last_path(self) -> Path:
        """The newest state."""
        return self.folder / "last.ckpt"

    @property
    def best_path(self) -> Path:
        """The state of the best validation."""
        return self.folder / "best.ckpt"

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuse a folder that cannot be written or a metric that never comes, before training."""
        if stage != "fit":
            return
        if self.best is not None:
            refuse_never_logged(self.best.monitor, trainer)
        if not trainer.is_global_zero:
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

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse validations while gradients are summed up: best.ckpt could not be resumed."""
        summed, batches = trainer.accumulate_grad_batches, trainer.num_training_batches
        if summed == 1 or trainer.val_check_batch is None or not by_steps(trainer):
            return
        whole_epochs = trainer.check_val_every_n_epoch is not None
        drifting = not whole_epochs and batches % summed
        if trainer.val_check_batch % summed or drifting:
            from diffusion_lab.errors import ConfigError

            rest = "" if whole_epochs else f" and divide the {batches} batches of an epoch"
            raise ConfigError(
                f"trainer.accumulate_grad_batches={summed} must divide trainer.val_check_interval="
                f"{trainer.val_check_interval}{rest}: a validation in the middle of an optimizer "
                "step leaves no state to resume from"
            )

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save in the middle of an epoch, where neither a validation nor its end does."""
        if between_steps(trainer, batch_idx):
            self._save_within_epoch(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the best, and what is due at this step."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        if self.best is not None and self.best.updated(trainer):
            self.save(trainer, self.best_path)
        if not _epoch_is_whole(trainer):
            self._save_within_epoch(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the last, and keep what is due.

        Where `max_steps` or `max_time` cuts an epoch short, its last step was saved as one within
        it: only from there can a longer training go on as if it had been meant to be longer.
        """
        if not _epoch_is_whole(trainer) and self._saved_at == trainer.global_step:
            return
        self.save(trainer)
        every = self.keep_every_n_epochs
        of_epoch = every is not None and (trainer.current_epoch + 1) % every == 0
        if of_epoch or _due(self.keep_every_n_steps, trainer.global_step):
            self._keep(trainer)

    def _save_within_epoch(self, trainer: pl.Trainer) -> None:
        step = trainer.global_step
        if _due(self.every_n_steps, step) or training_ends_here(trainer):
            self.save(trainer)
            self._saved_at = step
        if _due(self.keep_every_n_steps, step):
            self._keep(trainer)

    def _keep(self, trainer: pl.Trainer) -> None:
        self.save(trainer, self.folder / f"step_{trainer.global_step:06d}.ckpt")

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Let a run that is steered by steps go on from the end of an epoch.

        Lightning (2.6) takes every checkpoint for one within an epoch where `max_steps` is set,
        and would train an ended epoch's number again with one batch. Without that rule the end
        of an epoch is told by the progress counters, as it is where `max_epochs` steers.
        """
        trainer.fit_loop._iteration_based_training = lambda: False  # type: ignore[method-assign]

    def state_dict(self) -> dict[str, Any]:
        """The best value so far, and of what."""
        return {} if self.best is None else self.best.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the best value, if it is of the same metric."""
        if self.best is not None and state_dict:
            self.best.load_state_dict(state_dict)


def _epoch_is_whole(trainer: pl.Trainer) -> bool:
    """Whether the latest batch was the last of its epoch."""
    return trainer.fit_loop.batch_idx + 1 >= trainer.num_training_batches


def _due(every: int | None, step: int) -> bool:
    return every is not None and step > 0 and step % every == 0
