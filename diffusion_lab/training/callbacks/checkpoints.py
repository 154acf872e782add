"""checkpoints/last.ckpt, best.ckpt and those kept for ever, step_001000.ckpt ..."""

from __future__ import annotations

import math
import tempfile
import warnings
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from diffusion_lab.errors import CheckpointError, ConfigError
from diffusion_lab.files import remove_leftovers
from diffusion_lab.metrics.catalog import LOGGED
from diffusion_lab.ranges import Count, checked
from diffusion_lab.training.lightning_private import resume_by_progress
from diffusion_lab.training.trainer_state import (
    between_steps,
    by_steps,
    epoch_ends_here,
    training_ends_here,
    validates_training,
)

_LARGER_IS_BETTER = frozenset(
    {name for name, row in LOGGED.items() if row.better == "high"} | {"val/accuracy"}
)
"""Metrics of this package whose largest value is the best; of all others it is the smallest."""


class Checkpoints(Checkpoint):
    """Saves last.ckpt at the end of every epoch and best.ckpt at the best validation.

    A step that is followed by a validation is saved after it, so that whoever resumes there finds
    its result in the records. A monitored metric that only some validations log is compared after
    these. Files that are kept for ever, also those of `keep_every_n_epochs`, are named by the step.

    Raises:
        ConfigError: `mode` makes the worst value of the monitored metric the best.
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
        _check_mode(monitor, mode)
        self.folder = Path(run_dir) / "checkpoints"
        self.monitor, self.mode = monitor, mode
        self.best = math.inf if mode == "min" else -math.inf
        self.every_n_steps = every_n_steps
        self.keep_every_n_steps = keep_every_n_steps
        self.keep_every_n_epochs = keep_every_n_epochs
        self._saved_at = -1

    # ------------------------------------------------------------------ before training

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Reject a folder that cannot be written and a metric that nothing will log.

        Raises:
            CheckpointError: Nothing can be written there.
            ConfigError: Samples are not scored, so their metrics never come.
        """
        if stage != "fit":
            return
        if self.monitor in LOGGED and self.monitor not in _promised(trainer):
            raise ConfigError(
                f"callbacks.checkpoints.monitor={self.monitor} is logged only while samples are "
                "scored: set callbacks.sample_metrics.every_n_epochs, e.g. to 1, or monitor "
                "val/loss"
            )
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

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reject validations within an optimizer step: best.ckpt could not be resumed.

        Raises:
            ConfigError: Gradients are accumulated across a validation.
        """
        accumulated, batches = trainer.accumulate_grad_batches, trainer.num_training_batches
        if accumulated == 1 or trainer.val_check_batch is None or not by_steps(trainer):
            return
        whole_epochs = trainer.check_val_every_n_epoch is not None
        drifting = not whole_epochs and batches % accumulated
        if trainer.val_check_batch % accumulated or drifting:
            rest = "" if whole_epochs else f" and divide the {batches} batches of an epoch"
            raise ConfigError(
                f"trainer.accumulate_grad_batches={accumulated} must divide "
                f"trainer.val_check_interval={trainer.val_check_interval}{rest}: a validation in "
                "the middle of an optimizer step leaves no state to resume from"
            )

    # ------------------------------------------------------------------ saving

    def save(self, trainer: Trainer, name: str = "last.ckpt") -> None:
        """Save the run's state; every process must call this."""
        trainer.save_checkpoint(self.folder / name)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save in the middle of an epoch, where neither a validation nor its end does."""
        if between_steps(trainer, batch_idx):
            self._save_within_epoch(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the best, and what is due at this step."""
        if not validates_training(trainer):
            return
        if self._is_best(trainer):
            self.save(trainer, "best.ckpt")
        if not epoch_ends_here(trainer):
            self._save_within_epoch(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the last, and keep what is due.

        Where `max_steps` or `max_time` cuts an epoch short, its last step was saved as one within
        it: only from there can a longer training go on as if it had been meant to be longer.
        """
        if not epoch_ends_here(trainer) and self._saved_at == trainer.global_step:
            return
        self.save(trainer)
        self._keep_if_due(trainer, _due(self.keep_every_n_epochs, trainer.current_epoch + 1))

    def _save_within_epoch(self, trainer: Trainer) -> None:
        step = trainer.global_step
        if _due(self.every_n_steps, step) or training_ends_here(trainer):
            self.save(trainer)
            self._saved_at = step
        self._keep_if_due(trainer)

    def _keep_if_due(self, trainer: Trainer, epoch_is_kept: bool = False) -> None:
        step = trainer.global_step
        if epoch_is_kept or _due(self.keep_every_n_steps, step):
            self.save(trainer, f"step_{step:06d}.ckpt")

    # ------------------------------------------------------------------ the best value

    def _is_best(self, trainer: Trainer) -> bool:
        """Whether the metric is better than ever before; its value is then the best.

        A value that an earlier validation logged is never better, so validations without the
        metric change nothing.

        Raises:
            ConfigError: This validation did not log the metric, and no later one will.
        """
        if self.monitor is None:
            return False
        logged, promised = trainer.callback_metrics.get(self.monitor), _promised(trainer)
        if logged is None and self.monitor not in promised:
            raise ConfigError(
                f"callbacks.checkpoints.monitor={self.monitor!r} is not logged; there are "
                f"{', '.join(sorted({*trainer.callback_metrics, *promised}))}"
            )
        if logged is None:
            return False
        value = float(logged)
        better = value < self.best if self.mode == "min" else value > self.best
        if better:
            self.best = value
        return better

    def state_dict(self) -> dict[str, Any]:
        """The best value so far, and of what."""
        if self.monitor is None:
            return {}
        return {"best": self.best, "monitor": self.monitor, "mode": self.mode}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best value, unless it is of another metric."""
        if self.monitor is None or not state_dict:
            return
        stored = (state_dict.get("monitor", "val/loss"), state_dict.get("mode", "min"))
        if stored == (self.monitor, self.mode):
            self.best = float(state_dict["best"])
        else:
            warnings.warn(
                f"callbacks.checkpoints.monitor={self.monitor} (mode={self.mode}) was {stored[0]} "
                f"(mode={stored[1]}) so far: the next value is taken for the best",
                stacklevel=2,
            )

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Let a run that is steered by steps go on from the end of an epoch."""
        resume_by_progress(trainer)


def _check_mode(monitor: str | None, mode: str) -> None:
    """Raise ConfigError where `mode` makes the worst value of a metric of ours the best."""
    if monitor is None:
        return
    own = monitor in LOGGED or monitor in _LARGER_IS_BETTER or monitor.startswith("val/loss")
    wanted = "max" if monitor in _LARGER_IS_BETTER else "min"
    if own and mode != wanted:
        raise ConfigError(
            f"callbacks.checkpoints.mode={mode}: {monitor} is the better the "
            f"{'larger' if wanted == 'max' else 'smaller'} it is; take mode={wanted}"
        )


def _promised(trainer: Trainer) -> set[str]:
    """Metrics that callbacks log after some validations only."""
    return {name for c in trainer.callbacks for name in getattr(c, "promised", ())}  # type: ignore[attr-defined]


def _due(every: int | None, number: int) -> bool:
    return every is not None and number > 0 and number % every == 0
