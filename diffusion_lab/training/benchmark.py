"""How fast a configuration trains, beside a bare PyTorch loop, and how fast it samples.

Two programs timed one after the other are not comparable on a machine that does other work too.
Here both take turns, a few seconds each, within one process: `Benchmark` is a callback that stops
the Trainer every few steps, lets the bare loop do as many, and lets the Trainer go on.
"""

from __future__ import annotations

import copy
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from diffusion_lab.diffusion.conditions import Condition
from diffusion_lab.diffusion.objectives import Batch, TrainContext
from diffusion_lab.ranges import Count, checked
from diffusion_lab.training.loggers import BackgroundLogger
from diffusion_lab.training.module import DiffusionModule


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
    autocast and clipping, so that what is compared is the machinery around them. Every step trains
    on the one `batch`.
    """

    def __init__(self, module: DiffusionModule, batch: Batch, trainer: Trainer) -> None:
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


class Benchmark(Callback):
    """Times the Trainer and a bare loop in turns, then sampling.

    A turn of the Trainer runs from one pause to the next, so its data, hooks, logging and the ends
    of epochs all count. Loggers that work in a thread of their own (`BackgroundLogger`) are paused
    in every second turn, so that their cost is measured too. The first `warmup` steps of each and
    the first sampling run do not count. `rounds` and `out` are for whoever runs the training.
    """

    @checked
    def __init__(
        self,
        steps: Count = 20,
        rounds: Count = 6,
        warmup: Count = 10,
        num_samples: Count = 100,
        sample_rounds: Count = 3,
        out: str | Path = "bench.json",
    ) -> None:
        self.steps, self.rounds, self.warmup = steps, rounds, warmup
        self.num_samples, self.sample_rounds = num_samples, sample_rounds
        self.out = Path(out)
        self.trainer_seconds: list[float] = []
        self.bare_seconds: list[float] = []
        self.batch_size = 0
        self._bare: BareLoop | None = None
        self._since = 0.0
        self._logging = False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Let the bare loop run after each turn of the Trainer."""
        done = trainer.fit_loop.epoch_loop.total_batch_idx + 1
        if done == self.warmup:
            assert isinstance(pl_module, DiffusionModule)
            own = pl_module.batch_of(batch)
            self.batch_size = len(own.x0)
            self._bare = BareLoop(pl_module, own, trainer)
            self._bare.run(self.warmup)
            self._logging = self._pause_loggers(trainer, False)
            self._since = now(pl_module.device)
        elif done > self.warmup and (done - self.warmup) % self.steps == 0:
            assert self._bare is not None
            paused = now(pl_module.device)
            self._bare.run(self.steps)
            ended = now(pl_module.device)
            self.trainer_seconds.append(paused - self._since)
            self.bare_seconds.append(ended - paused)
            self._pause_loggers(trainer, len(self.bare_seconds) % 2 == 1)
            self._since = now(pl_module.device)

    @staticmethod
    def _pause_loggers(trainer: Trainer, paused: bool) -> bool:
        """Pause or resume the loggers; whether there are any."""
        loggers = [logger for logger in trainer.loggers if isinstance(logger, BackgroundLogger)]
        for logger in loggers:
            logger.paused = paused
        return bool(loggers)

    def training(self) -> dict[str, float]:
        """Images a second of both, and the median over the turns of their ratio.

        With a logger in a thread of its own also "logger_share": the median of how much longer a
        turn with it takes than the next one without, 0.02 being 2 %.
        """
        images = self.batch_size * self.steps
        pairs = zip(self.trainer_seconds, self.bare_seconds, strict=True)
        speeds = {
            "trainer_images_per_second": images / statistics.median(self.trainer_seconds),
            "bare_images_per_second": images / statistics.median(self.bare_seconds),
            "trainer_over_bare": statistics.median(bare / full for full, bare in pairs),
        }
        with_, without = self.trainer_seconds[0::2], self.trainer_seconds[1::2]
        if self._logging and without:
            shares = [a / b - 1 for a, b in zip(with_, without, strict=False)]
            speeds["logger_share"] = statistics.median(shares)
        return speeds

    def sampling(self, module: DiffusionModule) -> dict[str, float]:
        """Seconds to sample all classes in turn, and their ratio to those inside the network."""
        assert module.drawing.sampler is not None
        label = None if module.num_classes is None else "all"
        network, device = module.diffusion.denoiser, module.device
        began: list[float] = []
        inside: list[float] = []
        hooks = [
            network.register_forward_pre_hook(lambda *_: began.append(now(device))),
            network.register_forward_hook(lambda *_: inside.append(now(device) - began.pop())),
        ]
        seconds, ratios = [], []
        try:
            module.sample(self.num_samples, label)
            for seed in range(self.sample_rounds):
                inside.clear()
                start = now(device)
                module.sample(self.num_samples, label, seed=seed)
                seconds.append(now(device) - start)
                ratios.append(seconds[-1] / sum(inside))
        finally:
            for hook in hooks:
                hook.remove()
        steps = len(module.drawing.sampler.times(module.diffusion.schedule)) - 1
        sampling = statistics.median(seconds)
        return {
            "samples": self.num_samples,
            "sampling_steps": steps,
            "sampling_seconds": sampling,
            "sampling_over_network": statistics.median(ratios),
            "milliseconds_per_step": 1000 * sampling / steps,
        }


def now(device: torch.device) -> float:
    """The time in seconds, once the device has done all it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()


def table(record: dict[str, Any]) -> str:
    """What `bench` measured, as lines for a terminal."""
    share = record.get("logger_share")
    logging = {} if share is None else {"logger, share of training": f"{share:.2%}"}
    rows = {
        "network": f"{record['parameters']:,} parameters",
        "precision, batch": f"{record['precision']}, {record['batch_size']}",
        "training, Trainer": f"{record['trainer_images_per_second']:,.0f} images/s",
        "training, bare loop": f"{record['bare_images_per_second']:,.0f} images/s",
        "Trainer / bare loop": f"{record['trainer_over_bare']:.3f}",
        **logging,
        f"sampling {record['samples']} images": f"{record['sampling_seconds']:.2f} s",
        f"one of {record['sampling_steps']} steps": f"{record['milliseconds_per_step']:.1f} ms",
        "sampling / its network calls": f"{record['sampling_over_network']:.3f}",
        "device": f"{record['hardware']['device']}, {record['hardware'].get('threads')} threads",
    }
    width = max(map(len, rows))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items())
