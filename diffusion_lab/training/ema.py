r"""Exponential moving average of the weights.

After optimizer step n = 1, 2, ... (counted from the start of averaging)

    average <- average + (1 - d_n) (weights - average),   d_n = min(decay, (1 + n) / (warmup + n)).

The warm-up lets early weights be forgotten: with a constant decay of 0.999 a short run's average
would still be half initial weights. Buffers are copied.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import lightning.pytorch as pl
import torch
from annotated_types import Ge, Lt
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

from diffusion_lab.ranges import Natural, checked


class EMA(WeightAveraging):
    """Averages the weights; every validation hook, grid and checkpoint then has the average.

    Lightning's `WeightAveraging` keeps the copy. This subclass differs in four things: the decay
    warms up; all hooks of validation see averaged weights, whatever their order; nothing is
    swapped, saved or copied back as an average before averaging began; and a checkpoint written
    while the weights are swapped still names each of them rightly.

    A checkpoint holds the average in "state_dict" and the raw weights in "current_model_state";
    before averaging began it holds raw weights in "state_dict" alone.

    Args:
        decay: Largest decay, in [0, 1).
        warmup: The number w in (1 + n) / (w + n); 1 is a constant decay, larger is a slower
            rise of the decay.
        start_step: Optimizer step at which averaging begins, at least 0.

    Raises:
        ArgumentError: a number out of its range.
    """

    @checked
    def __init__(
        self,
        decay: Annotated[float, Ge(0), Lt(1)] = 0.999,
        warmup: Annotated[float, Ge(1)] = 10.0,
        start_step: Natural = 0,
    ) -> None:
        super().__init__()
        self.decay = decay
        self.warmup = warmup
        self.start_step = start_step
        self._count = 0
        self._swapped = False
        self._pairs: list[tuple[list[Tensor], list[Tensor]]] = []

    def decay_at(self, n: int) -> float:
        """d_n of the n-th update, n = 1, 2, ...; the first copies the weights (n = 0: 0)."""
        return min(self.decay, (1 + n) / (self.warmup + n)) if n else 0.0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Make the copy, with no average in it yet."""
        self._count, self._swapped, self._pairs = 0, False, []
        super().setup(trainer, pl_module, stage)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Update the average, once an optimizer step."""
        step = trainer.global_step
        if step > self._latest_update_step and step > self.start_step:
            self._update(pl_module)
            self._latest_update_step = step

    @torch.no_grad()
    def _update(self, module: pl.LightningModule) -> None:
        assert self._average_model is not None
        if not self._pairs:
            self._pairs = self._float_parameters(module)
        decay = self.decay_at(self._count)
        for average, current in self._pairs:
            if decay:
                torch._foreach_lerp_(average, current, 1.0 - decay)
            else:
                torch._foreach_copy_(average, current)
        buffers = zip(self._average_model.module.buffers(), module.buffers(), strict=True)
        for own, other in buffers:
            own.copy_(other)
        self._count += 1

    def _float_parameters(
        self, module: pl.LightningModule
    ) -> list[tuple[list[Tensor], list[Tensor]]]:
        """(averages, weights), one pair of lists a dtype: looked up once, not at each step."""
        assert self._average_model is not None
        groups: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
        for average, current in zip(
            self._average_model.module.parameters(), module.parameters(), strict=True
        ):
            ours, theirs = groups.setdefault(current.dtype, ([], []))
            ours.append(average)
            theirs.append(current)
        return list(groups.values())

    # ------------------------------------------------------------------ swapping

    @property
    def averaging(self) -> bool:
        """Whether an average exists."""
        return self._average_model is not None and self._count > 0

    @property
    def average(self) -> Any | None:
        """The copy of the module that holds the average; None where there is none, or it is in."""
        if self._average_model is None or not self.averaging or self._swapped:
            return None
        return self._average_model.module

    @property
    def swapped(self) -> bool:
        """Whether the average is in the module now, and the raw weights in its place."""
        return self._swapped

    def swap_in(self, module: pl.LightningModule) -> None:
        """Put the average into the module; no effect if it is there, or if there is none."""
        if self.averaging and not self._swapped:
            self._swap_models(module)
            self._swapped = True

    def swap_out(self, module: pl.LightningModule) -> None:
        """Put the raw weights back; no effect if they are there."""
        if self._swapped:
            self._swap_models(module)
            self._swapped = False

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Swap in, for modules that do not do so themselves."""
        self.swap_in(pl_module)

    def on_validation_epoch_start(self, *args: Any) -> None:
        """Nothing: the average is in place."""

    def on_validation_epoch_end(self, *args: Any) -> None:
        """Nothing: the hooks after this one are to see the average too."""

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        """Swap out, for modules that do not do so themselves."""
        self.swap_out(pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Swap out, for modules that do not do so themselves."""
        self.swap_out(pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the average in the module, if there is one."""
        self.swap_out(pl_module)
        if self.averaging:
            self._copy_average_to_current(pl_module)

    # ------------------------------------------------------------------ checkpoints

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Name averaged and raw weights in a checkpoint."""
        if not self.averaging:
            return
        assert self._average_model is not None
        in_module = checkpoint["state_dict"]
        in_copy = _stripped(self._average_model.state_dict().items())
        raw, average = (in_copy, in_module) if self._swapped else (in_module, in_copy)
        checkpoint["state_dict"], checkpoint["current_model_state"] = average, raw
        checkpoint["averaging_state"] = {"count": self._count}

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Take up averaged and raw weights where a run left them."""
        if self._average_model is None:
            return
        self._average_model.module.load_state_dict(checkpoint["state_dict"])
        if "current_model_state" in checkpoint:
            self._count = int(checkpoint["averaging_state"]["count"])
            pl_module.load_state_dict(checkpoint["current_model_state"])


def _stripped(items: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """The module's own state in an `AveragedModel`'s."""
    prefix = "module."
    return {name.removeprefix(prefix): value for name, value in items if name.startswith(prefix)}
