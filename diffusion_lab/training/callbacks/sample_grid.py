"""A grid of samples from fixed noise after validations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from PIL.Image import Image
from torch import Tensor

from diffusion_lab.ranges import Count, Natural, Seed, checked
from diffusion_lab.sampling.pipeline import Guidance
from diffusion_lab.sampling.sampler import Sampler
from diffusion_lab.training.callbacks.fixed_samples import fixed_samples
from diffusion_lab.training.ema import EMA
from diffusion_lab.training.loggers import log_images
from diffusion_lab.training.module import DiffusionModule
from diffusion_lab.training.trainer_state import by_steps


class SampleGrid(Callback):
    """Draws the same samples after every validation: same noise, same classes, averaged weights.

    Writes samples/epoch_001.png, epoch_002.png, ... to the run's folder, or step_001000.png where
    validations are counted in steps (trainer.check_val_every_n_epoch=null, or val_check_interval
    within an epoch), and hands the picture to the loggers under the key "samples". A
    class-conditional model draws its classes in turn. The final weights are always drawn.

    Where weights are averaged, the first `raw` images are drawn from the weights as they are, too:
    samples/raw/epoch_001.png, "samples_raw" to the loggers, and the two beside each other under
    "samples/averaged_and_raw". Not of the final weights, unless the last validation was of them:
    when training has ended there is the average alone.

    Args:
        run_dir: The run's folder.
        num_samples: Samples of a grid, at least 1.
        columns: Images a row; null: columns of one class each, or 10 without classes.
        every_n_epochs: Draw after the validations of every so many epochs.
        seed: Seed of the noise; the run's own seed has no effect, so that runs can be compared.
        scale: Side of the square that a pixel becomes.
        sampler: In place of the module's own.
        guidance: In place of the module's own.
        at: Numbers of steps (of epochs, where those are counted) after which to draw, in place of
            every validation; each must be one after which there is a validation.
        raw: Images to draw from weights that are not averaged as well; 0: none. Points are shown
            as one cloud, so of them as many as of the others.

    Raises:
        ArgumentError: a number below 1, or raw below 0.
    """

    @checked
    def __init__(
        self,
        run_dir: str | Path,
        num_samples: Count = 100,
        columns: Count | None = None,
        every_n_epochs: Count = 1,
        seed: Seed = 0,
        scale: Count = 2,
        sampler: Sampler | None = None,
        guidance: Guidance | None = None,
        at: Sequence[Count] | None = None,
        raw: Natural = 0,
    ) -> None:
        self.folder = Path(run_dir) / "samples"
        self.num_samples = num_samples
        self.columns = columns
        self.every_n_epochs = every_n_epochs
        self.seed = seed
        self.scale = scale
        self.sampler = sampler
        self.guidance = guidance
        self.at = None if at is None else frozenset(at)
        self.raw = raw
        self._drawn_at = -1

    def setup(self, trainer: pl.Trainer, pl_module: DiffusionModule, stage: str) -> None:
        """Refuse samples that cannot be drawn, before any training."""
        if stage != "fit":
            return
        from diffusion_lab.errors import ConfigError
        from diffusion_lab.pixels import refuse_shape

        try:
            refuse_shape(pl_module.shape)
            if self.sampler is not None:
                self.sampler.check(pl_module.diffusion.schedule)
        except ValueError as error:
            raise ConfigError(f"callbacks.samples: {error}") from None

    def on_train_start(self, trainer: pl.Trainer, pl_module: DiffusionModule) -> None:
        """Refuse numbers in `at` that no validation follows."""
        if self.at is None or trainer.val_check_batch is None or not trainer.enable_validation:
            return
        if by_steps(trainer):
            unit, every = "step", trainer.val_check_batch / trainer.accumulate_grad_batches
        else:
            unit, every = "epoch", float(trainer.check_val_every_n_epoch or 1)
        never = sorted(number for number in self.at if number % every)
        if never:
            from diffusion_lab.errors import ConfigError

            raise ConfigError(
                f"callbacks.samples.at={never}: there is a validation, and so a grid, after every "
                f"{every:g} {unit}s only; change trainer.val_check_interval (steps) or "
                "trainer.check_val_every_n_epoch, or take multiples"
            )

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: DiffusionModule) -> None:
        """Draw, where it is due."""
        if self.at is not None:
            due = self._number(trainer, trainer.current_epoch + 1) in self.at
        else:
            due = (trainer.current_epoch + 1) % self.every_n_epochs == 0
        if due and not trainer.sanity_checking and trainer.state.fn == "fit":
            self.draw(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: DiffusionModule) -> None:
        """Draw the final weights, if the last grid was not of them."""
        if trainer.global_step and self._drawn_at != trainer.global_step:
            self.draw(trainer, pl_module, epoch=max(1, trainer.current_epoch))

    def draw(
        self, trainer: pl.Trainer, module: DiffusionModule, epoch: int | None = None
    ) -> Path | None:
        """Draw one grid now, on every process; gives its file, on the first process only."""
        self._drawn_at = trainer.global_step
        samples = self._samples(trainer, module, self.num_samples)
        raw = self._raw_samples(trainer, module)
        if not trainer.is_global_zero:
            return None
        from diffusion_lab.figures.grids import class_columns

        number = self._number(trainer, trainer.current_epoch + 1 if epoch is None else epoch)
        name = f"step_{number:06d}.png" if by_steps(trainer) else f"epoch_{number:03d}.png"
        columns = self.columns or class_columns(module.num_classes)
        path = self._keep(trainer, self.folder / name, "samples", samples, columns)
        if raw is not None:
            self._keep(trainer, self.folder / "raw" / name, "samples_raw", raw, columns)
            pair = side_by_side(samples[: len(raw)], raw, columns, self.scale)
            log_images(trainer.loggers, "samples/averaged_and_raw", pair, trainer.global_step - 1)
        return path

    def _samples(self, trainer: pl.Trainer, module: DiffusionModule, count: int) -> Tensor:
        return fixed_samples(
            trainer,
            module,
            count,
            sampler=self.sampler,
            guidance=self.guidance,
            seed=self.seed,
        )

    def _raw_samples(self, trainer: pl.Trainer, module: DiffusionModule) -> Tensor | None:
        """The first samples by weights that are not averaged; None where none are wanted or had."""
        averaged = next((c for c in trainer.callbacks if isinstance(c, EMA) and c.swapped), None)  # type: ignore[attr-defined]
        if not self.raw or averaged is None:
            return None
        wanted = self.num_samples if len(module.shape) == 1 else min(self.raw, self.num_samples)
        averaged.swap_out(module)
        try:
            return self._samples(trainer, module, wanted)
        finally:
            averaged.swap_in(module)

    def _keep(
        self, trainer: pl.Trainer, path: Path, key: str, samples: Tensor, columns: int
    ) -> Path:
        """Write samples as a picture, and hand it to the loggers."""
        from diffusion_lab.figures.grids import save_picture
        from diffusion_lab.figures.pictures import picture

        grid = picture(samples, columns=columns, scale=self.scale)
        log_images(trainer.loggers, key, grid, trainer.global_step - 1)
        return save_picture(path, grid)

    @staticmethod
    def _number(trainer: pl.Trainer, epoch: int) -> int:
        """What a grid is numbered by: the step, or the epoch."""
        return trainer.global_step if by_steps(trainer) else epoch


def side_by_side(averaged: Tensor, raw: Tensor, columns: int, scale: int) -> Image:
    """Samples from the same noise by averaged and by raw weights, as one picture.

    Args:
        averaged: Samples (N, *) by averaged weights.
        raw: The same by raw weights.
        columns: Images a row of each.
        scale: Side of the square that a pixel becomes.
    """
    from diffusion_lab.figures.margins import beside
    from diffusion_lab.figures.pictures import picture

    pictures = [picture(samples, columns=columns, scale=scale) for samples in (averaged, raw)]
    return beside(pictures, ["averaged weights", "raw weights"])
