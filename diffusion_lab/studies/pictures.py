"""What `evaluate` leaves beside its figures: pictures, and the counts behind one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diffusion_lab.studies.rulers import ImageRuler, PointRuler, Ruler

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from diffusion_lab.metrics.scores import Scored


def pictures_of(ruler: Ruler, scored: Scored, samples: Tensor) -> dict[str, Image.Image]:
    """Pictures by the end of their file's name.

    Args:
        ruler: That the samples were scored with.
        scored: What it found.
        samples: float (N, *shape), on the CPU.
    """
    from diffusion_lab.reporting.evaluation import (
        confusion_image,
        density_image,
        nearest_image,
    )

    if isinstance(ruler, PointRuler):
        return {"density": density_image(samples, ruler.data.points.test)}
    assert isinstance(ruler, ImageRuler)
    found = {}
    if scored.confusion is not None:
        found["confusion"] = confusion_image(scored.confusion, ruler.data.class_names)
    if scored.nearest is not None:
        training = ruler.training_images(scored.nearest.index)
        found["nearest"] = nearest_image(samples, training, scored.nearest.distance)
    return found


def counts_of(ruler: Ruler, scored: Scored) -> dict[str, Any]:
    """`confusion` (row = asked, column = read) and `class_names`; {} without classes."""
    if isinstance(ruler, PointRuler) or scored.confusion is None:
        return {}
    return {"confusion": scored.confusion.tolist(), "class_names": list(ruler.data.class_names)}
