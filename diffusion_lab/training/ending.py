"""The end of a training: which batch is the last, and the validation after it."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl


def validate_at_the_end(trainer: pl.Trainer) -> None:
    """Have Lightning validate after the last step of a training too, whatever ends it.

    Lightning (2.6) validates at its periods alone: a training that `max_steps`, `max_time` or an
    epoch without validation ends has no figures of its last weights. Its decision is made in one
    method, which is asked once after each batch; no hook comes between it and the end.
    """
    loop = trainer.fit_loop.epoch_loop

    def decide(data_fetcher: Any) -> bool:
        due = type(loop)._should_check_val_fx(loop, data_fetcher)
        return due or (trainer.enable_validation and ends_here(trainer))

    loop._should_check_val_fx = decide  # type: ignore[method-assign]


def ends_here(trainer: pl.Trainer) -> bool:
    """Whether the training batch that is ending, or has ended, is the last of the training."""
    if trainer.max_steps != -1 and trainer.global_step >= trainer.max_steps:
        return True
    if trainer.should_stop and trainer.fit_loop._can_stop_early:
        return True
    last_batch = trainer.fit_loop.batch_idx + 1 >= trainer.num_training_batches
    epochs = trainer.max_epochs
    return last_batch and epochs not in (None, -1) and trainer.current_epoch + 1 >= epochs
