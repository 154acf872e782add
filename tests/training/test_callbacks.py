"""Averaging, grids, records, guards, loggers."""

from __future__ import annotations

import csv
import json
import math
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from PIL import Image
from test_resume import SaveEveryStep, same
from tiny import Dashboard, TinyData, TinyNet, tiny_fit, tiny_module, tiny_trainer

from diffusion_lab.checkpoints.format import read_checkpoint, weights_of
from diffusion_lab.config.arguments import compose
from diffusion_lab.config.building import instantiate
from diffusion_lab.config.checking import check
from diffusion_lab.errors import CheckpointError, ConfigError
from diffusion_lab.figures.samples import samples_image
from diffusion_lab.training.callbacks import (
    Checkpoints,
    NonFiniteError,
    Progress,
    RunRecord,
    SampleGrid,
    SampleMetrics,
    Speed,
)
from diffusion_lab.training.ema import EMA
from diffusion_lab.training.loggers import MetricsFile, TensorBoardRun, WandbRun


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


class ReferenceHalfLife(pl.Callback):
    """The definition for batches of 4 images, and no warm-up."""

    def __init__(self, half_life: float) -> None:
        self.half_life, self.images, self.step = half_life, 0, 0
        self.average: torch.Tensor | None = None

    def on_train_batch_end(self, trainer: Any, module: Any, *args: Any) -> None:
        self.images += 4
        if trainer.global_step == self.step:
            return
        kept = 0.0 if self.average is None else 0.5 ** (self.images / self.half_life)
        old = flat(module) if self.average is None else self.average
        self.average = kept * old + (1 - kept) * flat(module)
        self.images, self.step = 0, trainer.global_step


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
    tiny_fit(tmp_path, callbacks=callbacks, module=module)
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
    tiny_fit(tmp_path, callbacks=[EMA(0.9, 10.0, start), reference], module=module)
    wanted = reference.raw if reference.average is None else reference.average
    torch.testing.assert_close(flat(module), wanted, atol=1e-6, rtol=1e-5)
    named = read_checkpoint(tmp_path)["diffusion_lab"]["weights"]["state_dict"]
    assert named == ("ema" if start < 60 else "raw")


@pytest.mark.parametrize("summed", [1, 3])
def test_a_half_life_counts_images(tmp_path: Path, summed: int) -> None:
    """An epoch's last step sums up two batches of three; from the middle it goes on bit for bit."""
    reference, module = ReferenceHalfLife(40.0), tiny_module()

    def fit(name: str, *others: pl.Callback, ckpt: Path | None = None) -> dict[str, Any]:
        callbacks = [EMA(None, 1.0, half_life_images=40), *others]
        changes = {"max_epochs": 2, "accumulate_grad_batches": summed}
        trainer = tiny_trainer(tmp_path / name, callbacks=callbacks, **changes)
        trainer.fit(module, TinyData(), ckpt_path=ckpt)
        return read_checkpoint(tmp_path / name)

    whole = fit("whole", reference, SaveEveryStep(tmp_path / "saved"))
    torch.testing.assert_close(flat(module), reference.average, atol=1e-6, rtol=1e-5)
    module = tiny_module()
    again = fit("again", ckpt=tmp_path / "saved" / "005.ckpt")
    assert same(whole["state_dict"], again["state_dict"]) == []
    assert whole["averaging_state"] == again["averaging_state"]


