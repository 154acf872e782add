"""Private parts of Lightning that training leans on, each behind one function.

`tests/training/test_lightning_private.py` has one test for each: where an installed version of
Lightning lacks one, or means something else by it, that test says so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch.optim.swa_utils import AveragedModel


def averaged_model(callback: WeightAveraging) -> AveragedModel | None:
    """The copy of the module that a callback averages into; None before a fit."""
    return callback._average_model


def swap_average(callback: WeightAveraging, module: LightningModule) -> None:
    """Exchange the weights and buffers of a module and its averaged copy."""
    callback._swap_models(module)


def may_stop_early(trainer: Trainer) -> bool:
    """Whether `min_epochs` and `min_steps` let `should_stop` end the training."""
    return trainer.fit_loop._can_stop_early


def validate_also_where(trainer: Trainer, due: Callable[[], bool]) -> None:
    """Have Lightning validate after a batch of the training where `due` says so, too.

    Its decision is made in one method, called once after each batch; no hook comes between it and
    the end of the training.
    """
    loop = trainer.fit_loop.epoch_loop

    def decide(data_fetcher: Any) -> bool:
        return type(loop)._should_check_val_fx(loop, data_fetcher) or due()

    loop._should_check_val_fx = decide  # type: ignore[method-assign]


def resume_by_progress(trainer: Trainer) -> None:
    """Have progress counters tell whether a checkpoint is of the end of an epoch.

    Where `max_steps` is set, Lightning (2.6) takes every checkpoint for one within an epoch, and
    would train an ended epoch's number again with one batch.
    """
    trainer.fit_loop._iteration_based_training = lambda: False  # type: ignore[method-assign]
