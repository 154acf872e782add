"""What training takes from Lightning beside its documented interface is there, and does as told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import WeightAveraging
from tiny import TinyData, tiny_module, tiny_trainer
from torch.optim.swa_utils import AveragedModel

from diffusion_lab.training.lightning_private import (
    averaged_model,
    may_stop_early,
    resume_by_progress,
    swap_average,
    validate_also_where,
)


@contextmanager
def private(name: str) -> Iterator[None]:
    """Say which version of Lightning does not have a part, or has another under its name."""
    try:
        yield
    except (AttributeError, TypeError, AssertionError) as error:
        pytest.fail(
            f"Lightning {pl.__version__}: {name} is gone or behaves differently "
            f"({type(error).__name__}: {error}); mend it in training/lightning_private.py"
        )


@pytest.fixture
def averaging() -> tuple[WeightAveraging, pl.LightningModule]:
    callback, module = WeightAveraging(), tiny_module()
    callback.setup(pl.Trainer(accelerator="cpu", logger=False), module, "fit")
    return callback, module


def test_the_averaged_copy_is_found(averaging: tuple[WeightAveraging, pl.LightningModule]) -> None:
    with private("WeightAveraging._average_model"):
        assert averaged_model(WeightAveraging()) is None
        copy = averaged_model(averaging[0])
        assert isinstance(copy, AveragedModel) and isinstance(copy.module, type(averaging[1]))
        assert int(copy.n_averaged) == 0


def test_weights_and_buffers_are_swapped(
    averaging: tuple[WeightAveraging, pl.LightningModule],
) -> None:
    callback, module = averaging
    with private("WeightAveraging._swap_models"):
        for tensor in (*module.parameters(), *module.buffers()):
            tensor.data.fill_(3.0)
        copy = averaged_model(callback)
        assert copy is not None
        before = {name: value.clone() for name, value in copy.module.state_dict().items()}
        swap_average(callback, module)
        assert all(torch.equal(before[k], value) for k, value in module.state_dict().items())
        assert all((value == 3).all() for value in copy.module.state_dict().values())


@pytest.mark.parametrize("least", [None, 1])
def test_a_least_number_of_steps_is_asked_for(tmp_path: Path, least: int | None) -> None:
    with private("FitLoop._can_stop_early"):
        trainer = tiny_trainer(tmp_path, min_steps=least)
        assert bool(may_stop_early(trainer)) == (least is None)


def test_a_validation_can_be_added(tmp_path: Path) -> None:
    class Adding(pl.Callback):
        steps: list[int] = []  # noqa: RUF012

        def on_train_epoch_start(self, trainer: pl.Trainer, *args: object) -> None:
            validate_also_where(trainer, lambda: trainer.global_step == 7)

        def on_validation_end(self, trainer: pl.Trainer, *args: object) -> None:
            self.steps.append(trainer.global_step)

    with private("_TrainingEpochLoop._should_check_val_fx"):
        trainer = tiny_trainer(tmp_path, Adding(), max_epochs=1)
        trainer.fit(tiny_module(), datamodule=TinyData())
        assert Adding.steps == [7, 20]


def test_progress_tells_of_the_end_of_an_epoch(tmp_path: Path) -> None:
    """That a run then goes on rightly is tested in `test_ending`."""
    with private("FitLoop._iteration_based_training"):
        trainer = tiny_trainer(tmp_path, max_steps=40)
        assert trainer.fit_loop._iteration_based_training() is True
        resume_by_progress(trainer)
        assert trainer.fit_loop._iteration_based_training() is False
