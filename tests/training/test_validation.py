"""Validation by noise level: what is measured, that it is fixed, and that it is right."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from tiny import CLASSES, SHAPE, TinyData, tiny_module, tiny_trainer
from torch import Tensor, nn

from diffusion_lab.checkpoints.format import read_checkpoint
from diffusion_lab.config.arguments import compose
from diffusion_lab.config.checking import check
from diffusion_lab.data.digits import Digits
from diffusion_lab.data.loader import TensorLoader
from diffusion_lab.data.toy import Moons
from diffusion_lab.diffusion.conditions import Condition
from diffusion_lab.diffusion.model import GaussianDiffusion
from diffusion_lab.diffusion.objectives import Batch
from diffusion_lab.diffusion.parameterizations import EDM, X0, Eps, Parameterization, V, Velocity
from diffusion_lab.diffusion.schedules import (
    ContinuousCosine,
    CosineBetas,
    LinearBetas,
    RectifiedFlow,
    Schedule,
    VarianceExploding,
)
from diffusion_lab.metrics import features
from diffusion_lab.metrics.quick import quick_scorer
from diffusion_lab.metrics.small_classifier import Recipe
from diffusion_lab.train import train
from diffusion_lab.training.validation import (
    LEVELS,
    NAMES,
    LossByLevel,
    errors,
    rows_of_processes,
    times,
)

SCHEDULES = [
    RectifiedFlow(), RectifiedFlow(20), ContinuousCosine(), LinearBetas(1000), LinearBetas(7),
    CosineBetas(50), VarianceExploding(), VarianceExploding(100),
]  # fmt: skip


def described(schedule: Schedule) -> str:
    return f"{type(schedule).__name__}{schedule.steps or ''}"


class Data(pl.LightningDataModule):
    """`TinyData` with a validation set of 57 images, in batches of a chosen size."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    train_dataloader = TinyData.train_dataloader

    def val_dataloader(self) -> TensorLoader:
        x = torch.randn(57, *SHAPE, generator=torch.Generator().manual_seed(6))
        return TensorLoader((x, torch.arange(57) % CLASSES), self.size, shuffle=False,
                            drop_last=False)  # fmt: skip


def by_level(metrics: Any) -> list[float]:
    return [float(metrics[name]) for name in NAMES]


def validated(tmp_path: Path, size: int, **changes: Any) -> dict[str, Tensor]:
    trainer = tiny_trainer(tmp_path, callbacks=[])
    trainer.validate(tiny_module(**changes), Data(size), verbose=False)
    return dict(trainer.callback_metrics)


def test_names_sort_by_level() -> None:
    assert list(NAMES) == sorted(NAMES) and len(set(NAMES)) == LEVELS
    assert NAMES[0] == "val/loss_by_level/00-10" and NAMES[-1] == "val/loss_by_level/90-100"


@pytest.mark.parametrize("schedule", SCHEDULES, ids=described)
def test_times_are_trained_ones_and_cover_all_levels(schedule: Schedule) -> None:
    t = times(schedule, torch.arange(512))
    assert torch.equal(t, schedule.snap(t))
    told = schedule.conditioning(schedule(t))
    ends = schedule.conditioning(schedule(torch.tensor([schedule.t_min, schedule.t_max]).double()))
    share = (told - ends[0]) / (ends[1] - ends[0])
    if schedule.steps is not None:
        assert len(t.unique()) >= min(schedule.steps, 100) * 0.7
        return
    level = torch.arange(512) % LEVELS
    assert torch.equal((share * LEVELS).floor().long(), level)
    for k in range(LEVELS):  # evenly spread inside a range: no gap above three even ones
        inside = share[level == k].sort().values.diff() * LEVELS
        assert inside.max() < 3 / (512 / LEVELS)


def test_the_same_whatever_the_batch_size(tmp_path: Path) -> None:
    one, many = (validated(tmp_path, size) for size in (57, 10))
    assert by_level(one) == pytest.approx(by_level(many), abs=1e-6)
    ragged = validated(tmp_path, 7)
    assert by_level(one) == pytest.approx(by_level(ragged), abs=1e-6)


@pytest.mark.parametrize("bad", [False, True])
def test_every_image_counts_once_and_none_is_left_out(tmp_path: Path, bad: bool) -> None:
    module = tiny_module(level_images=0)
    seen: list[Tensor] = []

    def scores(model: Any, batch: Batch, ctx: Any) -> dict[str, Tensor]:
        seen.append(batch.x0.flatten(1).mean(1))
        return {"loss": seen[-1] * (float("nan") if bad and len(seen) == 2 else 1.0)}

    module.objective.scores = scores  # type: ignore[method-assign]
    trainer = tiny_trainer(tmp_path, callbacks=[])
    trainer.validate(module, Data(10), verbose=False)
    found = float(trainer.callback_metrics["val/loss"])
    assert (
        found != found if bad else found == pytest.approx(float(torch.cat(seen).mean()), abs=1e-6)
    )


