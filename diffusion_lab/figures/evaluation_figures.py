"""Pictures of a set of scored samples: confusion matrix, nearest training images, density."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import pairwise
from statistics import NormalDist
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from diffusion_lab.figures.clouds import check_points, panels, rendered, scatter_image, window
from diffusion_lab.figures.grids import BACKGROUND, INK, image_grid

CAPTION = 22
"""Height of a caption on a page, pixels."""
WIDTH = NormalDist().inv_cdf(0.975)
"""Standard errors from the mean to an end of a 95 % interval."""
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


def image_page(names: Sequence[str], samples: Sequence[Tensor]) -> Image.Image:
    """A captioned line of images a row; what stands one above the other came from one noise.

    Args:
        names: captions.
        samples: for each row (N, C, H, W) in [-1, 1].
    """
    scale = 2 if samples[0].shape[-1] <= 40 else 1
    blocks = [image_grid(block, len(block), scale).convert("RGB") for block in samples]
    page = _blank(max(b.width for b in blocks), sum(b.height + CAPTION for b in blocks))
    top = 0
    for name, block in zip(names, blocks, strict=True):
        _caption(page, (6, top + CAPTION - 6), name, "ls")
        page.paste(block, (0, top + CAPTION))
        top += CAPTION + block.height
    return page


def point_page(
    names: Sequence[str], samples: Sequence[Tensor], reference: Tensor, columns: int = 4
) -> Image.Image:
    """A captioned scatter plot a row, all of one window, over real points in grey.

    Args:
        names: captions.
        samples: for each row (N, 2).
        reference: (M, 2) real points.
        columns: plots side by side.
    """
    limit, size = 1.4 * float(reference.abs().max()), 280
    columns = min(columns, len(names))
    page = _blank(columns * (size + 4) + 4, -(-len(names) // columns) * (size + CAPTION + 4) + 4)
    for k, (name, points) in enumerate(zip(names, samples, strict=True)):
        left = 4 + (k % columns) * (size + 4)
        top = 4 + (k // columns) * (size + CAPTION + 4)
        _caption(page, (left + size // 2, top + CAPTION - 6), name, "ms")
        plot = scatter_image(points, reference=reference, limit=limit, size=size)
        page.paste(plot, (left, top + CAPTION))
    return page


def _blank(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), (BACKGROUND,) * 3)


def _caption(page: Image.Image, where: tuple[int, int], text: str, anchor: str) -> None:
    font = ImageFont.load_default(size=14)
    ImageDraw.Draw(page).text(where, text, fill=(INK,) * 3, font=font, anchor=anchor)


def likelihood_image(found: dict[str, Any]) -> bytes:
    """A PNG of a `summary`: its parts as bars, and single intervals over log-SNR."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    picture = Figure(figsize=(8.0, 3.6), dpi=150, layout="constrained")
    bars, curve = picture.subplots(1, 2)
    names = list(found["split"])
    means = [found["split"][name]["mean"] for name in names]
    errors = [WIDTH * found["split"][name]["se"] for name in names]
    bars.barh(range(len(names)), means, xerr=errors, height=0.62, color="#2166ac")
    bars.set_yticks(range(len(names)), names, fontsize=8)
    bars.invert_yaxis()
    bars.set(xlabel=found["unit"], title=f"{found['mean']:.3f} {found['unit']} in all")
    steps = [step for step in found["steps"] if step["log_snr"] is not None]
    across = [step["log_snr"] for step in steps]
    widths = [abs(b - a) for a, b in pairwise(across)]
    density = [step["mean"] / w for step, w in zip(steps, widths, strict=False)]
    curve.plot(across[: len(density)], density, color="#2166ac")
    curve.set(xlabel="log-SNR (noise left, data right)", ylabel=f"{found['unit']} per log-SNR")
    for axes in (bars, curve):
        axes.spines[["top", "right"]].set_visible(False)
        axes.title.set_fontsize(9)
    buffer = io.BytesIO()
    FigureCanvasAgg(picture).print_png(buffer)
    return buffer.getvalue()
