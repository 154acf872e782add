"""Precision, optimizer and clipping: every combination is decided before the run."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from tiny import TinyData, tiny_module, tiny_trainer

from diffusion_lab.config.arguments import compose
from diffusion_lab.config.checking import check
from diffusion_lab.training.checkpoint_io import VerifiedCheckpoints
from diffusion_lab.training.clipping import clip, unscaled_optimizer

ADAM, SGD = torch.optim.AdamW, torch.optim.SGD
CLIPS = [(0.01, "norm"), (0.001, "value"), (None, None)]


class Steps(pl.Callback):
    """The largest gradient and the norm that each optimizer step got."""

    def __init__(self) -> None:
        self.norms: list[float] = []
        self.largest: list[float] = []
        self.fused: bool | None = None

    def on_train_start(self, trainer: pl.Trainer, *args: Any) -> None:
        optimizer = trainer.optimizers[0]
        self.fused = bool(optimizer.param_groups[0].get("fused"))
        optimizer.register_step_post_hook(self.note)

    def note(self, optimizer: torch.optim.Optimizer, *args: Any) -> None:
        grads = [p.grad for p in optimizer.param_groups[0]["params"] if p.grad is not None]
        self.norms.append(float(torch.nn.utils.get_total_norm(grads)))
        self.largest.append(max(float(g.abs().max()) for g in grads))


def trained(folder: Path, kind: Any, fused: bool, clip: tuple, **changes: Any) -> Steps:
    steps = Steps()
    limits = {"gradient_clip_val": clip[0], "gradient_clip_algorithm": clip[1]}
    trainer = tiny_trainer(folder, steps, max_steps=5, log_every_n_steps=1, **limits, **changes)
    module = tiny_module(optimizer=partial(kind, lr=1e-3, fused=fused))
    trainer.fit(module, datamodule=TinyData())
    assert trainer.global_step == 5 and "train/grad_norm" in trainer.callback_metrics
    return steps


def kept(steps: Steps, clip: tuple) -> bool:
    """Whether every step kept the limit, and some step reached it (else nothing was clipped)."""
    limit, algorithm = clip
    found = steps.norms if algorithm == "norm" else steps.largest
    return limit is None or (max(found) <= limit * 1.001 and max(found) >= limit * 0.5)


@pytest.mark.parametrize("limit", CLIPS, ids=str)
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("kind", [ADAM, SGD])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_on_a_processor(tmp_path: Path, precision: Any, kind: Any, fused: bool, limit: Any) -> None:
    steps = trained(tmp_path, kind, fused, limit, precision=precision)
    assert steps.fused == fused and kept(steps, limit)


@pytest.mark.parametrize("limit", CLIPS, ids=str)
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("kind", [ADAM, SGD])
def test_with_a_gradient_scaler(tmp_path: Path, kind: Any, fused: bool, limit: Any) -> None:
    """As on a GPU: Lightning's own plugin, on the processor, which its Trainer would not take."""
    plugin = MixedPrecision("16-mixed", "cpu")
    plugins = [plugin, VerifiedCheckpoints()]
    steps = trained(tmp_path / "scaled", kind, fused, limit, plugins=plugins)
    assert plugin.scaler.get_scale() > 1 and not steps.fused and kept(steps, limit)
    plain = trained(tmp_path / "plain", kind, False, limit)
    assert steps.norms[0] == pytest.approx(plain.norms[0], rel=0.05)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("limit", CLIPS, ids=str)
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("kind", [ADAM, SGD])
@pytest.mark.parametrize("precision", ["16-mixed", "bf16-mixed", "32-true"])
def test_on_a_gpu(tmp_path: Path, precision: Any, kind: Any, fused: bool, limit: Any) -> None:
    changes = {"precision": precision, "accelerator": "gpu"}
    steps = trained(tmp_path, kind, fused, limit, **changes)
    assert steps.fused == (fused and precision != "16-mixed") and kept(steps, limit)
    plain = trained(tmp_path / "32", kind, False, limit, precision="32-true", accelerator="gpu")
    # The first step's gradient is the one of float32: not larger by the scale.
    assert steps.norms[0] == pytest.approx(plain.norms[0], rel=0.05)


@pytest.mark.parametrize("fused", [True, False, None])
@pytest.mark.parametrize("scaled", [True, False])
def test_how_the_optimizer_is_built(scaled: bool, fused: bool | None) -> None:
    parameters = [torch.nn.Parameter(torch.zeros(2))]
    built = unscaled_optimizer(partial(ADAM, lr=1e-3, fused=fused), parameters, scaled)
    assert bool(built.param_groups[0]["fused"]) == (bool(fused) and not scaled)


def test_one_built_by_hand_is_refused_with_the_remedy() -> None:
    parameters = [torch.nn.Parameter(torch.zeros(2))]
    with pytest.raises(ValueError, match="build it with fused=False"):
        unscaled_optimizer(lambda p: ADAM(p, fused=True), parameters, scaled=True)


@pytest.mark.parametrize(("limit", "algorithm"), CLIPS)
@pytest.mark.parametrize("measured", [True, False])
def test_clip(limit: float | None, algorithm: str | None, measured: bool) -> None:
    parameter = torch.nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([3.0, -4.0])
    norm = clip([parameter, torch.nn.Parameter(torch.zeros(1))], limit, algorithm, measured)
    assert (norm is None) == (algorithm != "norm" and not measured)
    assert norm is None or float(norm) == pytest.approx(5.0)
    wanted = {"norm": [0.006, -0.008], "value": [0.001, -0.001], None: [3.0, -4.0]}[algorithm]
    assert parameter.grad.tolist() == pytest.approx(wanted, rel=1e-4)


def test_half_precision_on_a_processor_is_refused_in_one_line() -> None:
    (fault,) = check(compose("train", ["trainer=cpu", "trainer.precision=16-mixed"]))
    assert fault.startswith("trainer.precision=16-mixed needs an accelerator")


@pytest.mark.parametrize("precision", ["16-true", "bf16-true", "64-true"])
def test_weights_of_another_type_than_the_images_are_refused(precision: str) -> None:
    (fault,) = check(compose("train", [f"trainer.precision={precision}"]))
    assert fault.startswith(f"trainer.precision={precision} must be one of auto, 32-true")
