"""Where a training stands: its last batch, its validations, and where it can be left."""

from __future__ import annotations

from typing import TypeVar

from lightning.pytorch import Callback, Trainer

from diffusion_lab.training.lightning_private import may_stop_early, validate_also_where

Kind = TypeVar("Kind", bound=Callback)


def callback_of(trainer: Trainer, kind: type[Kind]) -> Kind | None:
    """The first callback of a kind, or None."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return next((callback for callback in callbacks if isinstance(callback, kind)), None)


def validates_training(trainer: Trainer) -> bool:
    """Whether the validation that is running belongs to a training and is no sanity check."""
    return trainer.state.fn == "fit" and not trainer.sanity_checking


def by_steps(trainer: Trainer) -> bool:
    """Whether validations are counted in steps, so that an epoch may hold several or none.

    Known from `on_train_start` on.
    """
    every, within = trainer.check_val_every_n_epoch, trainer.val_check_batch
    return every is None or (within is not None and within < trainer.num_training_batches)


def epoch_ends_here(trainer: Trainer) -> bool:
    """Whether the training batch that is ending, or has ended, is the last of its epoch."""
    return trainer.fit_loop.batch_idx + 1 >= trainer.num_training_batches


def training_ends_here(trainer: Trainer) -> bool:
    """Whether the training batch that is ending, or has ended, is the last of the training."""
    if trainer.max_steps != -1 and trainer.global_step >= trainer.max_steps:
        return True
    if trainer.should_stop and may_stop_early(trainer):
        return True
    epochs = trainer.max_epochs
    last_epoch = epochs not in (None, -1) and trainer.current_epoch + 1 >= epochs
    return last_epoch and epoch_ends_here(trainer)


def validate_at_the_end(trainer: Trainer) -> None:
    """Make Lightning validate after the last step of a training too, whatever ends it.

    Lightning (2.6) validates at its periods alone: a training that `max_steps`, `max_time` or an
    epoch without validation ends has no metrics of its last weights.
    """
    validate_also_where(
        trainer, lambda: bool(trainer.enable_validation and training_ends_here(trainer))
    )


def validation_follows(trainer: Trainer, batch_idx: int) -> bool:
    """Whether Lightning validates after the training batch that is ending."""
    every, within = trainer.check_val_every_n_epoch, trainer.val_check_batch
    if not trainer.enable_validation or within is None:
        return False
    if training_ends_here(trainer):
        return True
    if every is None:
        return (trainer.fit_loop.total_batch_idx + 1) % within == 0
    return (trainer.current_epoch + 1) % every == 0 and (batch_idx + 1) % within == 0


def between_steps(trainer: Trainer, batch_idx: int) -> bool:
    """Whether a run can be left after this batch and resumed exactly.

    Not while gradients are summed up for a later step, and not while the step's validation is
    still to come, which a resumed run would not make up for; nor after an epoch's last batch,
    since the epoch's end has a save of its own.
    """
    accumulating = (batch_idx + 1) % trainer.accumulate_grad_batches != 0
    last = batch_idx + 1 >= trainer.num_training_batches
    return not accumulating and not last and not validation_follows(trainer, batch_idx)
