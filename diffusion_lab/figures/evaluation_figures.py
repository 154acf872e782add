"""Pictures of scored samples: samples of each row, confusion, copies, density, likelihood."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import NormalDist
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from diffusion_lab.figures.grids import image_grid, tiled, titled
from diffusion_lab.figures.pictures import rendered, rendered_png
from diffusion_lab.figures.scatter import check_points, panels, scatter_image, window

PAIRS = 20
"""Nearest pairs that are shown."""
HALF_INTERVAL = NormalDist().inv_cdf(0.975)
"""Standard errors from the mean to an end of a 95 % interval."""


def confusion_image(confusion: Tensor, names: Sequence[str]) -> Image.Image:
    """How the requested classes are read: counts, each row coloured by its shares.

    Args:
        confusion: Counts (K, K), row = requested, column = predicted.
        names: Of the K classes.
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
    rotation = 90 if max(map(len, names)) > 2 else 0
    axes.set_xticks(range(len(names)), names, rotation=rotation)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="predicted by the classifier", ylabel="requested")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return rendered(figure)


def nearest_image(samples: Tensor, training: Tensor, distance: Tensor) -> Image.Image:
    """The samples that lie nearest to a training image, each above that image, nearest first.

    Args:
        samples: (N, C, H, W) in [-1, 1].
        training: (N, C, H, W) in [-1, 1], the nearest training image of each.
        distance: (N,), Euclidean over pixels; the caption of a pair.
    """
    order = distance.argsort()[:PAIRS]
    pairs = torch.cat([samples[order], training[order]])
    captions = ["" for _ in order] + [f"{float(value):.1f}" for value in distance[order]]
    return image_grid(pairs, len(order), _scale(samples), captions)


def density_image(points: Tensor, reference: Tensor, bins: int = 60) -> Image.Image:
    """Density of points drawn (N, 2) and of real ones (M, 2), side by side, on one scale."""
    check_points("points", points)
    check_points("reference", reference)
    half = window([reference])
    ends = [-half, half, -half, half]
    counts = [
        torch.histogramdd(cloud.double().cpu(), [bins, bins], range=ends, density=True).hist.T
        for cloud in (reference, points)
    ]
    most = max(float(count.max()) for count in counts)
    titles = (f"data: {len(reference):,} test points", f"model: {len(points):,} samples")
    figure, axes = panels(1, 2)
    for panel, count, title in zip(axes, counts, titles, strict=True):
        panel.imshow(count.numpy(), origin="lower", extent=ends, cmap="magma", vmin=0, vmax=most)
        panel.set_title(title)
    return rendered(figure)


def image_page(names: Sequence[str], samples: Sequence[Tensor]) -> Image.Image:
    """A named line of images a row; what stands one above the other came from one noise.

    Args:
        names: Of the rows.
        samples: For each row (N, C, H, W) in [-1, 1].
    """
    lines = [image_grid(block, len(block), _scale(block)) for block in samples]
    return tiled([titled(*line) for line in zip(lines, names, strict=True)], 1, gap=0)


def point_page(
    names: Sequence[str], samples: Sequence[Tensor], reference: Tensor, columns: int = 4
) -> Image.Image:
    """A named scatter plot a row, all of one window, over real points in grey.

    Args:
        names: Of the rows.
        samples: For each row (N, 2).
        reference: (M, 2) real points.
        columns: Plots side by side.
    """
    limit = 1.4 * float(reference.abs().max())
    plots = [scatter_image(x, reference=reference, limit=limit, size=280) for x in samples]
    return tiled([titled(*plot) for plot in zip(plots, names, strict=True)], columns, gap=4)


def _scale(images: Tensor) -> int:
    return 2 if images.shape[-1] <= 40 else 1


def likelihood_png(found: Mapping[str, Any]) -> bytes:
    """A PNG of a `likelihood_summary.summary`: parts as bars, single intervals over log-SNR."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 3.6), dpi=150, layout="constrained")
    bars, curve = figure.subplots(1, 2)
    split = found["split"]
    means = [part["mean"] for part in split.values()]
    errors = [HALF_INTERVAL * part["se"] for part in split.values()]
    bars.barh(range(len(split)), means, xerr=errors, height=0.62, color="#2166ac")
    bars.set_yticks(range(len(split)), list(split), fontsize=8)
    bars.invert_yaxis()
    bars.set(xlabel=found["unit"], title=f"{found['mean']:.3f} {found['unit']} in all")
    steps = [step for step in found["steps"] if step["log_snr"] is not None]
    across = [step["log_snr"] for step in steps]
    widths = [abs(b - a) for a, b in pairwise(across)]
    density = [step["mean"] / width for step, width in zip(steps, widths, strict=False)]
    curve.plot(across[: len(density)], density, color="#2166ac")
    curve.set(xlabel="log-SNR (noise left, data right)", ylabel=f"{found['unit']} per log-SNR")
    for axes in (bars, curve):
        axes.spines[["top", "right"]].set_visible(False)
        axes.title.set_fontsize(9)
    return rendered_png(figure)
