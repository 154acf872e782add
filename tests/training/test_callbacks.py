"""Averaging, grids, records, guards, loggers."""

from __future__ import annotations

import csv
import json
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from PIL import Image
from tiny import TinyData, TinyNet, tiny_module, tiny_trainer

from diffusion_lab.training.callbacks import (
    Checkpoints,
    NonFiniteError,
    Progress,
    RunRecord,
    SampleGrid,
)
from diffusion_lab.training.checkpoint import CheckpointError, read_checkpoint, weights_of
from diffusion_lab.training.ema import EMA
from diffusion_lab.training.loggers import GuardedLogger, MetricsFile, TensorBoardRun, WandbRun


def flat(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


class ReferenceEMA(pl.Callback):
    """The definition, parameter vector by parameter vector."""

    def __init__(self, decay: float, warmup: float, start: int = 0) -> None:
        self.decay, self.warmup, self.start = decay, warmup, start
        self.average: torch.Tensor | None = None
        self.raw: torch.Tensor | None = None
        self.n = 0

    def on_train_batch_end(self, trainer: Any, module: Any, *args: Any) -> None:
        self.raw = flat(module)
        if trainer.global_step <= self.start:
            return
        if self.average is None:
            self.average = self.raw.clone()
        else:
            self.n += 1
            d = min(self.decay, (1 + self.n) / (self.warmup + self.n))
            self.average = d * self.average + (1 - d) * self.raw


class Probe(pl.Callback):
    """Which weights each validation hook sees."""

    def __init__(self, reference: ReferenceEMA) -> None:
        self.reference = reference
        self.seen: dict[str, bool] = {}

    def look(self, name: str, module: Any) -> None:
        self.seen[name] = torch.allclose(flat(module), self.reference.average, atol=1e-6)

    def on_validation_start(self, trainer: Any, module: Any) -> None:
        self.look("start", module)

    def on_validation_epoch_start(self, trainer: Any, module: Any) -> None:
        self.look("epoch_start", module)

    def on_validation_batch_end(self, trainer: Any, module: Any, *args: Any) -> None:
        self.look("batch_end", module)

    def on_validation_epoch_end(self, trainer: Any, module: Any) -> None:
        self.look("epoch_end", module)

    def on_validation_end(self, trainer: Any, module: Any) -> None:
        self.look("end", module)


@pytest.mark.parametrize("first", [True, False])
def test_every_validation_hook_sees_the_average(tmp_path: Path, first: bool) -> None:
    reference, ema = ReferenceEMA(0.9, 10.0), EMA(0.9, 10.0)
    probe = Probe(reference)
    callbacks = [reference, probe, ema] if first else [ema, reference, probe]
    module = tiny_module()
    tiny_trainer(tmp_path, callbacks=callbacks).fit(module, datamodule=TinyData())
    assert probe.seen == dict.fromkeys(
        ("start", "epoch_start", "batch_end", "epoch_end", "end"), True
    )
    torch.testing.assert_close(flat(module), reference.average, atol=1e-6, rtol=1e-5)
    for name in ("last", "best"):
        stored = read_checkpoint(tmp_path / "checkpoints" / f"{name}.ckpt")
        assert stored["diffusion_lab"]["weights"] == {
            "state_dict": "ema",
            "current_model_state": "raw",
        }
    stored = read_checkpoint(tmp_path)
    module.load_state_dict(weights_of(stored, "ema"))
    torch.testing.assert_close(flat(module), reference.average, atol=1e-6, rtol=1e-5)
    module.load_state_dict(weights_of(stored, "raw"))
    assert torch.equal(flat(module), reference.raw)
    assert int(stored["current_model_state"]["diffusion.denoiser.calls"]) == 60


@pytest.mark.parametrize("start", [30, 1000])
def test_late_start_is_safe(tmp_path: Path, start: int) -> None:
    reference = ReferenceEMA(0.9, 10.0, start)
    module = tiny_module()
    trainer = tiny_trainer(tmp_path, callbacks=[EMA(0.9, 10.0, start), reference])
    trainer.fit(module, datamodule=TinyData())
    wanted = reference.raw if reference.average is None else reference.average
    torch.testing.assert_close(flat(module), wanted, atol=1e-6, rtol=1e-5)
    named = read_checkpoint(tmp_path)["diffusion_lab"]["weights"]["state_dict"]
    assert named == ("ema" if start < 60 else "raw")


@pytest.mark.parametrize("bad", [{"decay": 1.0}, {"warmup": 0.5}, {"start_step": -1}])
def test_ema_refuses(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"callbacks.ema.{next(iter(bad))}="):
        EMA(**bad)


def test_a_run_stopped_after_its_last_step_is_finished_by_resuming(tmp_path: Path) -> None:
    record = tmp_path / "summary.json"
    for ckpt in (None, tmp_path / "checkpoints" / "last.ckpt"):
        trainer = tiny_trainer(tmp_path, RunRecord(tmp_path, report=False), max_epochs=1)
        trainer.fit(tiny_module(), datamodule=TinyData(), ckpt_path=ckpt)
        summary = json.loads(record.read_text())
        assert (summary["status"], summary["step"]) == ("finished", 20)
        record.write_text(json.dumps(summary | {"status": "interrupted", "error": "SIGTERM"}))
    assert "error" not in summary


def test_grids_record_and_metrics(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    callbacks = [EMA(0.9), SampleGrid(tmp_path, 6), RunRecord(tmp_path, "tiny", report=False)]
    trainer = tiny_trainer(tmp_path, callbacks=[*callbacks, Progress(log_interval=0.0)])
    trainer.fit(tiny_module(), datamodule=TinyData())
    grids = sorted((tmp_path / "samples").iterdir())
    assert [path.name for path in grids] == [f"epoch_{k:03d}.png" for k in (1, 2, 3)]
    assert Image.open(grids[0]).width < Image.open(grids[0]).height * 2
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["status"] == "finished" and summary["step"] == 60 and summary["epoch"] == 3
    assert summary["data"] == TinyData.source and summary["images_per_second"] > 0
    assert summary["metrics"]["val/loss"] > 0 and summary["versions"]["torch"]
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:2] == ["step", "epoch"]
    assert [int(row["step"]) for row in rows] == list(range(4, 60, 5))
    assert [row["step"] for row in rows if row["val/loss"]] == ["19", "39", "59"]
    assert all(row["train/loss"] for row in rows)
    shown = capsys.readouterr().out
    assert "epoch 3/3  step 60/60" in shown and "images/s" in shown and "0:00 left" in shown


def test_final_grid_where_validation_was_not(tmp_path: Path) -> None:
    callbacks = [EMA(0.9), SampleGrid(tmp_path, 4)]
    trainer = tiny_trainer(tmp_path, callbacks=callbacks, max_epochs=-1, max_steps=7)
    trainer.fit(tiny_module(), datamodule=TinyData())
    assert [path.name for path in (tmp_path / "samples").iterdir()] == ["epoch_001.png"]
    assert read_checkpoint(tmp_path)["global_step"] == 7


class Diverging(TinyNet):
    def forward(self, x: Any, c_noise: Any, label: Any = None) -> Any:
        out = super().forward(x, c_noise, label)
        return out * float("nan") if self.training and self.calls == 26 else out


def test_divergence_stops_at_once(tmp_path: Path) -> None:
    module = tiny_module(denoiser=Diverging())
    record = RunRecord(tmp_path, report=False)
    trainer = tiny_trainer(tmp_path, record)
    with pytest.raises(NonFiniteError, match=r"step 25: loss nan.*learning rate .*precision"):
        trainer.fit(module, datamodule=TinyData())
    assert torch.isfinite(flat(module)).all()
    stored = read_checkpoint(tmp_path)
    assert stored["global_step"] == 20
    assert all(torch.isfinite(v).all() for v in stored["current_model_state"].values())
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["status"] == "failed" and "step 25" in summary["error"]


class Failing(GuardedLogger):
    def start(self) -> Any:
        raise RuntimeError("no key")

    def show(self, *args: Any) -> None:
        raise AssertionError


def test_a_dead_logger_is_a_warning(tmp_path: Path) -> None:
    loggers = [MetricsFile(tmp_path), Failing()]
    trainer = tiny_trainer(tmp_path, SampleGrid(tmp_path, 3), logger=loggers, max_epochs=1)
    with pytest.warns(UserWarning, match="Failing failed and is switched off") as caught:
        trainer.fit(tiny_module(), datamodule=TinyData())
    assert sum("switched off" in str(w.message) for w in caught) == 1
    assert (tmp_path / "metrics.csv").exists()


def test_tensorboard_gets_curves_and_grids(tmp_path: Path) -> None:
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    ).EventAccumulator
    loggers = [MetricsFile(tmp_path), TensorBoardRun(tmp_path)]
    trainer = tiny_trainer(tmp_path, SampleGrid(tmp_path, 3), logger=loggers, max_epochs=2)
    trainer.fit(tiny_module(), datamodule=TinyData())
    events = accumulator(str(tmp_path / "tensorboard")).Reload()
    assert [e.step for e in events.Images("samples")] == [19, 39]
    assert [e.step for e in events.Scalars("val/loss")] == [19, 39]


def test_unwritable_folder_is_refused_before_training(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file is in the way")
    trainer = tiny_trainer(tmp_path, Checkpoints(tmp_path / "run"))
    with pytest.raises(CheckpointError, match="choose another run_dir"):
        trainer.fit(tiny_module(), datamodule=TinyData())
    assert trainer.global_step == 0


def test_monitor_must_be_logged(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, Checkpoints(tmp_path, monitor="val/los"), max_epochs=1)
    with pytest.raises(ValueError, match=r"monitor='val/los' is not logged; there are .*val/loss"):
        trainer.fit(tiny_module(), datamodule=TinyData())


def test_wandb_offline_in_the_run_folder(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    logger = WandbRun(tmp_path, tags=["a"])
    trainer = tiny_trainer(
        tmp_path, SampleGrid(tmp_path, 3), logger=[MetricsFile(tmp_path), logger], max_epochs=2
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*switched off.*")
        module = tiny_module()
        module.describe_run({"optimizer": {"lr": 0.01}}, {})
        trainer.fit(module, datamodule=TinyData())
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    assert len(list((run / "files" / "media" / "images").glob("samples_*.png"))) == 2
    import wandb

    assert wandb.run is None
