"""Samples that a run draws again and again, from the same noise; as grids, and as a final table."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from torch import Tensor

from diffusion_lab.errors import ConfigError
from diffusion_lab.generate.labels import expand_labels
from diffusion_lab.pixels import refuse_shape
from diffusion_lab.ranges import Count, Natural, Seed, checked
from diffusion_lab.sampling.pipeline import Guidance
from diffusion_lab.sampling.sampler import Sampler
from diffusion_lab.training.ema import EMA
from diffusion_lab.training.loggers import log_images, log_table, takes_tables
from diffusion_lab.training.module import DiffusionModule
from diffusion_lab.training.trainer_state import by_steps, callback_of, validates_training


class SamplingCallback(Callback):
    """Draws samples from fixed noise, all classes in turn, so that runs can be compared.

    The seed is the callback's own; conditions other than the class are null.

    A `sampler` and a `guidance` replace the module's own. Messages begin with `key`, the
    callback's entry in conf/callbacks.
    """

    key = "samples"

    def __init__(
        self,
        num_samples: int,
        seed: int,
        sampler: Sampler | None = None,
        guidance: Guidance | None = None,
        batch_size: int = 256,
    ) -> None:
        self.num_samples, self.seed, self.batch_size = num_samples, seed, batch_size
        self.sampler, self.guidance = sampler, guidance

    def setup(self, trainer: Trainer, pl_module: DiffusionModule, stage: str) -> None:
        """Check that samples can be drawn, before any training.

        Raises:
            ConfigError: They cannot.
        """
        if stage != "fit":
            return
        try:
            self.check(trainer, pl_module)
        except ValueError as error:
            raise ConfigError(f"callbacks.{self.key}: {error}") from None

    def check(self, trainer: Trainer, module: DiffusionModule) -> None:
        """Raise ValueError where the callback has a sampler that does not suit the module."""
        if self.sampler is not None:
            self.sampler.check(module.diffusion.schedule)

    def sample(
        self, trainer: Trainer, module: DiffusionModule, num_samples: int | None = None
    ) -> Tensor:
        """Draw under the run's precision, each process its share; every process must call this.

        Every process gets all samples, and they are the same on any number of processes, since
        image k depends on (seed, k) alone.
        """
        count = self.num_samples if num_samples is None else num_samples
        world, rank = trainer.world_size, module.global_rank
        share = -(-count // world)
        with trainer.precision_plugin.forward_context():
            own = module.sample(
                share,
                None if module.num_classes is None else "all",
                sampler=self.sampler,
                guidance=self.guidance,
                seed=self.seed,
                batch_size=self.batch_size,
                first=rank * share,
            )
        if world == 1:
            return own
        # Gathering needs equal shares; what goes beyond `count` is left out.
        gathered = module.all_gather(own)
        assert isinstance(gathered, Tensor)
        return gathered.flatten(0, 1)[:count]

    def labels(self, module: DiffusionModule) -> Tensor | None:
        """The class of each sample; None where there are no classes."""
        classes = module.num_classes
        return None if classes is None else expand_labels("all", self.num_samples, classes)


class SampleGrid(SamplingCallback):
    """Draws a grid after every validation, and of the final weights.

    Writes samples/epoch_001.png, epoch_002.png, ... to the run's folder, or step_001000.png where
    validations are counted in steps (trainer.check_val_every_n_epoch=null, or val_check_interval
    within an epoch), and hands the picture to the loggers under the key "samples".

    Grids show averaged weights. Where weights are averaged, the first `raw` images are drawn with
    raw weights too: samples/raw/epoch_001.png, "samples_raw" to the loggers, and the two beside
    each other under "samples/averaged_and_raw". The grid of the final weights has raw images only
    if the last validation was of these weights: after training only the average is left. Points
    are shown as one cloud, so as many are drawn with raw weights as with averaged ones.
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
        super().__init__(num_samples, seed, sampler, guidance)
        self.folder = Path(run_dir) / "samples"
        self.columns, self.scale = columns, scale
        self.every_n_epochs = every_n_epochs
        self.at = None if at is None else frozenset(at)
        self.raw = raw
        self._drawn_at = -1

    def check(self, trainer: Trainer, module: DiffusionModule) -> None:
        """Raise ValueError for samples that are neither images nor points, or a bad sampler."""
        refuse_shape(module.shape)
        super().check(trainer, module)

    def on_train_start(self, trainer: Trainer, pl_module: DiffusionModule) -> None:
        """Raise ConfigError for numbers in `at` that no validation follows."""
        if self.at is None or trainer.val_check_batch is None or not trainer.enable_validation:
            return
        if by_steps(trainer):
            unit, every = "step", trainer.val_check_batch / trainer.accumulate_grad_batches
        else:
            unit, every = "epoch", float(trainer.check_val_every_n_epoch or 1)
        never = sorted(number for number in self.at if number % every)
        if never:
            raise ConfigError(
                f"callbacks.samples.at={never}: there is a validation, and so a grid, after every "
                f"{every:g} {unit}s only; change trainer.val_check_interval (steps) or "
                "trainer.check_val_every_n_epoch, or take multiples"
            )

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: DiffusionModule) -> None:
        """Draw a grid if one is due."""
        epoch = trainer.current_epoch + 1
        if self.at is None:
            due = epoch % self.every_n_epochs == 0
        else:
            due = (trainer.global_step if by_steps(trainer) else epoch) in self.at
        if due and validates_training(trainer):
            self.draw(trainer, pl_module, epoch)

    def on_train_end(self, trainer: Trainer, pl_module: DiffusionModule) -> None:
        """Draw the final weights, unless the last grid shows them."""
        if trainer.global_step and self._drawn_at != trainer.global_step:
            self.draw(trainer, pl_module, max(1, trainer.current_epoch))

    def draw(self, trainer: Trainer, module: DiffusionModule, epoch: int) -> Path | None:
        """Draw one grid now, on every process; returns its file, on the first process only."""
        self._drawn_at = trainer.global_step
        samples = self.sample(trainer, module)
        raw = self._raw_samples(trainer, module)
        if not trainer.is_global_zero:
            return None
        step = trainer.global_step
        name = f"step_{step:06d}.png" if by_steps(trainer) else f"epoch_{epoch:03d}.png"
        path = self._show(trainer, module, "samples", samples, self.folder / name)
        if raw is not None:
            self._show(trainer, module, "samples_raw", raw, self.folder / "raw" / name)
            self._compare(trainer, module, samples[: len(raw)], raw)
        return path

    def _raw_samples(self, trainer: Trainer, module: DiffusionModule) -> Tensor | None:
        """The first samples with raw weights; None where none are wanted or none are averaged."""
        averaging = callback_of(trainer, EMA)
        if not self.raw or averaging is None or not averaging.swapped:
            return None
        points = len(module.shape) == 1
        averaging.swap_out(module)
        try:
            return self.sample(trainer, module, None if points else min(self.raw, self.num_samples))
        finally:
            averaging.swap_in(module)

    def _show(
        self, trainer: Trainer, module: DiffusionModule, key: str, samples: Tensor, path: Path
    ) -> Path:
        """Write samples as a picture, and hand it to the loggers."""
        from diffusion_lab.figures.pictures import save_picture

        grid = self._picture(module, samples)
        log_images(trainer.loggers, key, grid, trainer.global_step - 1)
        return save_picture(path, grid)

    def _compare(
        self, trainer: Trainer, module: DiffusionModule, averaged: Tensor, raw: Tensor
    ) -> None:
        """Hand samples from the same noise with averaged and raw weights to the loggers."""
        from diffusion_lab.figures.grids import tiled, titled

        pictures = [
            titled(self._picture(module, samples), title)
            for samples, title in ((averaged, "averaged weights"), (raw, "raw weights"))
        ]
        pair = tiled(pictures, columns=2, gap=12)
        log_images(trainer.loggers, "samples/averaged_and_raw", pair, trainer.global_step - 1)

    def _picture(self, module: DiffusionModule, samples: Tensor) -> Any:
        from diffusion_lab.figures.grids import class_columns
        from diffusion_lab.figures.samples import samples_image

        columns = self.columns or class_columns(module.num_classes)
        return samples_image(samples, columns=columns, scale=self.scale)


