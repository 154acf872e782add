"""Stop at the first loss or gradient that is not a finite number."""

from __future__ import annotations

import math

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from diffusion_lab.errors import RunError
from diffusion_lab.ranges import Natural, checked


class NonFiniteError(RunError):
    """Training diverged; the message names step, loss, learning rate and precision."""


class NonFiniteGuard(Callback):
    """Raises `NonFiniteError` when loss or gradient is NaN or infinite.

    On the CPU this happens before the weights change. On an accelerator the values are read one
    step later, so that the device never waits for them, and before any checkpoint is written, so
    that the last good one stays. With a gradient scaler (16-mixed) an overflow now and then is
    normal, and the scaler skips that step: `max_skipped` in a row are allowed.
    """

    @checked
    def __init__(self, max_skipped: Natural = 20) -> None:
        self.max_skipped = max_skipped
        self.skipped = 0
        self._loss: Tensor | None = None
        self._pending: tuple[Tensor, torch.cuda.Event | None, int] | None = None

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: Tensor
    ) -> None:
        """Keep the loss for the optimizer step."""
        self._loss = loss.detach()

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Check this step on the CPU, the one before on an accelerator."""
        assert self._loss is not None
        grads = [p.grad for g in optimizer.param_groups for p in g["params"] if p.grad is not None]
        norms = torch._foreach_norm(grads)
        values = torch.stack([torch.stack(norms).float().norm(), self._loss.float()])
        if values.is_cuda:
            self._check(trainer)
            host = torch.empty(2, pin_memory=True)
            host.copy_(values, non_blocking=True)
            event = torch.cuda.Event()
            event.record()
            self._pending = (host, event, trainer.global_step)
        else:
            self._pending = (values, None, trainer.global_step)
            self._check(trainer)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict
    ) -> None:
        """Check before saving, so that a file never holds weights that are not finite."""
        self._check(trainer)

    def _check(self, trainer: Trainer) -> None:
        if self._pending is None:
            return
        values, event, step = self._pending
        self._pending = None
        if event is not None:
            event.synchronize()
        norm, loss = values.tolist()
        if math.isfinite(norm) and math.isfinite(loss):
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
