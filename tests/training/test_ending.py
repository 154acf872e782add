"""A training is validated at its end, once, whatever ends it; checkpoints and records show it."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from test_resume import run, same
from tiny import TinyData, tiny_fit, tiny_module

from diffusion_lab.checkpoints.format import read_checkpoint
from diffusion_lab.training.callbacks import Checkpoints, RunRecord
from diffusion_lab.training.ema import EMA


class Seen(pl.Callback):
    """The steps after which there were validations, and whether by averaged weights."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.averaged: list[bool] = []

    def on_validation_epoch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        self.steps.append(trainer.global_step)
        self.averaged += [c.swapped for c in trainer.callbacks if isinstance(c, EMA)]


class StopAt(pl.Callback):
    """As early stopping or a time limit does: between two validations."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        trainer.should_stop = trainer.global_step >= self.step


ENDS: dict[str, tuple[dict[str, Any], list[int]]] = {
    "max_steps before the first": ({"max_steps": 3}, [3]),
    "max_steps between": ({"max_steps": 27}, [20, 27]),
    "max_steps at one": ({"max_steps": 40}, [20, 40]),
    "max_epochs at one": ({}, [20, 40, 60]),
    "max_epochs between": ({"check_val_every_n_epoch": 2}, [40, 60]),
    "never": ({"check_val_every_n_epoch": 5}, [60]),
    "by batches": ({"check_val_every_n_epoch": None, "val_check_interval": 25}, [25, 50, 60]),
    "within epochs": ({"val_check_interval": 15, "max_epochs": 1}, [15, 20]),
    "summing": ({"accumulate_grad_batches": 4, "max_steps": 7}, [5, 7]),
    "max_time": ({"max_time": timedelta(microseconds=1)}, [1]),
    "none wanted": ({"limit_val_batches": 0, "max_steps": 3}, []),
}
"""What ends a training of 3 epochs of 20 batches; the steps of its validations."""


@pytest.mark.parametrize("end", ENDS)
def test_a_training_is_validated_at_its_end(tmp_path: Path, end: str) -> None:
    changes, wanted = ENDS[end]
    seen = Seen()
    monitor = "val/loss" if wanted else None
    callbacks = [EMA(0.9), seen, RunRecord(tmp_path, report=False), Checkpoints(tmp_path, monitor)]
    trainer = tiny_fit(tmp_path, **{"callbacks": callbacks, **changes})
    assert seen.steps == wanted and all(seen.averaged)
    last = read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    assert last["global_step"] == trainer.global_step
    metrics = json.loads((tmp_path / "summary.json").read_text())["metrics"]
    assert ("val/loss" in metrics) == bool(wanted)
    if wanted:
        name = next(key for key in last["callbacks"] if "Checkpoints" in key)
        best = read_checkpoint(tmp_path / "checkpoints" / "best.ckpt")
        assert last["callbacks"][name]["best"] == best["callbacks"][name]["best"]
        assert last["callbacks"][name]["best"] <= metrics["val/loss"]
        shown = trainer.validate(tiny_module_of(last), datamodule=TinyData(), verbose=False)
        assert shown[0]["val/loss"] == pytest.approx(metrics["val/loss"], rel=1e-5)


def tiny_module_of(checkpoint: dict[str, Any]) -> pl.LightningModule:
    module = tiny_module()
    module.load_state_dict(checkpoint["state_dict"])
    return module


def test_a_stop_between_two_validations(tmp_path: Path) -> None:
    seen = Seen()
    trainer = tiny_fit(tmp_path, StopAt(27), seen)
    assert seen.steps == [20, 27] and trainer.global_step == 27
    assert read_checkpoint(tmp_path)["global_step"] == 27


@pytest.mark.parametrize("steps", [7, 20, 27])
def test_a_longer_training_goes_on_from_there(tmp_path: Path, steps: int) -> None:
    """As if it had been meant to be longer; the constant rate does not depend on the length."""
    fixed = {"lr_scheduler": None}
    whole = of(tmp_path / "whole", fixed, max_steps=33)
    of(tmp_path / "cut", fixed, max_steps=steps)
    for name in ("last", "best"):
        place = tmp_path / "cut" / "checkpoints" / f"{name}.ckpt"
        if read_checkpoint(place)["global_step"] == steps:
            again = of(tmp_path / name, fixed, ckpt=place, max_steps=33)
            assert same(whole, again) == [], name


@pytest.mark.parametrize("name", ["last", "best"])
def test_further_epochs_go_on_from_there(tmp_path: Path, name: str) -> None:
    fixed = {"lr_scheduler": None}
    changes = {"check_val_every_n_epoch": 2}
    whole = of(tmp_path / "whole", fixed, max_epochs=4, **changes)
    of(tmp_path / "cut", fixed, max_epochs=3, **changes)
    place = tmp_path / "cut" / "checkpoints" / f"{name}.ckpt"
    if read_checkpoint(place)["global_step"] != 60:
        pytest.skip("the best was earlier")
    assert same(whole, of(tmp_path / "again", fixed, ckpt=place, max_epochs=4, **changes)) == []


def of(folder: Path, module: dict[str, Any], ckpt: Path | None = None, **changes: Any) -> dict:
    """The state at the end of a training."""
    tiny_fit(folder, **changes, module=tiny_module(**module), ckpt=ckpt)
    stored = read_checkpoint(folder / "checkpoints" / "last.ckpt")
    keys = ("state_dict", "current_model_state", "optimizer_states", "global_step")
    return {key: stored[key] for key in keys}


def test_resumed_before_its_end(tmp_path: Path) -> None:
    """Stopped and resumed, a training that `max_steps` ends is the one that was not stopped."""
    from test_resume import SaveEveryStep

    changes = {"max_steps": 27}
    whole = run(tmp_path / "whole", SaveEveryStep(tmp_path / "saved"), **changes)
    for step in (3, 26):
        again = run(tmp_path / str(step), ckpt=tmp_path / "saved" / f"{step:03d}.ckpt", **changes)
        assert same(whole, again) == []
    assert torch.is_tensor(whole["state_dict"]["diffusion.denoiser.inner.weight"])
