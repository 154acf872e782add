"""Pictures of a set of scored samples: confusion matrix, nearest training images, density."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from diffusion_lab.reporting.clouds import check_points, panels, rendered, window
from diffusion_lab.reporting.grids import image_grid

PAIRS = 20
"""Nearest pairs that are shown."""


def confusion_image(confusion: Tensor, names: Sequence[str]) -> Image.Image:
    """How the classes asked for are read: counts, each row coloured by its shares.

    Args:
        confusion: counts ``(K, K)``, row = asked, column = read.
        names: of the K classes.
    """
    from matplotlib.figure import Figure

    side = max(3.2, 1.2 + 0.36 * len(names))
    figure = Figure(figsize=(side, side), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    shares = confusion / confusion.sum(1, keepdim=True).clamp_min(1)
    axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
    for row, column in confusion.nonzero().tolist():
        colour = "white" if shares[row, column] > 0.5 else "black"
        text = str(int(confusion[row, column]))
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    turned = 90 if max(map(len, names)) > 2 else 0
    axes.set_xticks(range(len(names)), names, rotation=turned)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="read by the classifier", ylabel="asked for")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return rendered(figure)


def nearest_image(samples: Tensor, training: Tensor, distance: Tensor) -> Image.Image:
    """The samples that lie nearest to a training image, each above that image, nearest first.

    Args:
        samples: ``(N, C, H, W)`` in [-1, 1].
        training: ``(N, C, H, W)`` in [-1, 1], the nearest training image of each.
        distance: ``(N,)``, Euclidean over pixels; the caption of a pair.
    """
    order = distance.argsort()[:PAIRS]
    pairs = torch.cat([samples[order], training[order]])
    captions = ["" for _ in order] + [f"{float(value):.1f}" for value in distance[order]]
    scale = 2 if samples.shape[-1] <= 40 else 1
    return image_grid(pairs, len(order), scale, captions)


def density_image(points: Tensor, reference: Tensor, bins: int = 60) -> Image.Image:
    """Density of points drawn and of real ones, side by side, on one scale.

    Args:
        points: ``(N, 2)``.
        reference: ``(M, 2)`` real points.
        bins: cells along a side.

    Raises:
        ValueError: points that are not (N, 2).
    """
    check_points("points", points)
    check_points("reference", reference)
    half = window([reference])
    figure, axes = panels(1, 2)
    ends = ((-half, half), (-half, half))
    counts = []
    for cloud in (reference, points):
        cells = torch.histogramdd(
            cloud.double().cpu(), [bins, bins], range=[-half, half, -half, half], density=True
        )
        counts.append(cells.hist.T.numpy())
    titles = (f"data: {len(reference):,} test points", f"model: {len(points):,} samples")
    most = float(max(count.max() for count in counts))
    for panel, count, title in zip(axes, counts, titles, strict=True):
        panel.imshow(
            count, origin="lower", extent=(*ends[0], *ends[1]), cmap="magma", vmin=0, vmax=most
        )
        panel.set_title(title)
    return rendered(figure)
