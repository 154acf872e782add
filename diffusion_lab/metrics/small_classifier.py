"""A small convolutional classifier, whose last hidden layer is the feature space of the samples.

Metrics on small images need features of such images; an Inception network trained on large
photographs has none. This classifier is trained on the data set at hand in one to two minutes on
two CPU cores (at least 99.4 % of the MNIST test set). Values in its features compare with each
other only: never call them "FID".

For images without classes it is trained on rotation prediction: by how many quarter turns an image
was rotated, which needs features of the content as well (Gidaris et al. 2018, arXiv 1803.07728).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion_lab.pixels import from_bytes


class Classifier(nn.Module):
    """Convolutions at half and quarter resolution, one hidden layer, class scores.

    The first stage has `width` channels, the second twice as many.
    """

    def __init__(
        self, channels: int = 1, num_classes: int = 10, width: int = 32, num_features: int = 128
    ) -> None:
        super().__init__()
        self.channels, self.num_classes, self.num_features = channels, num_classes, num_features
        self.body = nn.Sequential(
            *_block(channels, width, kernel=5, stride=2),
            *_block(width, width),
            *_block(width, 2 * width, stride=2),
            *_block(2 * width, 2 * width),
            *_block(2 * width, 2 * width),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(32 * width, num_features, bias=False),
            nn.BatchNorm1d(num_features),
            nn.ReLU(),
        )
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(num_features, num_classes)

    def features(self, x: Tensor) -> Tensor:
        """Features (B, num_features) of images x (B, C, H, W) in [-1, 1]."""
        return self.body(x)

    def forward(self, x: Tensor) -> Tensor:
        """Unnormalised class scores (B, num_classes) of images in [-1, 1]."""
        return self.head(self.dropout(self.features(x)))


def _block(c_in: int, c_out: int, kernel: int = 3, stride: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(c_in, c_out, kernel, stride=stride, padding=kernel // 2, bias=False)
    return [conv, nn.BatchNorm2d(c_out), nn.ReLU()]


@dataclass(frozen=True)
class Recipe:
    """How a classifier is trained; together with the data it determines the weights.

    Attributes:
        steps: Optimizer steps.
        batch_size: Images of a step.
        lr: Peak learning rate of AdamW under a one-cycle schedule.
        seed: Of the weights, the order and the augmentation.
        max_shift: Largest random shift, in pixels.
        max_angle: Largest random rotation, in degrees.
        max_scale: Largest relative change of size.
        natural: Half of the images are mirrored, and their edges are padded with their reflection,
            not with black.
        predict_rotation: Predict quarter turns in place of classes.
    """

    steps: int = 2400
    batch_size: int = 200
    lr: float = 4e-3
    seed: int = 0
    max_shift: float = 2.0
    max_angle: float = 12.0
    max_scale: float = 0.12
    natural: bool = False
    predict_rotation: bool = False

    def as_dict(self) -> dict[str, float]:
        """The recipe as plain data, for hashing and for the record.

        The last two were added later, the last as "turned", and are left out where they are off:
        the cached classifiers of digits have kept their names.
        """
        plain = asdict(self)
        later = {"natural": plain.pop("natural"), "turned": plain.pop("predict_rotation")}
        return plain | {name: value for name, value in later.items() if value}


def train_classifier(
    images: Tensor,
    labels: Tensor,
    num_classes: int,
    recipe: Recipe,
    progress: Callable[[int, int, float], None] | None = None,
) -> Classifier:
    """Train a `Classifier` on uint8 images (N, C, H, W) and int64 labels (N,).

    The caller's random state is left as it was; `progress` is called with (step, steps, loss).

    Returns:
        The classifier in evaluation mode, on the CPU.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        net = Classifier(images.shape[1], num_classes).to(memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(net.parameters(), lr=recipe.lr, weight_decay=0.05)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, recipe.lr, total_steps=recipe.steps, pct_start=0.2
        )
        generator = torch.Generator().manual_seed(recipe.seed)
        order = torch.empty(0, dtype=torch.long)
        net.train()
        for step in range(recipe.steps):
            if len(order) < recipe.batch_size:
                order = torch.cat([order, torch.randperm(len(images), generator=generator)])
            index, order = order[: recipe.batch_size], order[recipe.batch_size :]
            x, y = augment(from_bytes(images[index]), recipe, generator), labels[index]
            if recipe.predict_rotation:
                x, y = rotated(x)
            with torch.autocast("cpu", torch.bfloat16):
                scores = net(x.to(memory_format=torch.channels_last))
            loss = F.cross_entropy(scores.float(), y)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            scheduler.step()
            if progress is not None:
                progress(step + 1, recipe.steps, loss.item())
    return net.eval().requires_grad_(False)


def augment(x: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """Shift, rotate and scale each image at random, padded with its background.

    The images are float (B, C, H, W) in [-1, 1], of background -1 where they are not `natural`.
    """
    shift, angle, scale = (torch.rand(3, len(x), 2, generator=generator) * 2 - 1).unbind(0)
    angle = angle[:, 0] * math.radians(recipe.max_angle)
    scale = 1 + scale * recipe.max_scale
    theta = torch.empty(len(x), 2, 3)
    theta[:, 0, 0] = angle.cos() * scale[:, 0]
    theta[:, 0, 1] = -angle.sin() * scale[:, 1]
    theta[:, 1, 0] = angle.sin() * scale[:, 0]
    theta[:, 1, 1] = angle.cos() * scale[:, 1]
    theta[:, :, 2] = shift * recipe.max_shift * 2 / x.shape[-1]
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    if recipe.natural:
        mirrored = torch.rand(len(x), generator=generator) < 0.5
        x = torch.where(mirrored.view(-1, 1, 1, 1), x.flip(-1), x)
        return F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
    # grid_sample pads with zeros, so the background is moved to zero first.
    return F.grid_sample(x + 1, grid, mode="bilinear", align_corners=False) - 1


def rotations(images: Tensor) -> int:
    """How many rotations of images (N, C, H, W) there are: 4, of oblong ones 2."""
    return 4 if images.shape[-1] == images.shape[-2] else 2


def rotated(images: Tensor) -> tuple[Tensor, Tensor]:
    """Rotate images (N, C, H, W) by 0, 1, 2, 3, 0 ... quarter turns (oblong ones 0, 2, 0 ...).

    Returns:
        The images, and the rotation of each, int64 (N,) in 0 .. rotations(images) - 1.
    """
    number = rotations(images)
    which, result = torch.arange(len(images)) % number, images.clone()
    for k in range(1, number):
        result[which == k] = torch.rot90(images[which == k], k * 4 // number, (-2, -1))
    return result, which


@torch.no_grad()
def accuracy(net: Classifier, images: Tensor, labels: Tensor, batch_size: int = 1000) -> float:
    """Share of uint8 images (N, C, H, W) whose predicted class is that of their labels (N,)."""
    right = 0
    for x, y in zip(images.split(batch_size), labels.split(batch_size), strict=True):
        right += int((net(from_bytes(x)).argmax(1) == y).sum())
    return right / len(labels)