class FinalSamples(SamplingCallback):
    """Logs a table of final samples: image, requested class, predicted class, confidence.

    It must come after the averaging callback, whose weights it draws with. `reader` maps the data
    module to a classifier, a function of samples (N, C, H, W) that returns the probability of each
    class (N, K), or to None where there is none (`metrics.quick.cached_predictor`): then two
    columns stay empty, and one line says so. No classifier is trained here. Nothing is drawn if no
    logger takes tables, or if the model draws no images. Image k is that of a grid of that seed.
    """

    key = "final_samples"

    @checked
    def __init__(
        self,
        reader: Callable[[Any], Callable[[Tensor], Tensor] | None],
        num_samples: Count = 20,
        seed: Seed = 0,
    ) -> None:
        super().__init__(num_samples, seed)
        self.reader = reader

    def on_train_end(self, trainer: Trainer, pl_module: DiffusionModule) -> None:
        """Draw on every process, classify and log on the first."""
        if not (trainer.global_step and takes_tables(trainer.loggers) and pl_module.draws_images):
            return
        samples = self.sample(trainer, pl_module).cpu()
        if not trainer.is_global_zero:
            return
        labels = self.labels(pl_module)
        requested = [None] * len(samples) if labels is None else labels.tolist()
        predicted = self._predicted(trainer, samples)
        self._log(trainer, samples, [(r, *p) for r, p in zip(requested, predicted, strict=True)])

    def _predicted(self, trainer: Trainer, samples: Tensor) -> list[tuple[Any, Any]]:
        """Class and its probability, sample by sample; None where there is no classifier."""
        unknown = [(None, None)] * len(samples)
        data = getattr(trainer, "datamodule", None)
        try:
            names = getattr(data, "class_names", None)
            if names is not None and len(names) < 2:
                return unknown
            reader = None if data is None else self.reader(data)
            if reader is not None:
                best = reader(samples).max(1)
                return list(zip(best.indices.tolist(), best.values.tolist(), strict=True))
        except Exception as error:
            warnings.warn(
                f"callbacks.final_samples.reader failed, so no class is predicted: "
                f"{type(error).__name__}: {error}",
                stacklevel=2,
            )
            return unknown
        print(
            "final_samples: no classifier of this data is kept, so no class is predicted; "
            "`python -m diffusion_lab.evaluate ckpt=RUN` trains and keeps one"
        )
        return unknown

    @staticmethod
    def _log(trainer: Trainer, samples: Tensor, rows: list[tuple[Any, ...]]) -> None:
        """Log the table, and a picture with the same words under each sample."""
        from diffusion_lab.figures.grids import image_grid

        step = trainer.global_step - 1
        images = [image_grid(sample[None], columns=1, scale=2, gap=0) for sample in samples]
        cells = [[image, *row] for image, row in zip(images, rows, strict=True)]
        columns = ("image", "requested", "predicted", "confidence")
        log_table(trainer.loggers, "final_samples", columns, cells, step)
        sheet = image_grid(
            samples, columns=10, scale=2, labels=[_words_below(*row) for row in rows]
        )
        log_images(trainer.loggers, "samples/final", sheet, step)


def _words_below(requested: int | None, predicted: int | None, confidence: float | None) -> str:
    """As in "3 > 8 99%", where a three was requested and an eight is predicted."""
    parts = [] if requested is None else [str(requested)]
    if predicted is not None and confidence is not None:
        parts.append(f"> {predicted} {100 * confidence:.0f}%")
    return " ".join(parts)
