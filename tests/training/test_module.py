"""The module: sampling by image number, labels, refusals; keyed randomness; learning rates."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import CLASSES, SHAPE, TinyData, TinyNet, tiny_module, tiny_trainer

from diffusion_lab.diffusion.conditions import Condition
from diffusion_lab.diffusion.objectives import Regression
from diffusion_lab.diffusion.schedules import LinearBetas
from diffusion_lab.diffusion.times import ImportanceTime
from diffusion_lab.diffusion.weights import ConstantWeight, SquaredError
from diffusion_lab.generate.labels import expand_labels
from diffusion_lab.sampling.guidance.classifier_free import ClassifierFree
from diffusion_lab.training.reproducibility import KeyedNoise, seed_dropout, set_global_flags
from diffusion_lab.training.schedulers import Constant, Cosine, Linear, WarmupSchedule


def test_image_k_depends_on_seed_and_k_alone() -> None:
    module = tiny_module().train()
    whole = module.sample(11, "all", seed=4)
    assert whole.shape == (11, *SHAPE) and whole.dtype == torch.float32
    torch.testing.assert_close(whole, module.sample(11, "all", seed=4, batch_size=3))
    torch.testing.assert_close(whole[:5], module.sample(5, "all", seed=4))
    assert not torch.allclose(whole, module.sample(11, "all", seed=5))
    assert module.training and module.diffusion.training
    *_, last = module.trajectory(2, "all", seed=4, first=6)
    torch.testing.assert_close(last.x, whole[6:8])


def test_guidance_and_denoise() -> None:
    module = tiny_module()
    torch.nn.init.normal_(module.diffusion.denoiser.table.weight)
    plain = module.sample(4, 1, guidance=ClassifierFree(1.0))
    assert not torch.allclose(plain, module.sample(4, 1))
    x_t = torch.randn(3, *SHAPE)
    one = module.denoise(x_t, 0.5, [0, 1, 2])
    each = module.denoise(x_t, torch.full((3,), 0.5), [0, 1, 2])
    torch.testing.assert_close(one, each)
    for bad in (0.0, 1.5):
        with pytest.raises(ValueError, match="must lie in"):
            module.denoise(x_t, bad)
    with pytest.raises(ValueError, match="must be a batch of"):
        module.denoise(torch.randn(3, 1, 5, 5), 0.5)


@pytest.mark.parametrize(
    ("label", "wanted"),
    [
        (2, [2, 2, 2, 2]),
        ([0, 2], [0, 2, 0, 2]),
        ("all", [0, 1, 2, 0]),
        (torch.tensor([1, 0, 2, 1]), [1, 0, 2, 1]),
    ],
)
def test_labels(label: Any, wanted: list[int]) -> None:
    assert expand_labels(label, 4, 3).tolist() == wanted


@pytest.mark.parametrize(
    ("label", "count", "classes", "message"),
    [
        (10, 1, 10, r"label=10: classes are 0 \.\. 9"),
        ([3, -1], 2, 10, r"label=-1: classes are"),
        ("seven", 1, 10, "give a class number"),
        (0.5, 1, 10, "whole class number"),
        ([], 1, 10, "at least one"),
        (1, 1, None, "trained without classes"),
        (1, 0, 10, "num_samples=0 must be at least 1"),
    ],
)
def test_bad_labels(label: Any, count: int, classes: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        expand_labels(label, count, classes)


def test_refusals() -> None:
    for changes, message in (
        ({"shape": (1, 0, 4)}, "shape="),
        ({"num_classes": 0}, "num_classes=0"),
        ({"label_dropout": 1.5}, r"^label_dropout=1\.5"),
        ({"denoiser": TinyNet(7)}, r"denoiser\.num_classes=7 must equal num_classes=3"),
    ):
        with pytest.raises(ValueError, match=message):
            tiny_module(**changes)
    with pytest.raises(ValueError, match="sampler=None"):
        tiny_module(sampler=None).sample(1)


@given(st.integers(0, 2**40), st.integers(1, 5), st.integers(1, 4))
def test_ranks_share_the_noise_of_one_process(step: int, n: int, world: int) -> None:
    def drawn(rank: int, size: int, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
        noise = KeyedNoise("train", 0, step, 0, rank=rank, world_size=size)
        return noise.uniform(rows), noise.normal(torch.empty(rows, 2))

    whole = drawn(0, 1, n * world)
    parts = [drawn(rank, world, n) for rank in range(world)]
    for k in (0, 1):
        assert torch.equal(whole[k], torch.cat([part[k] for part in parts]))


def test_keys_are_hashed_not_added() -> None:
    like = torch.empty(2, 3)
    draws = [KeyedNoise("train", s, k).normal(like) for s, k in ((0, 1), (1, 0), (1, 1))]
    assert all(not torch.equal(a, b) for a, b in itertools.pairwise(draws))
    seed_dropout(torch.device("cpu"), "train", 3)
    first = torch.rand(2)
    torch.rand(5)
    seed_dropout(torch.device("cpu"), "train", 3)
    assert torch.equal(first, torch.rand(2))


def test_label_dropout_rate() -> None:
    module = tiny_module(label_dropout=0.25)
    module._noise = lambda *keys: KeyedNoise(*keys)
    given = Condition(torch.zeros(20000, dtype=torch.long), torch.ones(20000, 2))
    kept = module._with_dropout(given, 20000, ("k",))
    dropped = kept.label == CLASSES
    assert torch.equal(dropped, (kept.vector == 0).all(1))
    assert abs(dropped.float().mean() - 0.25) < 4 * (0.25 * 0.75 / 20000) ** 0.5


def test_global_flags() -> None:
    for bad in ({"seed": -1}, {"seed": 0, "matmul_precision": "low"}):
        with pytest.raises(ValueError, match="must be"):
            set_global_flags(**bad)
    before = torch.get_float32_matmul_precision()
    set_global_flags(7)
    first = torch.rand(3)
    set_global_flags(7)
    assert torch.equal(first, torch.rand(3))
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("kind", [Linear, Cosine, Constant])
@pytest.mark.parametrize("final", [0.0, 0.25])
def test_learning_rates(kind: type[WarmupSchedule], final: float) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = kind(optimizer, total_steps=100, warmup_steps=10, final_fraction=final)
    rates = []
    for _ in range(101):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[:10] == pytest.approx([2.0 * (k + 1) / 10 for k in range(10)])
    assert rates[10] == pytest.approx(2.0)
    if kind is Constant:
        assert rates[10:] == pytest.approx([2.0] * 91)
        return
    assert rates[55] == pytest.approx(2.0 * (final + (1 - final) / 2))
    assert rates[100] == pytest.approx(2.0 * final)
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))


@pytest.mark.parametrize("bad", [{"total_steps": 0}, {"warmup_steps": -1}, {"final_fraction": 1.5}])
def test_bad_learning_rates(bad: dict[str, Any]) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    with pytest.raises(ValueError, match=f"{next(iter(bad))}="):
        Linear(optimizer, **({"total_steps": 10} | bad))


def test_a_wrong_start_is_a_warning() -> None:
    with pytest.warns(UserWarning, match="terminal SNR"):
        tiny_module(schedule=LinearBetas(300))
    with warnings.catch_warnings(action="error"):
        tiny_module(schedule=LinearBetas(300), matched_prior=True)


def test_what_the_objective_learned_comes_back_with_the_checkpoint(tmp_path) -> None:
    def objective() -> Regression:
        law = ImportanceTime(bins=4, history=2)
        return Regression(law, ConstantWeight(), SquaredError())

    ends = []
    for name, cuts in (("whole", [6]), ("halves", [3, 6])):
        file = None
        for epochs in cuts:
            module = tiny_module(objective=objective(), lr_scheduler=None)
            run = tmp_path / f"{name}{epochs}"
            tiny_trainer(run, max_epochs=epochs).fit(module, TinyData(), ckpt_path=file)
            file = run / "checkpoints" / "last.ckpt"
        ends.append(module)
    whole, halves = ends
    learned = whole.objective.learned_state()
    assert (learned["counts"] >= 2).all()
    assert torch.equal(learned["losses"], halves.objective.learned_state()["losses"])
    for a, b in zip(whole.parameters(), halves.parameters(), strict=True):
        assert torch.equal(a, b)
