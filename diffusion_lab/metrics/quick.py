"""Scores that cost little, for a model in training, chosen by the data that it is trained on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

QuickScore = Callable[[Tensor, Tensor | None], dict[str, Any]]
"""Samples (N, *shape), classes asked for (N,) or None -> figures of `scores.score` or `points`."""


def quick_scorer(
    data: Any, beside: str | Path, progress: Callable[[int, int, float], None] | None = None
) -> QuickScore:
    """What scores samples: of points their distance, of images what a classifier says of them.

    The classifier is read from disk, or trained once (one or two minutes) and kept.

    Args:
        data: A data module that has `points`, or `images` and `class_names`.
        beside: Folder of the data, where the classifier is kept if it exists and can be written;
            otherwise it is kept in the user's cache.
        progress: Called with (step, steps, loss) while the classifier is trained.

    Returns:
        A function of samples and labels. Its figures hold ``fd``, ``fd_ratio`` and, where there
        are labels, ``agreement``; those of points hold ``sw_ratio``.
    """
    data.prepare_data()
    if len(data.shape) == 1:
        return partial(_score_points, data)
    from diffusion_lab.metrics.features import RealImages, feature_space
    from diffusion_lab.metrics.keeping import places
    from diffusion_lab.metrics.scores import score

    real = RealImages(*data.splits[:4], num_classes=len(data.class_names))
    folders = places(Path(beside).expanduser())
    return partial(score, feature_space(real, folders, progress=progress))


Reader = Callable[[Tensor], Tensor]
"""Samples (N, C, H, W) in [-1, 1] -> probability of each class (N, K)."""


def kept_reader(data: Any, beside: str | Path) -> Reader | None:
    """What reads the class of a sample, if it is at hand: nothing is trained for it.

    Args:
        data: A data module that has `splits`, `shape` and `class_names`.
        beside: Folder of the data, where the classifier is looked for before the user's cache.

    Returns:
        The classifier that `evaluate` and `quick_scorer` train and keep; None where there is none
        yet, or no classes, or points.
    """
    if len(data.shape) == 1:
        return None
    from diffusion_lab.metrics.features import RealImages, kept_classifier
    from diffusion_lab.metrics.keeping import places

    real = RealImages(*data.splits[:4], num_classes=len(data.class_names))
    net = kept_classifier(real, places(Path(beside).expanduser()))
    return None if net is None else partial(_probabilities, net)


def _probabilities(net: Any, samples: Tensor) -> Tensor:
    import torch

    from diffusion_lab.metrics.features import as_seen

    with torch.no_grad():
        return net(as_seen(samples)).softmax(1)


def _score_points(data: Any, samples: Tensor, labels: Tensor | None) -> dict[str, Any]:
    from diffusion_lab.metrics.point_distances import score_points

    train, _, test, _ = data.splits[:4]
    return score_points(samples, train, test)
