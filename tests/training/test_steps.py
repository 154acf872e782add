"""Training steered by steps: validations, grids and checkpoints within epochs; exact resuming."""

from __future__ import annotations

import csv
import json
import signal
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from tiny import tiny_fit, tiny_module

from diffusion_lab.checkpoints.finding import find_checkpoint
from diffusion_lab.checkpoints.format import read_checkpoint
from diffusion_lab.training.callbacks import (
    Checkpoints,
    Interrupted,
    Interruption,
    Progress,
    RunRecord,
    SampleGrid,
)
from diffusion_lab.training.schedulers import Constant

BY_STEPS = {
    "max_epochs": -1, "max_steps": 50, "val_check_interval": 8, "check_val_every_n_epoch": None,
}  # fmt: skip
STATE = ("state_dict", "current_model_state", "optimizer_states", "lr_schedulers", "global_step")


def run(
    folder: Path, *callbacks: pl.Callback, ckpt: Path | None = None, **changes: Any
) -> dict[str, Any]:
    """Train by steps; the state in last.ckpt."""
    module = changes.pop("module", None) or tiny_module()
    tiny_fit(folder, *callbacks, **(BY_STEPS | changes), module=module, ckpt=ckpt)
    checkpoint = read_checkpoint(folder)
    return {key: checkpoint[key] for key in STATE}


def differing(a: Any, b: Any, path: str = "") -> list[str]:
    """Paths of the leaves in which two nested containers differ."""
    if isinstance(a, torch.Tensor):
        return [] if torch.equal(a, b) else [path]
    if isinstance(a, dict):
        assert a.keys() == b.keys(), path
        return [d for key in a for d in differing(a[key], b[key], f"{path}.{key}")]
    if isinstance(a, list | tuple):
        pairs = enumerate(zip(a, b, strict=True))
        return [d for i, (x, y) in pairs for d in differing(x, y, f"{path}.{i}")]
    return [] if a == b else [path]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_validations_grids_records_and_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = RunRecord(tmp_path, "tiny", report=False)
    run(tmp_path, SampleGrid(tmp_path, 6), record, Progress(log_interval=1e9))
    wanted = [*range(8, 50, 8), 50]
    assert names(tmp_path / "samples") == [f"step_{k:06d}.png" for k in wanted]
    found = rows(tmp_path)
    assert [int(row["step"]) for row in found if row["val/loss"]] == [k - 1 for k in wanted]
    assert [int(row["step"]) for row in found if row["train/loss"]] == list(range(4, 50, 5))
    assert {row["epoch"] for row in found if row["val/loss"]} == {"0", "1", "2"}
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["status"] == "finished" and summary["step"] == summary["max_steps"] == 50
    assert summary["metrics"]["val/loss"] > 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[1] for line in lines] == [f"step {k}/50" for k in wanted]
    assert lines[-1].startswith("epoch 3  step 50/50")


def test_a_grid_of_the_average_at_the_numbers_asked_for(tmp_path: Path) -> None:
    run(tmp_path, SampleGrid(tmp_path, 6, at=[16, 48, 80_000]))
    assert names(tmp_path / "samples") == ["step_000016.png", "step_000048.png", "step_000050.png"]
    run(tmp_path / "epochs", SampleGrid(tmp_path / "epochs", 6, at=[2]), max_epochs=3, max_steps=-1,
        val_check_interval=1.0, check_val_every_n_epoch=1)  # fmt: skip
    assert names(tmp_path / "epochs" / "samples") == ["epoch_002.png", "epoch_003.png"]


def test_numbers_that_no_validation_follows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"samples\.at=\[12\].*every 8 steps.*val_check_interval"):
        run(tmp_path, SampleGrid(tmp_path, 6, at=[8, 12]))
    with pytest.raises(ValueError, match=r"at=\[0\] must be .* at least 1"):
        SampleGrid(tmp_path, at=[0])


def test_kept_checkpoints_stay_and_load(tmp_path: Path) -> None:
    keeper = Checkpoints(tmp_path, keep_every_n_steps=12, keep_every_n_epochs=2)
    run(tmp_path, keeper)
    kept = [f"step_{k:06d}.ckpt" for k in (12, 24, 36, 40, 48)]
    assert names(tmp_path / "checkpoints") == ["best.ckpt", "last.ckpt", *kept]
    for name in kept:
        stored = read_checkpoint(tmp_path / "checkpoints" / name)
        assert stored["global_step"] == int(name[5:11])
        assert stored["diffusion_lab"]["weights"]["state_dict"] == "ema"
    assert find_checkpoint(tmp_path).name == "last.ckpt"
    for bad in ("keep_every_n_steps", "keep_every_n_epochs", "every_n_steps"):
        with pytest.raises(ValueError, match=f"{bad}=0 must be an integer of at least 1"):
            Checkpoints(tmp_path, **{bad: 0})


