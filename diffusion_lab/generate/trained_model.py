"""What a trained model can do: sample, yield the steps of sampling, denoise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_lab.diffusion.conditions import Condition
from diffusion_lab.diffusion.model import GaussianDiffusion
from diffusion_lab.errors import CheckpointError
from diffusion_lab.generate.generation import Drawing, Request
from diffusion_lab.generate.initial_state import InitialState
from diffusion_lab.generate.labels import Label, expand_given
from diffusion_lab.sampling.pipeline import Guidance
from diffusion_lab.sampling.sampler import Sampler, Step


class Generates:
    """What a trained model and a model in training share.

    Attributes:
        diffusion: The network with the mathematics around it.
        drawing: How samples are drawn, unless a call says otherwise.
    """

    diffusion: GaussianDiffusion
    drawing: Drawing

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample, e.g. (1, 28, 28)."""
        return self.drawing.shape

    @property
    def num_classes(self) -> int | None:
        """Classes of the labels; None where it is trained without them."""
        return self.drawing.num_classes

    def sample(
        self,
        num_samples: int,
        label: Label = None,
        *,
        given: Condition | None = None,
        sampler: Sampler | None = None,
        guidance: Guidance | None = None,
        seed: int = 0,
        batch_size: int = 256,
        start: InitialState | None = None,
        first: int = 0,
    ) -> Tensor:
        """Draw samples; image k depends on (seed, k) alone, whatever the batch size.

        Args:
            num_samples: How many, N.
            label: A class, a list or tensor of classes (repeated), "all" (repeated), a prompt such
                as "3 or 8, not 4" (see `labels`), or None.
            given: Further conditions, their rows repeated; a condition of the model that is not
                given, here or in a grid during training, is the null one.
            sampler: In place of the model's own.
            guidance: In place of the model's own; `ClassifierFree(1.0)` is none.
            seed: Seed of the noise.
            batch_size: Images at a time; halved where memory runs out.
            start: Images or states to start from in place of noise.
            first: Number of the first image, so that N images from there on are drawn; labels
                count from image 0.

        Returns:
            float32 (N, *shape), nominally in [-1, 1], clipped to it where the model says so
            (`clip_samples`), on the model's device.

        Raises:
            ValueError: no sampler, a class that does not exist, or fewer than one image.
        """
        told = expand_given(label, given, first + num_samples, self.num_classes)
        request = Request(num_samples, told, seed, batch_size, start, first)
        return self.drawing.replaced(sampler, guidance).samples(self.diffusion, request)

    def trajectory(
        self,
        num_samples: int,
        label: Label = None,
        *,
        given: Condition | None = None,
        sampler: Sampler | None = None,
        guidance: Guidance | None = None,
        seed: int = 0,
        first: int = 0,
        start: InitialState | None = None,
    ) -> Iterator[Step]:
        """Every step of sampling images first .. first + N - 1 in one batch; see `sample`."""
        told = expand_given(label, given, first + num_samples, self.num_classes)
        request = Request(num_samples, told, seed, num_samples, start, first)
        return self.drawing.replaced(sampler, guidance).trajectory(self.diffusion, request)

    def denoise(
        self,
        x_t: Tensor,
        t: float | Tensor,
        label: Label = None,
        given: Condition | None = None,
    ) -> Tensor:
        """x0-hat, float32 (B, *shape), of noisy images x_t (B, *shape) at time t in (0, 1].

        Args:
            x_t: Noisy images; moved to the model's device.
            t: One time for all, or one an image (B,).
            label: As in `sample`; no guidance is applied.
            given: As in `sample`.
        """
        device = next(self.diffusion.parameters()).device
        return self.drawing.denoised(self.diffusion, x_t.to(device), t, label, given)

    @property
    def draws_images(self) -> bool:
        """Whether it draws grey or coloured images when asked for nothing in particular."""
        has_channels = len(self.shape) == 3 and self.shape[0] in (1, 3)
        return self.diffusion.denoises and self.drawing.sampler is not None and has_channels


class TrainedModel(Generates, nn.Module):
    """A model as a checkpoint describes it; `diffusion_lab.load` gives one.

    Args:
        diffusion: The network with the mathematics around it.
        drawing: How samples are drawn, unless a call says otherwise.
        config: The resolved configuration of its training.
    """

    def __init__(
        self, diffusion: GaussianDiffusion, drawing: Drawing, config: Mapping[str, Any]
    ) -> None:
        super().__init__()
        self.diffusion, self.drawing = diffusion, drawing
        self.run_config = dict(config)

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.parameters()).device

    def load_weights(self, state: Mapping[str, Tensor]) -> None:
        """Take all weights from a state dict.

        Raises:
            CheckpointError: One is of another kind of numbers than the network has.
            RuntimeError: One is missing, too many, or of another shape.
        """
        for name, own in self.state_dict().items():
            if name in state and state[name].is_floating_point() != own.is_floating_point():
                raise CheckpointError(f"the checkpoint holds {state[name].dtype} as {name}")
        self.load_state_dict(state)
