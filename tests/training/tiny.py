"""A model, data and a trainer small enough that a run takes a tenth of a second."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import lightning.pytorch as pl
import torch
from PIL import Image
from torch import Tensor, nn

from diffusion_lab.data.loader import TensorLoader
from diffusion_lab.diffusion.objectives import Regression
from diffusion_lab.diffusion.parameterizations import Velocity
from diffusion_lab.diffusion.schedules import RectifiedFlow
from diffusion_lab.diffusion.times import LogitNormalTime
from diffusion_lab.diffusion.weights import ConstantWeight, SquaredError
from diffusion_lab.sampling.ancestral import DDIM
from diffusion_lab.sampling.guidance.classifier_free import ClassifierFree
from diffusion_lab.sampling.spacing import Trailing
from diffusion_lab.training.callbacks import Checkpoints, NonFiniteGuard
from diffusion_lab.training.checkpoint_io import VerifiedCheckpoints
from diffusion_lab.training.ema import EMA
from diffusion_lab.training.loggers import BackgroundLogger, MetricsFile
from diffusion_lab.training.module import DiffusionModule
from diffusion_lab.training.schedulers import Linear

SHAPE = (1, 4, 4)
CLASSES = 3


class TinyNet(nn.Module):
    """Two layers with dropout, a label table and a buffer."""

    def __init__(self, num_classes: int | None = CLASSES, width: int = 8) -> None:
        super().__init__()
        self.num_classes, self.channels = num_classes, 1
        self.table = nn.Embedding((num_classes or 0) + 1, width)
        self.inner = nn.Linear(17, width)
        self.outer = nn.Linear(width, 16)
        self.dropout = nn.Dropout(0.2)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
        if self.training:
            self.calls += 1
        if label is None:
            label = torch.full((len(x),), self.num_classes or 0)
        h = self.inner(torch.cat((x.flatten(1), c_noise[:, None] / 1000), 1)) + self.table(label)
        return self.outer(self.dropout(torch.tanh(h))).view_as(x)


class TinyData(pl.LightningDataModule):
    """80 random images; 20 batches of 4 an epoch."""

    source: ClassVar = {"name": "tiny", "sha256": "0" * 64}

    def train_dataloader(self) -> TensorLoader:
        generator = torch.Generator().manual_seed(5)
        x = torch.randn(80, *SHAPE, generator=generator)
        return TensorLoader((x, torch.arange(80) % CLASSES), 4, seed=3)

    def val_dataloader(self) -> TensorLoader:
        generator = torch.Generator().manual_seed(6)
        x = torch.randn(8, *SHAPE, generator=generator)
        return TensorLoader((x, torch.arange(8) % CLASSES), 8, shuffle=False, drop_last=False)


def tiny_module(**changes: Any) -> DiffusionModule:
    torch.manual_seed(11)
    arguments: dict[str, Any] = {
        "shape": SHAPE,
        "num_classes": CLASSES,
        "optimizer": partial(torch.optim.AdamW, lr=1e-2, fused=True),
        "lr_scheduler": partial(Linear, warmup_steps=5),
        "sampler": DDIM(3, Trailing()),
        "guidance": ClassifierFree(2.0),
    }
    denoiser = changes.pop("denoiser", None) or TinyNet()
    default = Regression(LogitNormalTime(), ConstantWeight(), SquaredError())
    objective = changes.pop("objective", None) or default
    schedule = changes.pop("schedule", None) or RectifiedFlow()
    parameterization = changes.pop("parameterization", None) or Velocity()
    return DiffusionModule(denoiser, schedule, parameterization, objective, **arguments | changes)


def tiny_trainer(run_dir: Path, *callbacks: pl.Callback, **changes: Any) -> pl.Trainer:
    arguments: dict[str, Any] = {
        "accelerator": "cpu",
        "max_epochs": 3,
        "log_every_n_steps": 5,
        "num_sanity_val_steps": 0,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "inference_mode": False,
        "use_distributed_sampler": False,
        "gradient_clip_val": 1.0,
        "default_root_dir": run_dir,
        "plugins": [VerifiedCheckpoints()],
        "logger": [MetricsFile(run_dir)],
        "callbacks": [EMA(0.9), NonFiniteGuard(), *callbacks],
    }
    arguments |= changes
    if not any(isinstance(c, Checkpoints) for c in arguments["callbacks"]):
        arguments["callbacks"].append(Checkpoints(run_dir))
    return pl.Trainer(**arguments)


def tiny_fit(
    run_dir: Path,
    *callbacks: pl.Callback,
    module: DiffusionModule | None = None,
    ckpt: Path | None = None,
    **changes: Any,
) -> pl.Trainer:
    """Train a tiny module; returns the trainer."""
    trainer = tiny_trainer(run_dir, *callbacks, **changes)
    trainer.fit(module or tiny_module(), datamodule=TinyData(), ckpt_path=ckpt)
    return trainer


class Dashboard(BackgroundLogger):
    """Remembers what it is given, and waits or fails where it is told to."""

    name, version = "dashboard", ""

    def __init__(
        self,
        patience: float = 30.0,
        wait: threading.Event | None = None,
        fail: int | None = None,
    ) -> None:
        super().__init__()
        self.patience, self.wait, self.fail = patience, wait, fail
        self.seen: list[tuple[Any, ...]] = []
        self.abandoned = False

    def of(self, kind: str, key: str) -> list[tuple[Any, ...]]:
        """What was given of a picture's or a table's series."""
        return [entry[3:] for entry in self.seen if entry[0] == kind and entry[2] == key]

    def _note(self, *what: Any) -> None:
        if self.wait is not None:
            self.wait.wait()
        if self.fail is not None and len(self.seen) == self.fail:
            raise ConnectionError("gone")
        self.seen.append(what)

    def open(self, config: dict[str, Any]) -> Any:
        self.thread, self.config = threading.current_thread(), config
        return self

    def write_values(self, values: dict[str, float], step: int) -> None:
        self._note("values", step, values)

    def write_picture(self, key: str, picture: Image.Image, step: int) -> None:
        self._note("picture", step, key, picture)

    def write_table(self, key: str, columns: list[str], rows: list[list[Any]], step: int) -> None:
        self._note("table", step, key, columns, rows)

    def close(self, status: str) -> None:
        self._note("close", status)

    def abandon(self) -> None:
        self.abandoned = True
