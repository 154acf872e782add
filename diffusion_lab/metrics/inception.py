"""FID and KID as papers report them: by torchmetrics, in the features of Inception-v3.

Inception was trained on photographs of 299 x 299 pixels. On small grey images its distances say
little (the maintainers of pytorch-fid and TTUR say so themselves); they are here to be compared
with figures that others published. For anything else see `features`.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn


class Inception:
    """Figures of torchmetrics' `FrechetInceptionDistance` and `KernelInceptionDistance`.

    Args:
        feature: Layer, by its number of features: 64, 192, 768 or 2048; or a network that maps
            uint8 (B, 3, H, W) to features (B, D) and has `num_features`.
        weights: File of Inception's weights; None has torch-fidelity fetch them.
        real_images: How many training images samples are compared with, at least 2.
        batch_size: Images at once.

    Raises:
        ValueError: fewer than 2 real images, or a file of weights that is not there.
    """

    def __init__(
        self,
        feature: int | nn.Module = 2048,
        weights: str | None = None,
        real_images: int = 5000,
        batch_size: int = 50,
    ) -> None:
        if real_images < 2:
            raise ValueError(f"features.real_images={real_images} must be at least 2")
        if weights is not None and not Path(weights).expanduser().is_file():
            raise ValueError(f"features.weights={weights}: there is no such file")
        self.feature, self.weights = feature, weights
        self.real_images, self.batch_size = real_images, batch_size

    def __call__(self, samples: Tensor, training: Tensor, test: Tensor) -> dict[str, float]:
        """Score samples, and as many test images for comparison.

        Args:
            samples: float ``(N, C, H, W)`` in [-1, 1], C = 1 or 3.
            training: uint8 ``(M, C, H, W)``, real images.
            test: uint8 ``(K, C, H, W)``, other real images.

        Returns:
            ``fid``, ``kid`` (mean over subsets), and ``fid_real``, ``kid_real``: those of the first
            N test images.

        Raises:
            ValueError: torch-fidelity or Inception's weights cannot be had.
        """
        grey = samples.clamp(-1, 1).add(1).mul(127.5).round().byte()
        real = training[: self.real_images]
        found = self._distances(grey, real)
        held_out = self._distances(test[: len(samples)], real)
        return {**found, **{f"{name}_real": value for name, value in held_out.items()}}

    def _distances(self, images: Tensor, real: Tensor) -> dict[str, float]:
        from torchmetrics.image.fid import FrechetInceptionDistance
        from torchmetrics.image.kid import KernelInceptionDistance

        size = min(1000, len(images), len(real))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # of KID's subsets
            try:
                fid = FrechetInceptionDistance(
                    self.feature, feature_extractor_weights_path=self.weights
                )
            except (ModuleNotFoundError, OSError) as error:
                raise ValueError(
                    f"features=inception: {error}. It needs `pip install torch-fidelity` and its "
                    "weights, from the network or by features.weights=FILE"
                ) from None
            kid = KernelInceptionDistance(fid.inception, subsets=50, subset_size=size)
            for pixels, is_real in ((real, True), (images, False)):
                for batch in pixels.split(self.batch_size):
                    coloured = batch.expand(-1, 3, -1, -1)
                    fid.update(coloured, real=is_real)
                    kid.update(coloured, real=is_real)
            return {"fid": float(fid.compute()), "kid": float(kid.compute()[0])}