def test_the_same_in_every_epoch_and_seed(tmp_path: Path) -> None:
    module = tiny_module(seed=5, lr_scheduler=None)
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    module.diffusion.denoiser.table.weight.requires_grad_(True)
    module.make_optimizer = lambda parameters: torch.optim.SGD(module.parameters(), lr=0.0)
    trainer = tiny_trainer(tmp_path, callbacks=[])
    trainer.fit(module, Data(57))
    with (tmp_path / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["val/loss"]]
    assert len(rows) == 3
    assert len({tuple(row[name] for name in NAMES) for row in rows}) == 1
    assert by_level(rows[0]) == pytest.approx(by_level(validated(tmp_path, 57)), abs=1e-6)


def test_what_is_measured_does_not_touch_the_loss(tmp_path: Path) -> None:
    plain = validated(tmp_path, 10, level_images=0)
    assert set(plain) == {"val/loss"}
    full = validated(tmp_path, 10)
    assert torch.equal(full["val/loss"], plain["val/loss"])
    few = validated(tmp_path, 10, level_images=5)
    assert set(few) == {"val/loss", *NAMES[:5]}
    with pytest.raises(ValueError, match=r"^level_images=-1"):
        tiny_module(level_images=-1)


@pytest.mark.parametrize("world", [2, 3])
def test_processes_measure_the_images_of_one(world: int) -> None:
    diffusion = tiny_module().eval().diffusion
    x = torch.randn(57, *SHAPE, generator=torch.Generator().manual_seed(6))
    alone = errors(diffusion, x, Condition(), torch.arange(57))
    processes = [LossByLevel(50) for _ in range(world)]
    for batch in x.split(8 * world):
        rows = batch.tensor_split(world)
        counts = [len(part) for part in rows]
        for rank, collected in enumerate(processes):
            module = SimpleNamespace(
                trainer=SimpleNamespace(world_size=world),
                device=torch.device("cpu"),
                all_gather=lambda value, counts=counts: torch.tensor(counts),
            )
            assert rows_of_processes(module, len(rows[rank])) == tuple(counts)
            with torch.no_grad():
                collected.update(diffusion, Batch(rows[rank]), counts, rank)
    assert sum(collected.measured for collected in processes).tolist() == [1.0] * 50
    found = sum(collected.errors for collected in processes)
    torch.testing.assert_close(found, alone[:50].detach(), atol=1e-6, rtol=1e-5)


class Exact(nn.Module):
    """The best F for x0 ~ N(mean, std^2): with E[x0 | x_t] and E[eps | x_t] in F = a x0 + b eps."""

    def __init__(self, schedule: Schedule, parameterization: Parameterization) -> None:
        super().__init__()
        self.schedule, self.parameterization = schedule, parameterization
        self.mean, self.std = 0.3, 0.7

    def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
        level = self.schedule(self.now)
        a, b = (w[:, None] for w in self.parameterization.weights(level))
        alpha, sigma = level.alpha[:, None], level.sigma[:, None]
        variance = alpha**2 * self.std**2 + sigma**2
        away = x - alpha * self.mean
        x0 = self.mean + alpha * self.std**2 / variance * away
        return a * x0 + b * sigma / variance * away


@pytest.mark.parametrize(
    ("schedule", "parameterization"),
    [
        (RectifiedFlow(), Velocity()),
        (ContinuousCosine(), V()),
        (LinearBetas(1000), Eps()),
        (LinearBetas(300), X0()),
        (VarianceExploding(), EDM(0.7)),
    ],
    ids=lambda part: type(part).__name__,
)
def test_the_exact_denoiser_has_the_posterior_variance(
    schedule: Schedule, parameterization: Parameterization
) -> None:
    """E (F - F*)^2 = (D / sigma)^2 Var(x0 | x_t), the variance being std^2 sigma^2 / Var(x_t)."""
    net = Exact(schedule, parameterization)
    model = GaussianDiffusion(net, schedule, parameterization).double()
    images, pixels = 510, 4000
    generator = torch.Generator().manual_seed(1)
    x0 = 0.3 + 0.7 * torch.randn(images, pixels, generator=generator, dtype=torch.float64)
    index = torch.arange(images)
    net.now = times(schedule, index)
    level = schedule(net.now)
    found = errors(model, x0, Condition(), index).double()
    d = parameterization.determinant(level)
    wanted = d**2 * 0.7**2 / (level.alpha**2 * 0.7**2 + level.sigma**2)
    for k in range(LEVELS):  # the error of one pixel has standard deviation sqrt(2) of its mean
        of = index % LEVELS == k
        spread = (2 * wanted[of].square().sum() / pixels).sqrt()
        assert abs(found[of].sum() - wanted[of].sum()) < 4 * spread, k
        exact = (2 / (pixels * of.sum())) ** 0.5
        ratio = (found[of] / wanted[of]).mean()
        assert abs(ratio - 1) < 4 * exact, k