@pytest.mark.parametrize(
    "interval", [{}, {"val_check_interval": 0.4, "check_val_every_n_epoch": 1}]
)
def test_every_kept_checkpoint_resumes_bit_for_bit(tmp_path: Path, interval: dict) -> None:
    """Kept before a validation's step, at it, within and at the end of an epoch: all states."""
    whole = run(tmp_path, Checkpoints(tmp_path, keep_every_n_steps=4), **interval)
    written = (tmp_path / "metrics.csv").read_text()
    kept = sorted((tmp_path / "checkpoints").glob("step_*.ckpt"))
    assert [int(path.stem[5:]) for path in kept] == list(range(4, 50, 4))
    best = tmp_path / "checkpoints" / "best.ckpt"
    at_the_end = read_checkpoint(best)["global_step"] == 50  # there is nothing to go on with
    for path in kept if at_the_end else [*kept, best]:
        folder = tmp_path / path.stem
        folder.mkdir()
        (folder / "metrics.csv").write_text(written)
        again = run(folder, ckpt=path, **interval)
        assert differing(whole, again) == [], path.name
        assert (folder / "metrics.csv").read_text() == written, path.name


@pytest.mark.parametrize(("asked", "left"), [(7, 7), (8, 9)])
def test_a_stopped_run_leaves_no_validation_out(tmp_path: Path, asked: int, left: int) -> None:
    class Signal(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
            if trainer.global_step == asked - 1:
                signal.raise_signal(signal.SIGTERM)

    whole = run(tmp_path / "whole")
    with pytest.raises(Interrupted) as caught:
        run(tmp_path / "cut", Interruption(), Signal())
    assert caught.value.step == left
    again = run(tmp_path / "cut", ckpt=tmp_path / "cut" / "checkpoints" / "last.ckpt")
    assert differing(whole, again) == []
    written = (tmp_path / "whole" / "metrics.csv").read_text()
    assert (tmp_path / "cut" / "metrics.csv").read_text() == written


def test_a_longer_training_goes_on_as_if_meant_to_be_longer(tmp_path: Path) -> None:
    """Where max_steps cuts an epoch short, with a constant rate."""

    def module() -> Any:
        return tiny_module(lr_scheduler=partial(Constant, warmup_steps=0))

    whole = run(tmp_path / "whole", module=module())
    run(tmp_path / "half", module=module(), max_steps=27)
    last = tmp_path / "half" / "checkpoints" / "last.ckpt"
    again = run(tmp_path / "half", module=module(), ckpt=last)
    whole.pop("lr_schedulers"), again.pop("lr_schedulers")
    assert differing(whole, again) == []


@pytest.mark.parametrize("change", [{"val_check_interval": 7}, {"accumulate_grad_batches": 3}])
def test_validations_within_an_optimizer_step_are_refused(tmp_path: Path, change: dict) -> None:
    with pytest.raises(ValueError, match=r"accumulate_grad_batches=\d must divide"):
        run(tmp_path, **({"accumulate_grad_batches": 2} | change))


def test_resuming_with_accumulation_by_steps(tmp_path: Path) -> None:
    changes = {"accumulate_grad_batches": 2, "max_steps": 25}
    whole = run(
        tmp_path / "whole", Checkpoints(tmp_path / "whole", keep_every_n_steps=2), **changes
    )
    for step in (2, 4, 8, 10, 20):
        path = tmp_path / "whole" / "checkpoints" / f"step_{step:06d}.ckpt"
        again = run(tmp_path / str(step), ckpt=path, **changes)
        assert differing(whole, again) == [], step


def test_the_smoke_budget_overrides_steps(tmp_path: Path) -> None:
    from diffusion_lab.config.arguments import compose
    from diffusion_lab.config.checking import check

    steps = ["trainer.max_steps=100000", "trainer.max_epochs=-1", "trainer.val_check_interval=1000",
             "trainer.check_val_every_n_epoch=null", "callbacks.samples.at=[1000,79000]",
             "callbacks.checkpoints.keep_every_n_steps=1000"]  # fmt: skip
    assert check(compose("train", ["experiment=quickstart", *steps])) == []
    for word, named in (
        ("trainer.val_check_interval=0", "val_check_interval=0"),
        ("callbacks.samples.at=[0]", r"at=\[0\]"),
        ("callbacks.checkpoints.keep_every_n_steps=0", "keep_every_n_steps=0"),
    ):
        (fault,) = check(compose("train", ["experiment=quickstart", word]))
        assert named.replace("\\", "") in fault
    cfg = compose("train", ["experiment=seed_003", "budget=smoke"])
    trainer = cfg.trainer
    assert (trainer.max_epochs, trainer.check_val_every_n_epoch) == (1, 1)
    assert (trainer.max_steps, trainer.val_check_interval) == (-1, 1.0)
