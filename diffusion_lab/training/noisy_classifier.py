"""A classifier of noisy images, for classifier guidance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor
from torch.nn.functional import cross_entropy

from diffusion_lab.diffusion.gaussian import marginal
from diffusion_lab.diffusion.noise import Noise
from diffusion_lab.diffusion.objectives import Batch
from diffusion_lab.generate.model import DrawsNothing
from diffusion_lab.training.module import AnyBatch, DiffusionModule
from diffusion_lab.training.validation import rows_of_processes


class NoisyClassifier(DiffusionModule, DrawsNothing):
    """log p(label | x_t) at every noise level (Dhariwal & Nichol, arXiv 2105.05233, section 4.1).

    Its network maps (x_t (B, *), c_noise (B,)) to logits (B, K); schedule and time law are those of
    the diffusion model that it will guide, and so are checkpoints, averaging, resuming and the
    keys of all noise. It has nothing to sample.
    """

    def _training_loss(self, batch: Batch, keys: tuple[int | str, ...]) -> Tensor:
        """Mean cross-entropy in nats."""
        return self._loss(batch, self._noise(*keys))[0]

    def validation_step(self, batch: AnyBatch, batch_idx: int) -> None:
        """Cross-entropy (val/loss) and share of right answers over all noise levels."""
        batch = self.batch_of(batch)
        rows = len(batch.x0)
        noise = self._noise("validation", batch_idx, counts=rows_of_processes(self, rows))
        loss, right = self._loss(batch, noise)
        size = rows * self.trainer.world_size  # see `DiffusionModule.validation_step`
        self.log("val/loss", loss, on_epoch=True, batch_size=size, sync_dist=True)
        self.log("val/accuracy", right, on_epoch=True, batch_size=size, sync_dist=True)

    def next_words(self, folder: Path) -> str:
        """Another run's samples, guided by this one."""
        return f"ckpt=RUN guidance=classifier guidance.classifier.path={folder} guidance.scale=5"

    def _loss(self, batch: Batch, noise: Noise) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy and accuracy at times and noise drawn from `noise`."""
        x0, label = batch.x0, batch.given.label
        if label is None:
            raise ValueError("data.num_classes=null: a classifier needs classes")
        schedule = self.diffusion.schedule
        time: Any = self.objective.time
        level = schedule(time(schedule, noise, len(x0)))
        x_t = marginal(x0, noise.normal(x0), level)
        network: Any = self.diffusion.denoiser
        logits = network(x_t, schedule.conditioning(level).to(x0.device, x0.dtype), None).float()
        right = (logits.argmax(1) == label).float().mean()
        return cross_entropy(logits, label), right