def test_metrics_file_and_report_show_the_levels(tmp_path: Path) -> None:
    from diffusion_lab.reporting.charts import charts
    from diffusion_lab.reporting.html import write_report
    from diffusion_lab.runs.records import read_run

    tiny_trainer(tmp_path, max_epochs=6).fit(tiny_module(), Data(57))
    metrics = read_run(tmp_path).metrics
    assert {name: len(metrics[name]) for name in NAMES} == dict.fromkeys(NAMES, 6)
    made = {chart.title: chart for chart in charts(metrics)}
    assert sorted(made) == [
        "gradient norm", "learning rate", "loss", "val/loss by noise level, %",
    ]  # fmt: skip
    chart = made["val/loss by noise level, %"]
    assert [line.name for line in chart.lines] == ["step 19", "step 59", "step 79", "step 119"]
    assert all(len(line.dots) == LEVELS for line in chart.lines)
    last = float(metrics[NAMES[3]][-1][1])
    dot = chart.lines[-1].dots[3]
    assert (dot.at, dot.value) == ("35", f"{last:.5g}")
    assert "val/loss by noise level, %" in write_report(tmp_path).read_text()


def test_the_scorer_of_points_finds_real_points_ideal() -> None:
    data = Moons(train_size=4000, test_size=4000, validation_size=100)
    score = quick_scorer(data, "nowhere")
    real = data.splits.train[:1000]
    assert score(real, None)["sw_ratio"] == pytest.approx(1, abs=0.5)
    assert score(real + 1.0, None)["sw_ratio"] > 5


def test_the_scorer_of_images_is_the_yardstick(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(features, "recipe_for", lambda n: Recipe(steps=40, batch_size=32))
    steps: list[int] = []
    data = Digits()
    beside = tmp_path / "data"
    score = quick_scorer(data, beside, progress=lambda step, total, loss: steps.append(step))
    assert steps == [*range(1, 41)] and not beside.exists()
    assert [*(tmp_path / "cache" / "diffusion_lab").glob("classifier-*.pt")]
    real = data.splits.train[:200].float() / 127.5 - 1
    figures = score(real, data.splits.labels[:200])
    noise = score(torch.randn(200, 1, 28, 28), data.splits.labels[:200])
    assert 3 * figures["fd_ratio"] < noise["fd_ratio"]
    assert noise["agreement"] < figures["agreement"]
    beside.mkdir()  # empty: what is in the cache is found
    quick_scorer(data, beside, progress=lambda *told: pytest.fail("trained again"))


def test_real_figures_reach_the_curves(tmp_path: Path, monkeypatch: Any) -> None:
    """By the configuration alone: one override, and best.ckpt by it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(features, "recipe_for", lambda n: Recipe(steps=10, batch_size=32))
    words = ["experiment=quickstart", "budget=smoke", "trainer=cpu", "logger=none"]
    words += ["denoiser.base_channels=8", "denoiser.heads=2", "data.batch_size=8"]
    words += ["trainer.limit_train_batches=2", "callbacks.samples.num_samples=2"]
    words += ["sampler.steps=2", f"paths.data_dir={tmp_path}", f"run_dir={tmp_path / 'run'}"]
    words += ["callbacks.sample_metrics.every_n_epochs=1"]
    words += ["callbacks.sample_metrics.num_samples=20"]
    words += ["callbacks.checkpoints.monitor=val/fd_ratio"]
    cfg = compose("train", words)
    assert check(cfg) == []
    metrics = train(cfg)
    assert metrics["val/fd_ratio"] > 1 and 0 <= metrics["val/agreement"] <= 1
    assert metrics["val/fd_cnn"] > 0 and all(metrics[name] > 0 for name in NAMES)
    best = read_checkpoint(tmp_path / "run" / "checkpoints" / "best.ckpt")
    (stored,) = [s for k, s in best["callbacks"].items() if "Checkpoints" in k]
    assert stored["monitor"] == "val/fd_ratio"
    assert stored["best"] == pytest.approx(metrics["val/fd_ratio"])
