"""How good samples are, measured while a model trains."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import lightning.pytorch as pl
import torch
from annotated_types import Ge
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from diffusion_lab.generate.labels import expand_labels
from diffusion_lab.metrics.catalog import LOGGED
from diffusion_lab.ranges import Count, Seed, checked
from diffusion_lab.sampling.sampler import Guidance, Sampler
from diffusion_lab.training.callbacks.fixed_samples import every_class, fixed_samples
from diffusion_lab.training.module import DiffusionModule
from diffusion_lab.training.trainer_state import by_steps

QuickScorer = Callable[[Tensor, Tensor | None], Mapping[str, Any]]


class SampleMetrics(Callback):
    """Scores samples after validations: same noise, same classes, averaged weights.

    Logs val/agreement (share of samples read as the class asked for; models with classes only),
    val/fd_cnn (Fréchet distance to the training images in the features of a small classifier; it is
    no FID) and val/fd_ratio (over that of the first test images, which need not be in random
    order: a perfect sampler may be below 1, see `evaluate`); of points val/sw_ratio (sliced
    Wasserstein distance, over that of real points). Figures of different `num_samples` do not
    compare. All processes draw, the first one scores, all log the same.

    Args:
        scorer: (data module, progress=function) -> function of samples and labels that gives the
            figures, see `metrics.quick`; called before training.
        every_n_epochs: Score after the validations of every so many epochs; null: never.
        num_samples: How many samples, at least 2.
        seed: Seed of the noise; the run's own seed has no effect, so that runs can be compared.
        batch_size: Samples drawn at a time.
        sampler: In place of the module's own.
        guidance: In place of the module's own.

    Raises:
        ArgumentError: a number below its smallest.
    """

    @checked
    def __init__(
        self,
        scorer: Callable[..., QuickScorer],
        every_n_epochs: Count | None = None,
        num_samples: Annotated[int, Ge(2)] = 500,
        seed: Seed = 0,
        batch_size: Count = 250,
        sampler: Sampler | None = None,
        guidance: Guidance | None = None,
    ) -> None:
        self.scorer = scorer
        self.every_n_epochs = every_n_epochs
        self.num_samples = num_samples
        self.seed = seed
        self.batch_size = batch_size
        self.sampler = sampler
        self.guidance = guidance
        self._score: QuickScorer | None = None
        self._logged: frozenset[str] | None = None

    @property
    def promised(self) -> frozenset[str]:
        """Metrics that are logged, or may be once the first samples are scored."""
        if self.every_n_epochs is None:
            return frozenset()
        return frozenset(LOGGED) if self._logged is None else self._logged

    def setup(self, trainer: pl.Trainer, pl_module: DiffusionModule, stage: str) -> None:
        """Refuse samples that cannot be drawn, before any training."""
        if stage != "fit" or self.every_n_epochs is None:
            return
        sampler = self.sampler or pl_module.drawing.sampler
        try:
            if not pl_module.diffusion.denoises:
                raise ValueError("a classifier draws no samples; leave every_n_epochs=null")
            if sampler is None:
                raise ValueError("the module has no sampler to draw samples with; give one")
            sampler.check(pl_module.diffusion.schedule)
            if getattr(trainer, "datamodule", None) is None:
                raise ValueError("there is no data module, with whose data samples are compared")
        except ValueError as error:
            from diffusion_lab.errors import ConfigError

            raise ConfigError(f"callbacks.sample_metrics: {error}") from None

    def on_train_start(self, trainer: pl.Trainer, pl_module: DiffusionModule) -> None:
        """Make the scorer, while gradients are at hand; refuse a period that never comes."""
        if self.every_n_epochs is None:
            return
        self._refuse_never(trainer, self.every_n_epochs)
        if trainer.is_global_zero and self._score is None:
            self._score = self.scorer(trainer.datamodule, progress=_announce)  # type: ignore[attr-defined]

    @staticmethod
    def _refuse_never(trainer: pl.Trainer, every: int) -> None:
        """Refuse a period that no validation of the run falls on."""
        text = ""
        if not trainer.enable_validation:
            text = "samples are scored after validations, and this run has none"
        elif not by_steps(trainer) and trainer.max_epochs is not None:
            validated = trainer.check_val_every_n_epoch or 1
            first = math.lcm(every, validated)
            if 0 < trainer.max_epochs < first:
                text = (
                    f"with a validation every {validated} epochs "
                    "(trainer.check_val_every_n_epoch) samples would first be scored after epoch "
                    f"{first} of {trainer.max_epochs}; change one of the two"
                )
        if text:
            from diffusion_lab.errors import ConfigError

            raise ConfigError(f"callbacks.sample_metrics.every_n_epochs={every}: {text}")

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: DiffusionModule) -> None:
        """Draw, score and log, where it is due."""
        every = self.every_n_epochs
        due = every is not None and (trainer.current_epoch + 1) % every == 0
        if not due or trainer.sanity_checking or trainer.state.fn != "fit":
            return
        samples = self._samples(trainer, pl_module)
        own = self._figures(samples, pl_module) if trainer.is_global_zero else None
        figures: Any = trainer.strategy.broadcast(own)
        if isinstance(figures, str):
            warnings.warn(f"callbacks.sample_metrics: not scored: {figures}", stacklevel=2)
            return
        self._logged = frozenset(figures)
        pl_module.log_dict(figures, sync_dist=True)

    def _samples(self, trainer: pl.Trainer, module: DiffusionModule) -> Tensor:
        """The samples to be scored; every process draws its share."""
        return fixed_samples(
            trainer,
            module,
            self.num_samples,
            sampler=self.sampler,
            guidance=self.guidance,
            seed=self.seed,
            batch_size=self.batch_size,
        )

    def _figures(self, samples: Tensor, module: DiffusionModule) -> dict[str, float] | str:
        """Figures by logged name; or, where samples cannot be scored, why."""
        assert self._score is not None
        labels = expand_labels(every_class(module), self.num_samples, module.num_classes)
        if not bool(torch.isfinite(samples).all()):
            return "samples hold values that are not finite, so the model has diverged"
        scored = self._score(samples.cpu(), labels)
        found = {name: scored.get(row.name) for name, row in LOGGED.items()}
        return {name: float(value) for name, value in found.items() if value is not None}


def _announce(step: int, steps: int, loss: float) -> None:
    """Say, once, what training waits for."""
    if step == 1:
        print("training a classifier that samples are scored with, once ...", flush=True)