def test_a_half_life_is_what_it_says() -> None:
    """Batches of any size leave half of the start after so many images; the decay warms up."""
    ema = EMA(None, 1.0, half_life_images=1000)
    for sizes in ([100] * 10, [1] * 1000, [250, 750], [7] * 142 + [6]):
        kept = [ema.decay_at(n, images) for n, images in enumerate(sizes, 1)]
        assert math.prod(kept) == pytest.approx(0.5, rel=1e-12)
    warm = EMA(None, 10.0, half_life_images=1e6)
    assert warm.decay_at(1, 100) == 2 / 11 and warm.decay_at(10**9, 100) == 0.5**1e-4
    ratio = math.log(2) / -math.log(warm.decay_at(1000, 1)) / 1000  # half-life of images seen
    assert ratio == pytest.approx(math.log(2) / 9, rel=2e-2)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["half_life_images=500"], "half_life_images=500 and callbacks.ema.decay=0.999 both"),
        (["decay=null"], "decay=null needs callbacks.ema.half_life_images"),
        (["decay=null", "half_life_images=0"], "half_life_images=0 must be"),
        (["decay=null", "half_life_images=500"], None),
    ],
)
def test_decay_or_half_life(words: list[str], told: str | None) -> None:
    faults = check(compose("train", [f"callbacks.ema.{word}" for word in words]), build=False)
    assert len(faults) == (told is not None) and (told or "") in "".join(faults)


@pytest.mark.parametrize(
    "bad",
    [{"decay": 1.0}, {"warmup": 0.5}, {"start_step": -1}, {"decay": None}, {"half_life_images": 1}],
)
def test_ema_refuses(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"^(decay=0.999 and )?{next(iter(bad))}="):
        EMA(**bad)


def test_a_run_stopped_after_its_last_step_is_finished_by_resuming(tmp_path: Path) -> None:
    record = tmp_path / "summary.json"
    for ckpt in (None, tmp_path / "checkpoints" / "last.ckpt"):
        tiny_fit(tmp_path, RunRecord(tmp_path, report=False), max_epochs=1, ckpt=ckpt)
        summary = json.loads(record.read_text())
        assert (summary["status"], summary["step"]) == ("finished", 20)
        record.write_text(json.dumps(summary | {"status": "interrupted", "error": "SIGTERM"}))
    assert "error" not in summary


