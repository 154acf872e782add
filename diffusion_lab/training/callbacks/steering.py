"""Where in training a callback stands: by epochs or by steps, and where a run may be left."""

from __future__ import annotations

import lightning.pytorch as pl

from diffusion_lab.training.ending import ends_here


def by_steps(trainer: pl.Trainer) -> bool:
    """Whether validations are counted in steps, so that an epoch may hold several or none.

    Known from `on_train_start` on.
    """
    every, within = trainer.check_val_every_n_epoch, trainer.val_check_batch
    return every is None or (within is not None and within < trainer.num_training_batches)


def validation_follows(trainer: pl.Trainer, batch_idx: int) -> bool:
    """Whether Lightning validates after the training batch that is ending."""
    every, within = trainer.check_val_every_n_epoch, trainer.val_check_batch
    if not trainer.enable_validation or within is None:
        return False
    if ends_here(trainer):
        return True
    if every is None:
        return (trainer.fit_loop.total_batch_idx + 1) % within == 0
    return (trainer.current_epoch + 1) % every == 0 and (batch_idx + 1) % within == 0


def between_steps(trainer: pl.Trainer, batch_idx: int) -> bool:
    """Whether a run can be left after this batch and resumed exactly.

    Not while gradients are summed up for a later step, and not while the step's validation is
    still to come, which a resumed run would not make up for; nor after an epoch's last batch,
    since the epoch's end has a save of its own.
    """
    summing = (batch_idx + 1) % trainer.accumulate_grad_batches != 0
    last = batch_idx + 1 >= trainer.num_training_batches
    return not summing and not last and not validation_follows(trainer, batch_idx)
