"""A classifier of noisy images, for classifier guidance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor
from torch.nn.functional import cross_entropy

from diffusion_lab.diffusion.gaussian import marginal
from diffusion_lab.diffusion.noise import Noise
from diffusion_lab.errors import CheckpointError
from diffusion_lab.training.module import Batch, DiffusionModule
from diffusion_lab.training.validation import rows_of_processes


class NoisyClassifier(DiffusionModule):
    """log p(label | x_t) at every noise level (Dhariwal & Nichol, arXiv 2105.05233, section 4.1).

    Its network maps (x_t (B, *), c_noise (B,)) to logits (B, K); schedule and time law are those of
    the diffusion model that it will guide, and so are checkpoints, averaging, resuming and the
    keys of all noise. It has nothing to sample.
    """

    def _training_loss(
        self, x0: Tensor, label: Tensor | None, keys: tuple[int | str, ...]
    ) -> Tensor:
        """Mean cross-entropy in nats."""
        return self._loss((x0, label), self._noise(*keys))[0]

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Cross-entropy (val/loss) and share of right answers over all noise levels."""
        rows = len(batch[0])
        noise = self._noise("validation", batch_idx, counts=rows_of_processes(self, rows))
        loss, right = self._loss(batch, noise)
        size = rows * self.trainer.world_size  # see `DiffusionModule.validation_step`
        self.log("val/loss", loss, on_epoch=True, batch_size=size, sync_dist=True)
        self.log("val/accuracy", right, on_epoch=True, batch_size=size, sync_dist=True)

    def next_words(self, folder: Path) -> str:
        """Another run's samples, guided by this one."""
        return f"ckpt=RUN guidance=classifier guidance.classifier.path={folder} guidance.scale=5"

    def sample(self, *args: Any, **options: Any) -> Tensor:
        """Refused: a classifier draws nothing.

        Raises:
            CheckpointError: with what to type instead.
        """
        raise CheckpointError(
            "this run trained a classifier, which has nothing to sample; it guides other runs: "
            "sample ckpt=RUN guidance=classifier guidance.classifier.path=THIS"
        )

    trajectory = sample  # type: ignore[assignment]
    draws_images = False

    def _loss(self, batch: Batch, noise: Noise) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy and accuracy at times and noise drawn from `noise`."""
        x0, label = batch
        if label is None:
            raise ValueError("data.num_classes=null: a classifier needs classes")
        schedule = self.diffusion.schedule
        level = schedule(self.objective.time(schedule, noise, len(x0)))
        x_t = marginal(x0, noise.normal(x0), level)
        logits = self.diffusion.denoiser(
            x_t, schedule.conditioning(level).to(x0.device, x0.dtype), None
        ).float()
        right = (logits.argmax(1) == label).float().mean()
        return cross_entropy(logits, label), right
