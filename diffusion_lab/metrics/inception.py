"""FID and KID as papers report them: by torchmetrics, in the features of Inception-v3.

Inception was trained on photographs of 299 x 299 pixels. On small grey images its distances say
little (the maintainers of pytorch-fid and TTUR say so themselves); they are here to be compared
with published values. For anything else see `features`.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn

from diffusion_lab.pixels import to_pixel_values
from diffusion_lab.ranges import Count, checked

if TYPE_CHECKING:
    from torchmetrics import Metric

_NEEDED = (
    "It needs `pip install torch-fidelity` and Inception's weights, from the network or by "
    "features.weights=FILE"
)


class Inception:
    """FID and KID by torchmetrics' `FrechetInceptionDistance` and `KernelInceptionDistance`.

    Args:
        feature: Layer, by its number of features; or a network that maps uint8 (B, 3, H, W) to
            features (B, D) and has `num_features`.
        weights: File of Inception's weights; None has torch-fidelity fetch them.
        real_images: How many training images samples are compared with.
        batch_size: Images per batch.

    Raises:
        ArgumentError: Fewer than 2 real images.
        ValueError: A file of weights that is missing, or no torch-fidelity.
    """

    @checked
    def __init__(
        self,
        feature: Literal[64, 192, 768, 2048] | nn.Module = 2048,
        weights: str | None = None,
        real_images: Annotated[int, Ge(2)] = 5000,
        batch_size: Count = 50,
    ) -> None:
        if weights is not None and not Path(weights).expanduser().is_file():
            raise ValueError(f"features.weights={weights}: there is no such file")
        if isinstance(feature, int) and find_spec("torch_fidelity") is None:
            raise ValueError(f"features=inception: torch_fidelity is missing. {_NEEDED}")
        self.feature, self.weights = feature, weights
        self.real_images, self.batch_size = real_images, batch_size

    def __call__(self, samples: Tensor, training: Tensor, test: Tensor) -> dict[str, float]:
        """Score samples, and as many test images for comparison.

        Args:
            samples: float (N, C, H, W) in [-1, 1], C = 1 or 3.
            training: uint8 (M, C, H, W), real images.
            test: uint8 (K, C, H, W), other real images.

        Returns:
            `fid`, `kid` (mean over subsets), and `fid_real`, `kid_real`: those of the first N test
            images.

        Raises:
            ValueError: torch-fidelity or Inception's weights cannot be loaded.
        """
        grey = to_pixel_values(samples).byte()
        real = training[: self.real_images]
        metrics = self._metrics(subset=min(1000, len(grey), len(test), len(real)))
        self._update(metrics, real, True)
        scores: dict[str, float] = {}
        for end, images in (("", grey), ("_real", test[: len(grey)])):
            self._update(metrics, images, False)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)  # of KID's subsets
                fid, kid = (metric.compute() for metric in metrics)
            scores |= {f"fid{end}": float(fid), f"kid{end}": float(kid[0])}
            for metric in metrics:
                metric.reset()
        return scores

    def _metrics(self, subset: int) -> tuple[Metric, Metric]:
        """FID and KID; a reset does not delete their features of real images."""
        from torchmetrics.image.fid import FrechetInceptionDistance
        from torchmetrics.image.kid import KernelInceptionDistance

        try:
            fid = FrechetInceptionDistance(
                self.feature,
                reset_real_features=False,
                feature_extractor_weights_path=self.weights,
            )
        except (ModuleNotFoundError, OSError) as error:
            raise ValueError(f"features=inception: {error}. {_NEEDED}") from None
        kid = KernelInceptionDistance(
            fid.inception, subsets=50, subset_size=subset, reset_real_features=False
        )
        return fid, kid

    def _update(self, metrics: Iterable[Metric], pixels: Tensor, real: bool) -> None:
        for batch in pixels.split(self.batch_size):
            for metric in metrics:
                metric.update(batch.expand(-1, 3, -1, -1), real=real)
