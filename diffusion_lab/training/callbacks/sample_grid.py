"""A grid of samples from fixed noise, once an epoch."""

from __future__ import annotations

from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from diffusion_lab.sampling.sampler import Guidance, Sampler
from diffusion_lab.training.loggers import log_images
from diffusion_lab.training.module import DiffusionModule


class SampleGrid(Callback):
    """Draws the same images after every validation: same noise, same classes, averaged weights.

    Writes samples/epoch_001.png, epoch_002.png, ... to the run's folder and hands the picture to
    the loggers under the key "samples". A class-conditional model draws its classes in turn.

    Args:
        run_dir: The run's folder.
        num_samples: Images of a grid, at least 1.
        columns: Images a row; null: one column a class, or 10 without classes.
        every_n_epochs: Draw after every so many epochs.
        seed: Seed of the noise; the run's own seed has no effect, so that runs can be compared.
        scale: Side of the square that a pixel becomes.
        sampler: In place of the module's own.
        guidance: In place of the module's own.

    Raises:
        ValueError: a number below 1.
    """

    def __init__(
        self,
        run_dir: str | Path,
        num_samples: int = 100,
        columns: int | None = None,
        every_n_epochs: int = 1,
        seed: int = 0,
        scale: int = 2,
        sampler: Sampler | None = None,
        guidance: Guidance | None = None,
    ) -> None:
        sizes = {"num_samples": num_samples, "every_n_epochs": every_n_epochs, "scale": scale}
        for name, value in sizes.items():
            if value < 1:
                raise ValueError(f"callbacks.samples.{name}={value} must be at least 1")
        self.folder = Path(run_dir) / "samples"
        self.num_samples = num_samples
        self.columns = columns
        self.every_n_epochs = every_n_epochs
        self.seed = seed
        self.scale = scale
        self.sampler = sampler
        self.guidance = guidance
        self._drawn_at = -1

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: DiffusionModule) -> None:
        """Draw, where an epoch is due."""
        due = (trainer.current_epoch + 1) % self.every_n_epochs == 0
        if due and not trainer.sanity_checking and trainer.state.fn == "fit":
            self.draw(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: DiffusionModule) -> None:
        """Draw the final weights, if the last validation was not of them."""
        if trainer.global_step and self._drawn_at != trainer.global_step:
            self.draw(trainer, pl_module, epoch=max(1, trainer.current_epoch))

    def draw(
        self, trainer: pl.Trainer, module: DiffusionModule, epoch: int | None = None
    ) -> Path | None:
        """Draw one grid now; gives its file, on the first process only."""
        self._drawn_at = trainer.global_step
        if not trainer.is_global_zero:
            return None
        from diffusion_lab.reporting.grids import image_grid, save_picture

        label = None if module.num_classes is None else "all"
        with trainer.precision_plugin.forward_context():
            images = module.sample(
                self.num_samples,
                label,
                sampler=self.sampler,
                guidance=self.guidance,
                seed=self.seed,
            )
        columns = self.columns or module.num_classes or 10
        picture = image_grid(images, columns=min(columns, 20), scale=self.scale)
        number = trainer.current_epoch + 1 if epoch is None else epoch
        path = save_picture(self.folder / f"epoch_{number:03d}.png", picture)
        log_images(trainer.loggers, "samples", picture, trainer.global_step - 1)
        return path
