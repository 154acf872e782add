r"""Exponential moving average of the weights.

After optimizer step n = 1, 2, ... (counted from the start of averaging)

    average <- average + (1 - d_n) (weights - average),   d_n = min(decay, (1 + n) / (warmup + n)).

The warm-up lets early weights be forgotten: with a constant decay of 0.999 a short run's average
would still be half initial weights. Buffers are copied.

`half_life_images` states the decay in a unit that keeps its meaning when the batch or the number of
devices changes (Karras et al., EDM, arXiv 2206.00364): with b images in a step, of all devices and
accumulated batches, decay = 0.5 ** (b / half_life_images), so that the weight of what was learned
halves with every so many images. The warm-up is then EDM's `ema_rampup_ratio`: for large n it is a
half-life of ln 2 / (warmup - 1) of the images seen so far, 0.077 for 10; EDM's 0.05 is 14.9.
"""

from __future__ import annotations

from typing import Annotated, Any

import lightning.pytorch as pl
import torch
from annotated_types import Ge, Lt
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

from diffusion_lab.diffusion.model import GaussianDiffusion
from diffusion_lab.ranges import Natural, Positive, checked
from diffusion_lab.training.lightning_private import averaged_model, swap_average
from diffusion_lab.training.module import DiffusionModule


class EMA(WeightAveraging):
    """Averages the weights; validation and sample grids see the average, checkpoints hold both.

    Lightning's `WeightAveraging` keeps the copy. This subclass differs in four things: the decay
    warms up; all hooks of validation see averaged weights, whatever their order; nothing is
    swapped, saved or copied back as an average before averaging began; and a checkpoint written
    while the weights are swapped still names each of them rightly.

    A checkpoint holds the average in "state_dict" and the raw weights in "current_model_state";
    before averaging began it holds raw weights in "state_dict" alone. The arguments stand in
    conf/callbacks/default.yaml; one of `decay` and `half_life_images` is None.

    Raises:
        ArgumentError: A number out of its range.
        ValueError: Both or none of `decay` and `half_life_images`.
    """

    @checked
    def __init__(
        self,
        decay: Annotated[float, Ge(0), Lt(1)] | None = 0.999,
        warmup: Annotated[float, Ge(1)] = 10.0,
        start_step: Natural = 0,
        half_life_images: Positive | None = None,
    ) -> None:
        if (decay is None) == (half_life_images is None):
            raise ValueError(
                f"decay={decay} and half_life_images={half_life_images}: give one and leave the "
                "other null; both state how long the average remembers"
            )
        super().__init__(use_buffers=False, multi_avg_fn=self._move)
        self.decay = decay
        self.warmup = warmup
        self.start_step = start_step
        self.half_life_images = half_life_images
        self._images = 0
        self._swapped = False

    def decay_at(self, n: int, images: int = 0) -> float:
        """d_n of the n-th update, n = 1, 2, ..., after a step of so many images."""
        limit = self.decay
        if self.half_life_images is not None:
            limit = 0.5 ** (images / self.half_life_images)
        assert limit is not None
        return min(limit, (1 + n) / (self.warmup + n))

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Make the copy, with no average in it yet; be the first of all callbacks.

        The others then see averaged weights from their first hook of a validation to their last.
        """
        self._images, self._swapped = 0, False
        super().setup(trainer, pl_module, stage)
        copy = averaged_model(self)
        if copy is not None:
            copy.n_averaged = torch.tensor(0)  # on the CPU: it is read at every step
        callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
        callbacks.remove(self)
        callbacks.insert(0, self)
        if isinstance(pl_module, DiffusionModule):
            pl_module.average = lambda: self.average

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Leave the module as one without an average."""
        if isinstance(pl_module, DiffusionModule):
            pl_module.average = None

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Leave the module as one without an average."""
        self.teardown(trainer, pl_module, "fit")

    # ------------------------------------------------------------------ averaging

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """Once an optimizer step, from `start_step` on."""
        return step_idx is not None and step_idx >= self.start_step

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Count the images of a step, and update the average after it."""
        if self.half_life_images is not None:
            assert isinstance(pl_module, DiffusionModule)
            self._images += len(pl_module.batch_of(batch).x0) * trainer.world_size
        before = self._count
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if self._count > before:
            self._images = 0

    def _move(self, averages: list[Tensor], weights: list[Tensor], _: Tensor | int) -> None:
        """Move averages towards the weights: what `AveragedModel` calls for each data type."""
        decay = self.decay_at(self._count, self._images)
        torch._foreach_lerp_(averages, weights, 1.0 - decay)

    @property
    def _count(self) -> int:
        """Updates so far; the first one copies the weights."""
        copy = averaged_model(self)
        return 0 if copy is None else int(copy.n_averaged)

    # ------------------------------------------------------------------ swapping

    @property
    def average(self) -> GaussianDiffusion | None:
        """The averaged model; None where there is none, or where it is in the module now."""
        copy = averaged_model(self)
        if copy is None or not self._count or self._swapped:
            return None
        return copy.module.diffusion  # type: ignore[return-value]

    @property
    def swapped(self) -> bool:
        """Whether the average is in the module now, and the raw weights in its place."""
        return self._swapped

    def swap_in(self, module: pl.LightningModule) -> None:
        """Put the average into the module; no effect if it is there, or if there is none."""
        if self._count and not self._swapped:
            swap_average(self, module)
            self._swapped = True

    def swap_out(self, module: pl.LightningModule) -> None:
        """Put the raw weights back; no effect if they are there."""
        if self._swapped:
            swap_average(self, module)
            self._swapped = False

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the average in."""
        self.swap_in(pl_module)

    def on_validation_epoch_start(self, *args: Any) -> None:
        """Nothing: the average is in place."""

    def on_validation_epoch_end(self, *args: Any) -> None:
        """Nothing: the hooks after this one see the average too."""

    def on_sanity_check_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the raw weights back after the validation before the training."""
        self.swap_out(pl_module)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        """Put the raw weights back after a validation within an epoch."""
        self.swap_out(pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the raw weights back after a validation at the end of an epoch."""
        self.swap_out(pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the average in the module, if there is one."""
        self.swap_out(pl_module)
        if self._count:
            super().on_train_end(trainer, pl_module)

    # ------------------------------------------------------------------ checkpoints

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Name averaged and raw weights in a checkpoint."""
        copy = averaged_model(self)
        if copy is None or not self._count:
            return
        in_module, in_copy = checkpoint["state_dict"], copy.module.state_dict()
        raw, average = (in_copy, in_module) if self._swapped else (in_module, in_copy)
        checkpoint["state_dict"], checkpoint["current_model_state"] = average, raw
        checkpoint["averaging_state"] = {"count": self._count, "images": self._images}

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Take up averaged and raw weights where a run left them."""
        copy = averaged_model(self)
        if copy is None:
            return
        copy.module.load_state_dict(checkpoint["state_dict"])
        if "current_model_state" in checkpoint:
            state = checkpoint["averaging_state"]
            copy.n_averaged.fill_(int(state["count"]))
            self._images = int(state.get("images", 0))
            pl_module.load_state_dict(checkpoint["current_model_state"])