def test_grids_record_and_metrics(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    callbacks = [EMA(0.9), SampleGrid(tmp_path, 6), RunRecord(tmp_path, "tiny", report=False)]
    callbacks += [Speed(), Progress(log_interval=0.0)]
    tiny_fit(tmp_path, callbacks=callbacks)
    grids = sorted((tmp_path / "samples").iterdir())
    assert [path.name for path in grids] == [f"epoch_{k:03d}.png" for k in (1, 2, 3)]
    assert Image.open(grids[0]).size == (6 * 10 + 2, 12)  # two columns of each class
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
    tiny_fit(tmp_path, callbacks=callbacks, max_epochs=-1, max_steps=7)
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


class Failing(Dashboard):
    def open(self, config: dict[str, Any]) -> Any:
        raise RuntimeError("no key")


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
    tiny_fit(tmp_path, SampleGrid(tmp_path, 3), logger=loggers, max_epochs=2)
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


class Scorer:
    """Figures that a test chooses, one set a call; remembers what was scored."""

    def __init__(self, *figures: dict[str, Any]) -> None:
        self.figures = list(figures)
        self.seen: list[tuple[torch.Tensor, Any]] = []

    def __call__(self, data: Any, progress: Any) -> Any:
        assert isinstance(data, TinyData) and torch.is_grad_enabled()
        return self.score

    def score(self, samples: torch.Tensor, labels: Any) -> dict[str, Any]:
        self.seen.append((samples, labels))
        return self.figures[len(self.seen) - 1]


def scores(ratio: float, agreement: float | None = 0.5) -> dict[str, Any]:
    return {"fd": 10 * ratio, "fd_ratio": ratio, "agreement": agreement, "num_samples": 6}


def logged(folder: Path, name: str) -> dict[int, float]:
    """Step -> value of a column of metrics.csv."""
    with (folder / "metrics.csv").open() as file:
        return {int(r["step"]): float(r[name]) for r in csv.DictReader(file) if r.get(name)}


def test_samples_are_scored_every_k_epochs_only(tmp_path: Path) -> None:
    scorer = Scorer(scores(3.0), scores(2.0))
    ema = EMA(0.9)
    module = tiny_module()
    callbacks = [ema, SampleMetrics(scorer, every_n_epochs=2, num_samples=6, batch_size=4)]
    tiny_fit(tmp_path, callbacks=callbacks, max_epochs=5, module=module)
    assert logged(tmp_path, "val/fd_ratio") == {39: 3.0, 79: 2.0}
    assert logged(tmp_path, "val/fd_cnn") == {39: 30.0, 79: 20.0}
    assert logged(tmp_path, "val/agreement") == {39: 0.5, 79: 0.5}
    assert len(logged(tmp_path, "val/loss")) == 5 and not logged(tmp_path, "val/sw_ratio")
    assert scorer.seen[0][1].tolist() == [0, 1, 2, 0, 1, 2]
    assert scorer.seen[0][0].shape == (6, 1, 4, 4)


def test_scored_samples_are_those_of_the_averaged_weights(tmp_path: Path) -> None:
    scorer, module = Scorer(scores(1.0)), tiny_module()
    callbacks = [SampleMetrics(scorer, every_n_epochs=3, num_samples=6), EMA(0.9)]
    tiny_fit(tmp_path, callbacks=callbacks, module=module)
    torch.testing.assert_close(scorer.seen[0][0], module.sample(6, "all", seed=0))
    module.load_state_dict(weights_of(read_checkpoint(tmp_path), "raw"))
    assert not torch.allclose(scorer.seen[0][0], module.sample(6, "all", seed=0))


def test_scoring_changes_no_training_and_is_off_by_default(tmp_path: Path) -> None:
    ends = []
    for name, every in (("off", None), ("on", 1)):
        module = tiny_module()
        metrics = SampleMetrics(Scorer(*[scores(1.0)] * 3), every, num_samples=4)
        tiny_fit(tmp_path / name, metrics, module=module)
        ends.append(flat(module))
    assert torch.equal(*ends)
    assert (
        not logged(tmp_path / "off", "val/fd_ratio") and SampleMetrics(Scorer()).promised == set()
    )


@pytest.mark.parametrize(
    ("monitor", "mode", "wanted"),
    [("val/fd_ratio", "min", 80), ("val/agreement", "max", 40), ("val/fd_cnn", "min", 80)],
)
def test_best_by_samples(tmp_path: Path, monitor: str, mode: Any, wanted: int) -> None:
    scorer = Scorer(scores(3.0, 0.9), scores(2.0, 0.7), scores(2.5, 0.8))
    callbacks = [
        Checkpoints(tmp_path, monitor=monitor, mode=mode),
        SampleMetrics(scorer, every_n_epochs=2, num_samples=4),
    ]
    tiny_fit(tmp_path, *callbacks, max_epochs=7)
    assert read_checkpoint(tmp_path / "checkpoints" / "best.ckpt")["global_step"] == wanted


def test_best_by_samples_is_gone_on_with(tmp_path: Path) -> None:
    """The best value is resumed; that of another metric is not taken for it."""
    last = tmp_path / "checkpoints" / "last.ckpt"
    best = tmp_path / "checkpoints" / "best.ckpt"

    def run(epochs: int, ratio: float, monitor: str = "val/fd_ratio") -> int:
        metrics = SampleMetrics(Scorer(scores(ratio)), every_n_epochs=2, num_samples=4)
        checkpoints = Checkpoints(tmp_path, monitor=monitor)
        trainer = tiny_trainer(tmp_path, checkpoints, metrics, max_epochs=epochs)
        ckpt = last if last.exists() else None
        trainer.fit(tiny_module(lr_scheduler=None), datamodule=TinyData(), ckpt_path=ckpt)
        return int(read_checkpoint(best)["global_step"])

    assert run(2, 2.0) == 40
    assert run(4, 3.0) == 40
    assert run(6, 1.5) == 120
    with pytest.warns(UserWarning, match=r"monitor=val/fd_cnn .* was val/fd_ratio"):
        assert run(8, 9.0, "val/fd_cnn") == 160


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"monitor": "val/agreement"}, r"mode=min: val/agreement is the better the larger"),
        ({"monitor": "val/fd_ratio", "mode": "max"}, r"mode=max: val/fd_ratio .* the smaller"),
        ({"mode": "least"}, r"mode=least must be one of min, max"),
    ],
)
def test_a_mode_that_does_not_suit_is_refused(
    tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Checkpoints(tmp_path, **arguments)


def test_a_monitor_of_samples_needs_samples(tmp_path: Path) -> None:
    off = SampleMetrics(Scorer())
    for callbacks in ([], [off]):
        trainer = tiny_trainer(tmp_path, Checkpoints(tmp_path, monitor="val/fd_ratio"), *callbacks)
        with pytest.raises(ConfigError, match=r"set callbacks\.sample_metrics\.every_n_epochs"):
            trainer.fit(tiny_module(), datamodule=TinyData())
        assert trainer.global_step == 0
    scored = SampleMetrics(Scorer(scores(2.0, None)), 1, num_samples=4)
    checkpoints = Checkpoints(tmp_path, monitor="val/agreement", mode="max")
    trainer = tiny_trainer(tmp_path, checkpoints, scored)
    with pytest.raises(ConfigError, match=r"agreement' is not logged; there are .*val/fd_ratio"):
        trainer.fit(tiny_module(), datamodule=TinyData())
    assert trainer.global_step == 20


@pytest.mark.parametrize(
    ("arguments", "changes", "message"),
    [
        ({}, {"max_epochs": 5, "check_val_every_n_epoch": 3}, "first be scored after epoch 6 of 5"),
        ({}, {"limit_val_batches": 0}, "this run has none"),
        ({"every_n_epochs": 0}, {}, "every_n_epochs=0 must be an integer of at least 1"),
        ({"num_samples": 1}, {}, "num_samples=1 must be an integer of at least 2"),
    ],
)
def test_scores_that_never_come_are_refused(
    tmp_path: Path, arguments: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        metrics = SampleMetrics(Scorer(), **({"every_n_epochs": 2} | arguments))
        tiny_fit(tmp_path, metrics, **changes)


def test_a_module_without_sampler_cannot_be_scored(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, SampleMetrics(Scorer(), 1))
    with pytest.raises(ConfigError, match=r"callbacks\.sample_metrics: the module has no sampler"):
        trainer.fit(tiny_module(sampler=None), datamodule=TinyData())


def test_samples_that_are_not_finite_are_not_scored(tmp_path: Path, monkeypatch: Any) -> None:
    module = tiny_module()
    drawn = torch.full((4, 1, 4, 4), torch.nan)
    monkeypatch.setattr(module, "sample", lambda *args, **options: drawn)
    checkpoints = Checkpoints(tmp_path, monitor="val/fd_ratio")
    trainer = tiny_trainer(tmp_path, SampleMetrics(Scorer(), 1, num_samples=4), checkpoints)
    with pytest.warns(UserWarning, match="not scored: .* not finite"):
        trainer.fit(module, datamodule=TinyData())
    assert trainer.global_step == 60 and not logged(tmp_path, "val/fd_ratio")
    assert not (tmp_path / "checkpoints" / "best.ckpt").exists()


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


def test_raw_weights_are_shown_beside_the_average(tmp_path: Path) -> None:
    ends = []
    for name, raw in (("off", 0), ("on", 4)):
        sink, module, ema = Dashboard(), tiny_module(), EMA(0.9)
        keep = Keep()
        callbacks = [ema, SampleGrid(tmp_path / name, 6, columns=6, raw=raw), keep]
        loggers = [MetricsFile(tmp_path / name), sink]
        tiny_fit(tmp_path / name, callbacks=callbacks, logger=loggers, max_epochs=2, module=module)
        ends.append(flat(module))
    assert torch.equal(*ends)
    for k in (1, 2):
        files = [tmp_path / name / "samples" / f"epoch_{k:03d}.png" for name in ("off", "on")]
        assert files[0].read_bytes() == files[1].read_bytes()
    assert not (tmp_path / "off" / "samples" / "raw").exists()
    drawn = Image.open(tmp_path / "on" / "samples" / "raw" / "epoch_002.png")
    assert keep.raw is not None
    module.load_state_dict(keep.raw)
    wanted = samples_image(module.sample(4, "all", seed=0), columns=6, scale=2)
    assert (np.asarray(drawn) == np.asarray(wanted)).all()
    shown = dict.fromkeys(("samples", "samples_raw", "samples/averaged_and_raw"), 2)
    assert Counter(entry[2] for entry in sink.seen if entry[0] == "picture") == shown
    (pair,) = sink.of("picture", "samples/averaged_and_raw")[-1]
    assert pair.width > 2 * drawn.width and pair.height == drawn.height + 14 + 2 * 12


def test_nothing_is_drawn_twice_where_nothing_is_averaged(tmp_path: Path) -> None:
    callbacks = [SampleGrid(tmp_path, 4, raw=4)]
    tiny_fit(tmp_path, callbacks=callbacks, max_epochs=1)
    assert [path.name for path in (tmp_path / "samples").iterdir()] == ["epoch_001.png"]
    with pytest.raises(ValueError, match=r"^raw=-1"):
        SampleGrid(tmp_path, raw=-1)


class Keep(pl.Callback):
    """The weights as they were before the last validation swapped them."""

    raw: dict[str, torch.Tensor] | None = None

    def on_train_batch_end(self, trainer: Any, module: Any, *args: Any) -> None:
        self.raw = {name: value.clone() for name, value in module.state_dict().items()}


class Norms(pl.Callback):
    """The norm of each step's gradient before clipping."""

    def __init__(self) -> None:
        self.norms: list[float] = []

    def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
        grads = [p.grad.flatten() for p in module.parameters() if p.grad is not None]
        self.norms.append(float(torch.cat(grads).double().norm()))


@pytest.mark.parametrize("clip", [0.5, None])
def test_the_gradient_norm_is_logged_as_it_was_before_clipping(
    tmp_path: Path, clip: float | None
) -> None:
    norms = Norms()
    tiny_fit(tmp_path, norms, gradient_clip_val=clip, max_epochs=1)
    found = logged(tmp_path, "train/grad_norm")
    assert list(found) == [4, 9, 14, 19]
    for step, norm in found.items():
        assert norm == pytest.approx(norms.norms[step], rel=1e-5)
    assert max(found.values()) > 0.5


def test_the_speed_is_that_since_the_last_validation(tmp_path: Path) -> None:
    counts = []

    class Counting(Speed):
        def on_validation_epoch_end(self, *args: Any) -> None:
            counts.append(self.images - sum(counts))
            super().on_validation_epoch_end(*args)

    tiny_fit(tmp_path, Counting(), max_epochs=3, check_val_every_n_epoch=2)
    found = logged(tmp_path, "train/images_per_second")
    assert list(found) == [39, 59] and min(found.values()) > 0
    assert counts == [39 * 4, 20 * 4]  # but for the first step; then of the last epoch alone


def test_the_clock_is_paused_while_a_checkpoint_is_saved() -> None:
    speed = Speed()
    speed.on_train_batch_start()
    assert speed.seconds < speed.seconds
    speed.on_save_checkpoint()
    assert speed.seconds == speed.seconds > 0 and speed.rate is None


def test_a_second_callback_of_a_kind_runs_or_is_told_of_before(tmp_path):
    run_dir = f"run_dir={tmp_path}"
    for name in compose("train", []).callbacks:
        twice = compose("train", [run_dir, f"+callbacks.again=${{callbacks.{name}}}"])
        faults = check(twice, build=False)
        assert all(fault.startswith("callbacks.again is a second ") for fault in faults), faults
        try:
            make = instantiate(twice.callbacks[name]), instantiate(twice.callbacks.again)
            pl.Trainer(callbacks=list(make), logger=False, default_root_dir=tmp_path)
        except (RuntimeError, MisconfigurationException) as error:
            assert faults, (name, error)
        else:
            assert not faults or "EMA" in faults[0], name
