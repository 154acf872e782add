"""DiffusionModule: trains, validates and samples one diffusion model."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MeanMetric

from diffusion_lab.checkpoints.format import description, refuse_other_weights
from diffusion_lab.checkpoints.starting import WarmStart, load_start
from diffusion_lab.diffusion.compatibility import terminal_mismatch
from diffusion_lab.diffusion.conditions import Condition
from diffusion_lab.diffusion.model import GaussianDiffusion
from diffusion_lab.diffusion.noise import Noise
from diffusion_lab.diffusion.objectives import Batch, Objective, TrainContext
from diffusion_lab.diffusion.parameterizations import Parameterization
from diffusion_lab.diffusion.schedules import Schedule
from diffusion_lab.errors import CheckpointError
from diffusion_lab.generate.generation import Drawing
from diffusion_lab.generate.trained_model import Generates
from diffusion_lab.ranges import Count, Natural, Positive, Seed, Share, checked
from diffusion_lab.sampling.constraints import X0Constraint
from diffusion_lab.sampling.pipeline import Guidance
from diffusion_lab.sampling.sampler import Sampler
from diffusion_lab.training.clipping import clip, unscaled_optimizer
from diffusion_lab.training.reproducibility import KeyedNoise, seed_dropout
from diffusion_lab.training.trainer_state import validate_at_the_end
from diffusion_lab.training.validation import LossByLevel, rows_of_processes

AnyBatch = Batch | Mapping[str, Tensor] | tuple[Tensor, Tensor | None]
"""What a loader may give: images and class numbers, or a mapping with `x0` and the fields of a
`Condition` that there are."""


class DiffusionModule(Generates, pl.LightningModule):
    """A denoiser, the mathematics around it, and how it is trained.

    Batches are (x0 (B, *shape) float in [-1, 1], label (B,) int64 or None), or mappings, see
    `AnyBatch`. The loss of a step is the objective's mean over the batch. Times, noise, dropped
    conditions and the network's dropout are keyed by (seed, optimizer step, micro-batch), see
    `reproducibility`.

    Args:
        denoiser: The network; see `GaussianDiffusion` for its contract.
        schedule: t -> (alpha, sigma).
        parameterization: What the network predicts.
        objective: Timestep distribution, weight and error.
        optimizer: Parameters -> optimizer. None: the module can sample, but not be trained.
        lr_scheduler: (optimizer, total_steps=number) -> scheduler, stepped once an optimizer
            step; None keeps the rate.
        sampler: Default sampler; None leaves it to each call.
        guidance: Default guidance; None is the conditional model as it is.
        constraint: Applied to every x0-hat while sampling, e.g. `Clip()`.
        teacher: Gives a trained model to distil from, e.g. `loading.StoredModel`; no part of the
            checkpoints.

    conf/model/default.yaml explains the other arguments.

    Attributes:
        average: Gives the averaged model, or None; set by a callback that averages the weights.

    Raises:
        ArgumentError: A number out of range.
        ValueError: Arguments that do not fit each other.
    """

    @checked
    def __init__(
        self,
        denoiser: nn.Module,
        schedule: Schedule,
        parameterization: Parameterization,
        objective: Objective,
        *,
        shape: Sequence[Count],
        optimizer: Callable[..., Optimizer] | None = None,
        lr_scheduler: Callable[..., LRScheduler] | None = None,
        num_classes: Count | None = None,
        label_dropout: Share = 0.1,
        sampler: Sampler | None = None,
        guidance: Guidance | None = None,
        constraint: X0Constraint | None = None,
        data_mean: float = 0.0,
        data_std: Positive = 1.0,
        input_scaling: bool = False,
        matched_prior: bool = False,
        clip_samples: bool = False,
        seed: Seed = 0,
        level_images: Natural = 512,
        teacher: Callable[[], GaussianDiffusion] | None = None,
    ) -> None:
        super().__init__()
        _check(denoiser, shape, num_classes)
        self.diffusion = GaussianDiffusion(
            denoiser, schedule, parameterization, data_mean, data_std, input_scaling, matched_prior
        )
        if sampler is not None:
            sampler.check(schedule)
        objective.check(schedule)
        mismatch = terminal_mismatch(schedule)
        if mismatch and not matched_prior:
            warnings.warn(mismatch, stacklevel=1)
        self.objective = objective
        self.make_optimizer = optimizer
        self.make_lr_scheduler = lr_scheduler
        self.label_dropout = label_dropout
        self.drawing = Drawing(
            tuple(shape), num_classes, sampler, guidance, constraint, clip_samples
        )
        self.seed = seed
        self.teacher = teacher
        self.average: Callable[[], GaussianDiffusion | None] | None = None
        self.by_level = LossByLevel(level_images)
        self.scores: dict[str, MeanMetric] = nn.ModuleDict()  # type: ignore[assignment]
        self.run_config: dict[str, Any] = {}
        self.run_choices: dict[str, str] = {}
        self.init_from: dict[str, Any] | None = None
        self._loader_state: dict[str, Any] | None = None

    # ------------------------------------------------------------------ training

    def on_fit_start(self) -> None:
        """Tell the loggers the configuration."""
        for logger in self.loggers:
            logger.log_hyperparams(self.run_config)

    def on_train_start(self) -> None:
        """Validate at the end, and let a resumed epoch go on with the batch it would see next.

        Lightning restores a loader's position itself, but not where the loader was asked for its
        length before, as `configure_optimizers` does.
        """
        validate_at_the_end(self.trainer)
        if self._loader_state is not None:
            loader: Any = self.trainer.train_dataloader
            loader.load_state_dict(self._loader_state)
            self._loader_state = None

    def training_step(self, batch: AnyBatch, batch_idx: int) -> Tensor:
        """Mean loss of a batch; logged as train/loss every `log_every_n_steps` steps."""
        batch = self.batch_of(batch)
        step = self.trainer.global_step
        keys = ("train", self.seed, step, batch_idx % self.trainer.accumulate_grad_batches)
        seed_dropout(batch.x0.device, *keys, self.global_rank)
        loss = self._training_loss(batch, keys)
        if self._logs_this_step():
            self.log("train/loss", loss.detach(), batch_size=len(batch.x0))
            self.log("train/lr", self.trainer.optimizers[0].param_groups[0]["lr"])
        return loss

    def batch_of(self, batch: AnyBatch) -> Batch:
        """What a loader gave, with the class numbers left out that the model is trained without."""
        if not isinstance(batch, Batch):
            given: dict[str, Any]
            if isinstance(batch, Mapping):
                x0, given = batch["x0"], {k: v for k, v in batch.items() if k != "x0"}
                unknown = given.keys() - set(Condition._fields)
                if unknown:
                    raise ValueError(
                        f"batch: {', '.join(sorted(unknown))} is no condition; a mapping has x0 "
                        f"and some of {', '.join(Condition._fields)}"
                    )
            else:
                x0, given = batch[0], {"label": batch[1]}
            batch = Batch(x0, Condition(**given))
        if self.num_classes is None:
            return batch._replace(given=batch.given._replace(label=None))
        return batch

    def _logs_this_step(self) -> bool:
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        return bool(every) and (self.trainer.global_step + 1) % every == 0

    def _training_loss(self, batch: Batch, keys: tuple[int | str, ...]) -> Tensor:
        """Mean loss of a batch, its noise bound to the keys."""
        batch = batch._replace(given=self._with_dropout(batch.given, len(batch.x0), keys))
        context = self._context(self._noise(*keys), batch.x0.device)
        return self.objective(self.diffusion, batch, context).mean()

    def _context(self, noise: Noise, device: torch.device) -> TrainContext:
        """What the objective may use beside the batch."""
        average = None if self.average is None else self.average()
        teacher = None if self.teacher is None else self.teacher()
        if teacher is not None and next(teacher.parameters()).device != device:
            teacher.to(device)
        return TrainContext(noise, self.trainer.global_step, average, teacher)

    def on_validation_epoch_start(self) -> None:
        """Begin to collect scores."""
        for metric in (self.by_level, *self.scores.values()):
            metric.reset()

    def validation_step(self, batch: AnyBatch, batch_idx: int) -> None:
        """Collect val/loss and what else the objective scores, with the same noise in every run."""
        batch = self.batch_of(batch)
        counts = rows_of_processes(self, len(batch.x0))
        noise = self._noise("validation", batch_idx, counts=counts)
        context = self._context(noise, batch.x0.device)
        for name, score in self.objective.scores(self.diffusion, batch, context).items():
            if name not in self.scores:
                # NaN stays NaN; torchmetrics 1.9 loses the weights with nan_strategy="disable"
                self.scores[name] = MeanMetric(nan_strategy=float("nan")).to(self.device)
            self.scores[name].update(score.mean(), weight=len(score))
        if self._measures_levels:
            self.by_level.update(self.diffusion, batch, counts, self.global_rank)

    @property
    def _measures_levels(self) -> bool:
        return self.by_level.images > 0 and self.diffusion.denoises

    def on_validation_epoch_end(self) -> None:
        """Log the means over all processes: val/loss ..., val/loss_by_level/00-10 ... 90-100."""
        values: dict[str, Any] = {
            f"val/{name}": mean.compute() for name, mean in self.scores.items()
        }
        if self._measures_levels:
            values |= self.by_level.compute()
        self.log_dict(values, sync_dist=True)

    def configure_optimizers(self) -> Any:
        """The optimizer, and its scheduler over all steps of the training."""
        if self.make_optimizer is None:
            raise ValueError(
                "optimizer=None: give an optimizer, e.g. partial(torch.optim.AdamW, lr=2e-3)"
            )
        scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        optimizer = unscaled_optimizer(self.make_optimizer, self.parameters(), scaled)
        if self.make_lr_scheduler is None:
            return optimizer
        total = self.trainer.estimated_stepping_batches
        if not 0 < total < float("inf"):
            raise ValueError(
                f"lr_scheduler needs a training of known length, not {total} steps: set "
                "trainer.max_epochs or trainer.max_steps, or use lr_scheduler=none"
            )
        scheduler = self.make_lr_scheduler(optimizer, total_steps=int(total))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip, see `clipping`; log train/grad_norm, as it was before."""
        logs = self._logs_this_step()
        norm = clip(self.parameters(), gradient_clip_val, gradient_clip_algorithm, logs)
        if norm is not None and logs:
            self.log("train/grad_norm", norm.detach())

    def _noise(self, *keys: int | str, counts: Sequence[int] | None = None) -> KeyedNoise:
        world = self.trainer.world_size
        return KeyedNoise(*keys, rank=self.global_rank, world_size=world, counts=counts)

    def _with_dropout(self, given: Condition, rows: int, keys: tuple[int | str, ...]) -> Condition:
        """The conditions, those of each row left out with probability `label_dropout`."""
        if given.empty or not self.label_dropout:
            return given
        kept = self._noise("labels", *keys).uniform(rows) >= self.label_dropout
        return given.where(kept, given.null(self.num_classes))

    def describe_run(self, config: dict[str, Any], choices: dict[str, str]) -> None:
        """State the resolved configuration, plain, and the chosen option of each config group."""
        self.run_config, self.run_choices = config, choices

    def start_from(self, start: WarmStart) -> None:
        """Take the weights of another run; optimizer and steps begin anew.

        Raises:
            CheckpointError: They do not fit, see `checkpoints.starting`.
        """
        load_start(start, self)
        self.init_from = start.record

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add `checkpoint["diffusion_lab"]`; see `checkpoints.format` for the format."""
        source = getattr(getattr(self.trainer, "datamodule", None), "source", None)
        averaged = "current_model_state" in checkpoint
        checkpoint["diffusion_lab"] = description(
            self.run_config, self.run_choices, source, self.trainer.world_size, averaged
        )
        if self.init_from:
            checkpoint["diffusion_lab"]["init_from"] = self.init_from
        loader: Any = self.trainer.train_dataloader
        if hasattr(loader, "state_dict"):
            checkpoint["diffusion_lab"]["loader"] = loader.state_dict()
        learned = self.objective.learned_state()
        if learned:
            checkpoint["diffusion_lab"]["objective"] = learned

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another network, or one whose averaging would be lost."""
        refuse_other_weights(checkpoint, self.state_dict(), self.run_config)
        self.init_from = checkpoint["diffusion_lab"].get("init_from")
        self._loader_state = checkpoint["diffusion_lab"].get("loader")
        learned = checkpoint["diffusion_lab"].get("objective")
        if learned:
            self.objective.load_learned_state(learned)
        if "current_model_state" in checkpoint and self.average is None:
            raise CheckpointError(
                "this checkpoint was trained with averaged weights (EMA), and resuming it without "
                "would go on from the average: leave callbacks.ema as it was"
            )


def _check(denoiser: nn.Module, shape: Sequence[int], num_classes: int | None) -> None:
    """Refuse arguments that do not fit, see `DiffusionModule`."""
    if not shape:
        raise ValueError(f"shape={list(shape)} must be sizes of at least 1, e.g. [1, 28, 28]")
    own = getattr(denoiser, "num_classes", num_classes)
    if own != num_classes:
        raise ValueError(
            f"denoiser.num_classes={own} must equal num_classes={num_classes} of the data"
        )
