"""How fast a configuration trains, beside a bare PyTorch loop, and how fast it samples.

Two programs timed one after the other are not comparable on a machine that does other work too.
Here both take turns, a few seconds each, within one process: `TakingTurns` is a callback that
stops the Trainer every few steps, lets the bare loop do as many, and lets the Trainer go on.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from diffusion_lab.diffusion.conditions import Condition
from diffusion_lab.diffusion.objectives import Batch, TrainContext
from diffusion_lab.training.loggers import BackgroundLogger
from diffusion_lab.training.module import AnyBatch, DiffusionModule


class GlobalNoise:
    """Noise from torch's global generator, as a script would draw it."""

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal numbers shaped like `like`."""
        return torch.randn_like(like)

    def uniform(self, n: int) -> Tensor:
        """`n` numbers in [0, 1), float64 on the CPU."""
        return torch.rand(n, dtype=torch.float64)


class BareLoop:
    """The training that a script of thirty lines would do: no Trainer, no averaging, no logging.

    It has a copy of the module's network, the same objective, optimizer, learning-rate schedule,
    autocast and clipping, so that what is compared is the machinery around them.

    Args:
        module: What is trained; its present weights are copied.
        batch: One batch, images scaled, on the device; every step trains on it.
        trainer: Whose precision and clipping are used.
    """

    def __init__(self, module: DiffusionModule, batch: Batch, trainer: pl.Trainer) -> None:
        self.model = copy.deepcopy(module.diffusion).train()
        self.objective, self.num_classes = module.objective, module.num_classes
        self.label_dropout = module.label_dropout
        self.batch, self.noise = batch, GlobalNoise()
        self.precision, self.clip = trainer.precision_plugin, trainer.gradient_clip_val
        assert module.make_optimizer is not None
        self.optimizer = module.make_optimizer(self.model.parameters())
        make = module.make_lr_scheduler
        total = int(trainer.estimated_stepping_batches)
        self.lr_scheduler = make(self.optimizer, total_steps=total) if make else None

    def run(self, steps: int) -> None:
        """Train for some steps."""
        for _ in range(steps):
            self._step(*self.batch)

    def _step(self, x0: Tensor, given: Condition) -> None:
        if not given.empty:
            kept = torch.rand(len(x0), device=x0.device) >= self.label_dropout
            given = given.where(kept, given.null(self.num_classes))
        self.optimizer.zero_grad()
        with self.precision.forward_context():
            loss = self.objective(self.model, Batch(x0, given), TrainContext(self.noise)).mean()
        loss.backward()
        if self.clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.optimizer.step()
        if self.lr_scheduler is not None:
            self.lr_scheduler.step()


class TakingTurns(Callback):
    """Times the Trainer and a bare loop, turn and turn about.

    A turn of the Trainer runs from one pause to the next, so its data, hooks, logging and the ends
    of epochs all count. Loggers that work in a thread of their own (`BackgroundLogger`) are paused
    in every second turn, so that what they cost is told as well.

    Args:
        steps: Optimizer steps of a turn, at least 1.
        warmup: Steps that each takes first and that do not count, at least 1.
    """

    def __init__(self, steps: int, warmup: int) -> None:
        for name, value in (("steps", steps), ("warmup", warmup)):
            if value < 1:
                raise ValueError(f"bench.{name}={value} must be at least 1")
        self.steps, self.warmup = steps, warmup
        self.trainer_seconds: list[float] = []
        self.bare_seconds: list[float] = []
        self.batch_size = 0
        self._bare: BareLoop | None = None
        self._since = 0.0
        self._logging = False

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: AnyBatch,
        batch_idx: int,
    ) -> None:
        """Change places after a turn."""
        done = trainer.fit_loop.epoch_loop.total_batch_idx + 1
        if done == self.warmup:
            assert isinstance(pl_module, DiffusionModule)
            own = pl_module.batch_of(batch)
            self.batch_size = len(own.x0)
            self._bare = BareLoop(pl_module, own, trainer)
            self._bare.run(self.warmup)
            self._logging = self._loggers(trainer, paused=False)
            self._since = now(pl_module.device)
        elif done > self.warmup and (done - self.warmup) % self.steps == 0:
            assert self._bare is not None
            paused = now(pl_module.device)
            self._bare.run(self.steps)
            ended = now(pl_module.device)
            self.trainer_seconds.append(paused - self._since)
            self.bare_seconds.append(ended - paused)
            self._loggers(trainer, paused=len(self.bare_seconds) % 2 == 1)
            self._since = now(pl_module.device)

    def result(self) -> dict[str, float]:
        """Images a second of both, and the median over the turns of their ratio.

        With a logger in a thread of its own also "logger_share": the median of how much longer a
        turn with it takes than the next one without, 0.02 being 2 %.
        """
        if not self.bare_seconds:
            raise RuntimeError("no turn was finished: give bench.rounds of at least 1")
        images = self.batch_size * self.steps
        pairs = zip(self.trainer_seconds, self.bare_seconds, strict=True)
        told = {
            "trainer_images_per_second": images / statistics.median(self.trainer_seconds),
            "bare_images_per_second": images / statistics.median(self.bare_seconds),
            "trainer_over_bare": statistics.median(bare / full for full, bare in pairs),
        }
        with_, without = self.trainer_seconds[0::2], self.trainer_seconds[1::2]
        if self._logging and without:
            shares = [a / b - 1 for a, b in zip(with_, without, strict=False)]
            told["logger_share"] = statistics.median(shares)
        return told

    @staticmethod
    def _loggers(trainer: pl.Trainer, paused: bool) -> bool:
        """Pause the loggers, or let them go on; gives whether there are any."""
        found = [logger for logger in trainer.loggers if isinstance(logger, BackgroundLogger)]
        for logger in found:
            logger.paused = paused
        return bool(found)


def sampling_seconds(
    module: DiffusionModule, num_samples: int, rounds: int
) -> Sequence[tuple[float, float]]:
    """Seconds to draw `num_samples` images of all classes, and those inside the network.

    `rounds` pairs, after a warm-up; the rest of the first number is what sampling costs itself.
    """
    label = None if module.num_classes is None else "all"
    network = module.diffusion.denoiser
    began: list[float] = []
    inside: list[float] = []
    hooks = [
        network.register_forward_pre_hook(lambda *_: began.append(now(module.device))),
        network.register_forward_hook(lambda *_: inside.append(now(module.device) - began.pop())),
    ]
    pairs = []
    try:
        module.sample(num_samples, label)
        for seed in range(rounds):
            inside.clear()
            start = now(module.device)
            module.sample(num_samples, label, seed=seed)
            pairs.append((now(module.device) - start, sum(inside)))
    finally:
        for hook in hooks:
            hook.remove()
    return pairs


def now(device: torch.device) -> float:
    """The clock, in seconds, once the device has done all it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()
