"""How good samples are, measured while a model trains."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from annotated_types import Ge
from lightning.pytorch import Trainer
from torch import Tensor

from diffusion_lab.errors import ConfigError
from diffusion_lab.metrics.catalog import LOGGED
from diffusion_lab.ranges import Count, Seed, checked
from diffusion_lab.sampling.pipeline import Guidance
from diffusion_lab.sampling.sampler import Sampler
from diffusion_lab.training.callbacks.sampling_callbacks import SamplingCallback
from diffusion_lab.training.module import DiffusionModule
from diffusion_lab.training.trainer_state import by_steps, validates_training

QuickScorer = Callable[[Tensor, Tensor | None], Mapping[str, Any]]


class SampleMetrics(SamplingCallback):
    """Scores samples of the averaged weights after validations.

    Logs val/agreement (share of samples that a classifier assigns to the requested class; models
    with classes only), val/fd_cnn (Fréchet distance to the training images in the features of a
    small classifier; it is no FID) and val/fd_ratio (over that of the first test images, which need
    not be in random order: even real images may score below 1, see `evaluate`); of points
    val/sw_ratio (sliced Wasserstein distance, over that of real points). Scores of different
    `num_samples` do not compare. All processes draw, the first one scores, all log the same.

    `scorer` is called before training, as scorer(data module, progress=function), and returns a
    function of samples and labels that computes the metrics, see `metrics.quick`.
    """

    key = "sample_metrics"

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
        super().__init__(num_samples, seed, sampler, guidance, batch_size)
        self.scorer = scorer
        self.every_n_epochs = every_n_epochs
        self._score: QuickScorer | None = None
        self._logged: frozenset[str] | None = None

    @property
    def promised(self) -> frozenset[str]:
        """Metrics that are logged, or may be once the first samples are scored."""
        if self.every_n_epochs is None:
            return frozenset()
        return frozenset(LOGGED) if self._logged is None else self._logged

    def check(self, trainer: Trainer, module: DiffusionModule) -> None:
        """Raise ValueError where the module cannot draw samples, or nothing compares with them."""
        if self.every_n_epochs is None:
            return
        if not module.diffusion.denoises:
            raise ValueError("a classifier draws no samples; leave every_n_epochs=null")
        if self.sampler is None and module.drawing.sampler is None:
            raise ValueError("the module has no sampler to draw samples with; give one")
        super().check(trainer, module)
        if getattr(trainer, "datamodule", None) is None:
            raise ValueError("there is no data module, with whose data samples are compared")

    def on_train_start(self, trainer: Trainer, pl_module: DiffusionModule) -> None:
        """Make the scorer, while gradients are enabled.

        Raises:
            ConfigError: No validation of the run falls on `every_n_epochs`.
        """
        if self.every_n_epochs is None:
            return
        never = _never_scored(trainer, self.every_n_epochs)
        if never:
            text = f"callbacks.sample_metrics.every_n_epochs={self.every_n_epochs}: {never}"
            raise ConfigError(text)
        if trainer.is_global_zero and self._score is None:
            self._score = self.scorer(trainer.datamodule, progress=_say_once)  # type: ignore[attr-defined]

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: DiffusionModule) -> None:
        """Draw, score and log, if it is due."""
        every = self.every_n_epochs
        due = every is not None and (trainer.current_epoch + 1) % every == 0
        if not due or not validates_training(trainer):
            return
        samples = self.sample(trainer, pl_module)
        own = self._metrics(samples, pl_module) if trainer.is_global_zero else None
        metrics: Any = trainer.strategy.broadcast(own)
        if isinstance(metrics, str):
            warnings.warn(f"callbacks.sample_metrics: not scored: {metrics}", stacklevel=2)
            return
        self._logged = frozenset(metrics)
        pl_module.log_dict(metrics, sync_dist=True)

    def _metrics(self, samples: Tensor, module: DiffusionModule) -> dict[str, float] | str:
        """Metrics by logged name; or, where samples cannot be scored, why."""
        assert self._score is not None
        if not bool(samples.isfinite().all()):
            return "samples hold values that are not finite, so the model has diverged"
        scored = self._score(samples.cpu(), self.labels(module))
        values = {name: scored.get(row.name) for name, row in LOGGED.items()}
        return {name: float(value) for name, value in values.items() if value is not None}


def _never_scored(trainer: Trainer, every: int) -> str | None:
    """Why no validation of the run falls on every so many epochs; None if one does."""
    if not trainer.enable_validation:
        return "samples are scored after validations, and this run has none"
    if by_steps(trainer) or trainer.max_epochs is None:
        return None
    validated = trainer.check_val_every_n_epoch or 1
    first = math.lcm(every, validated)
    if not 0 < trainer.max_epochs < first:
        return None
    return (
        f"with a validation every {validated} epochs (trainer.check_val_every_n_epoch) samples "
        f"would first be scored after epoch {first} of {trainer.max_epochs}; change one of the two"
    )


def _say_once(step: int, steps: int, loss: float) -> None:
    """Say, once, what training waits for."""
    if step == 1:
        print("training a classifier that samples are scored with, once ...", flush=True)
