"""Stopping at the first loss or gradient that is not a finite number."""

from __future__ import annotations

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.optim import Optimizer

from diffusion_lab.errors import RunError
from diffusion_lab.ranges import Natural, checked


class NonFiniteError(RunError):
    """Training diverged; the message names step, loss, learning rate and precision."""


class NonFiniteGuard(Callback):
    """Raises `NonFiniteError` when loss or gradient is NaN or infinite.

    On the CPU the step is refused before the weights change. On an accelerator the flag is read
    one step later, so that the device never waits for it; weights that are not finite are refused
    before any checkpoint is written, so the last good one stays.

    Args:
        max_skipped: With a gradient scaler (16-mixed) an overflow now and then is normal and the
            scaler skips that step: so many in a row are allowed.

    Raises:
        ArgumentError: max_skipped < 0.
    """

    @checked
    def __init__(self, max_skipped: Natural = 20) -> None:
        self.max_skipped = max_skipped
        self.skipped = 0
        self._loss: Tensor | None = None
        self._pending: tuple[Tensor, torch.cuda.Event | None, int] | None = None

    def on_before_backward(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor
    ) -> None:
        """Remember the loss."""
        self._loss = loss.detach()

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Judge this step on the CPU, the one before on an accelerator."""
        assert self._loss is not None
        grads = [p.grad for g in optimizer.param_groups for p in g["params"] if p.grad is not None]
        norms = torch._foreach_norm(grads)
        values = torch.stack([torch.stack(norms).float().norm(), self._loss.float()])
        if values.is_cuda:
            self._judge(trainer)
            host = torch.empty(2, pin_memory=True)
            host.copy_(values, non_blocking=True)
            event = torch.cuda.Event()
            event.record()
            self._pending = (host, event, trainer.global_step)
        else:
            self._pending = (values, None, trainer.global_step)
            self._judge(trainer)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict
    ) -> None:
        """Refuse to save after a step that was not finite."""
        self._judge(trainer)

    def _judge(self, trainer: pl.Trainer) -> None:
        if self._pending is None:
            return
        values, event, step = self._pending
        self._pending = None
        if event is not None:
            event.synchronize()
        norm, loss = values.tolist()
        if norm - norm == 0 and loss - loss == 0:
            self.skipped = 0
            return
        self.skipped += 1
        scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
        if scaled and self.skipped <= self.max_skipped:
            return
        rates = [group["lr"] for o in trainer.optimizers for group in o.param_groups]
        raise NonFiniteError(
            f"training diverged at step {step}: loss {loss:g}, gradient norm {norm:g}, learning "
            f"rate {rates[0]:g}, precision {trainer.precision}. The last checkpoint is of before; "
            "lower optimizer.lr, set trainer.gradient_clip_val, or use trainer.precision=32-true"
        )
