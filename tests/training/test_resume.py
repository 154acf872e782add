"""A resumed run is the uninterrupted run, bit for bit, from any step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from tiny import TinyData, tiny_fit, tiny_module, tiny_trainer

from diffusion_lab.checkpoints.format import read_checkpoint
from diffusion_lab.errors import CheckpointError


class Reached(Exception):
    pass


class SaveEveryStep(pl.Callback):
    def __init__(self, folder: Path, until: int | None = None) -> None:
        self.folder, self.until = folder, until

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        if (args[-1] + 1) % trainer.accumulate_grad_batches == 0:
            trainer.save_checkpoint(self.folder / f"{trainer.global_step:03d}.ckpt")
        if trainer.global_step == self.until:
            raise Reached


def same(a: Any, b: Any, path: str = "") -> list[str]:
    """Paths of the leaves in which two nested containers differ."""
    if isinstance(a, torch.Tensor):
        return [] if torch.equal(a, b) else [path]
    if isinstance(a, dict):
        assert a.keys() == b.keys(), path
        return [d for key in a for d in same(a[key], b[key], f"{path}.{key}")]
    if isinstance(a, list | tuple):
        return [
            d for i, (x, y) in enumerate(zip(a, b, strict=True)) for d in same(x, y, f"{path}.{i}")
        ]
    return [] if a == b else [path]


STATE = ("state_dict", "current_model_state", "optimizer_states", "lr_schedulers", "global_step")


def run(folder: Path, *callbacks: pl.Callback, ckpt: Path | None = None, **changes: Any) -> dict:
    tiny_fit(folder, *callbacks, **changes, ckpt=ckpt)
    checkpoint = read_checkpoint(folder)
    return {key: checkpoint[key] for key in STATE}


def test_from_some_steps_to_the_end(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", SaveEveryStep(tmp_path / "saved"))
    rows = (tmp_path / "whole" / "metrics.csv").read_text()
    for step in (1, 20, 33, 59):
        folder = tmp_path / str(step)
        folder.mkdir()
        head = [line for line in rows.splitlines()[1:] if int(line.split(",")[0]) < step]
        (folder / "metrics.csv").write_text("\n".join([rows.splitlines()[0], *head]) + "\n")
        again = run(folder, ckpt=tmp_path / "saved" / f"{step:03d}.ckpt")
        assert same(whole, again) == [], step
        if step % 20:  # a state saved before its epoch's validation does not repeat it
            assert (folder / "metrics.csv").read_text() == rows, step


def test_from_every_step_to_the_next(tmp_path: Path) -> None:
    """Resuming at k gives the state of k + 1: by induction, of the end."""
    run(tmp_path, SaveEveryStep(tmp_path / "saved"))
    saved = sorted((tmp_path / "saved").glob("*.ckpt"))
    assert [int(path.stem) for path in saved] == list(range(1, 61))
    for step in range(1, 60):
        with pytest.raises(Reached):
            saver = SaveEveryStep(tmp_path / "again", until=step + 1)
            run(tmp_path, saver, ckpt=tmp_path / "saved" / f"{step:03d}.ckpt")
        name = f"{step + 1:03d}.ckpt"
        whole, again = (read_checkpoint(tmp_path / f / name) for f in ("saved", "again"))
        for key in STATE:
            assert same(whole[key], again[key]) == [], (step, key)


@pytest.mark.parametrize("name", ["last", "best"])
@pytest.mark.parametrize("epochs", [1, 2])
def test_from_the_end_of_an_epoch(tmp_path: Path, name: str, epochs: int) -> None:
    class Stop(pl.Callback):
        def on_train_epoch_start(self, trainer: pl.Trainer, *args: Any) -> None:
            if trainer.current_epoch == epochs:
                raise RuntimeError("stopped")

    whole = run(tmp_path / "whole")
    with pytest.raises(RuntimeError, match="stopped"):
        run(tmp_path / "cut", Stop())
    again = run(tmp_path / "cut", ckpt=tmp_path / "cut" / "checkpoints" / f"{name}.ckpt")
    assert same(whole, again) == []
    one = (tmp_path / "whole" / "metrics.csv").read_text()
    assert (tmp_path / "cut" / "metrics.csv").read_text() == one


@pytest.mark.parametrize("step", [3, 9, 10, 14])
def test_with_accumulation(tmp_path: Path, step: int) -> None:
    changes = {"accumulate_grad_batches": 2}
    whole = run(tmp_path / "whole", SaveEveryStep(tmp_path / "saved"), **changes)
    again = run(tmp_path / "cut", ckpt=tmp_path / "saved" / f"{step:03d}.ckpt", **changes)
    assert same(whole, again) == []


def test_longer_run_takes_the_new_schedule(tmp_path: Path) -> None:
    run(tmp_path, max_epochs=1)
    trainer = tiny_trainer(tmp_path, max_epochs=2)
    module = tiny_module()
    trainer.fit(module, datamodule=TinyData(), ckpt_path=tmp_path / "checkpoints" / "last.ckpt")
    assert trainer.global_step == 40
    assert trainer.lr_scheduler_configs[0].scheduler.total_steps == 40


def test_an_averaged_run_needs_its_averaging(tmp_path: Path) -> None:
    run(tmp_path, max_epochs=1)
    trainer = tiny_trainer(tmp_path, callbacks=[], max_epochs=2)
    with pytest.raises(CheckpointError, match=r"callbacks\.ema"):
        trainer.fit(
            tiny_module(), datamodule=TinyData(), ckpt_path=tmp_path / "checkpoints" / "last.ckpt"
        )
