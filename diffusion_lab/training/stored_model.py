"""A second model, read from its checkpoint when it is first asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from diffusion_lab.diffusion.model import GaussianDiffusion


class StoredModel:
    """What guidance compares with: the diffusion model of another run.

    Args:
        path: A checkpoint file or a run folder.
        weights: "ema" (averaged, where the run averaged) or "raw".

    Raises:
        ValueError: there is nothing at `path`.
        CheckpointError: what is there is no checkpoint.
    """

    def __init__(self, path: str, weights: Literal["ema", "raw"] = "ema") -> None:
        if not Path(path).expanduser().exists():
            raise ValueError(f"path={path} does not exist; name a checkpoint or a run folder")
        from diffusion_lab.training.checkpoint import read_checkpoint

        read_checkpoint(path)
        self.path = path
        self.weights = weights
        self._model: GaussianDiffusion | None = None

    def __call__(self) -> GaussianDiffusion:
        """The model, in eval mode on the CPU, the same one at every call."""
        if self._model is None:
            from diffusion_lab.training.checkpoint import load

            self._model = load(self.path, self.weights).diffusion
            self._model.requires_grad_(False)
        return self._model
