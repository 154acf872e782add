"""Cheap scores and class predictions for a model in training, chosen by its data."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion_lab.metrics.cache import cache_dirs
from diffusion_lab.metrics.features import (
    OnStep,
    RealImages,
    cached_classifier,
    feature_space,
    quantised,
)
from diffusion_lab.metrics.points import score_points
from diffusion_lab.metrics.scores import score

QuickScore = Callable[[Tensor, Tensor | None], dict[str, Any]]
"""Samples (N, *shape), requested classes (N,) or None -> what `score` or `score_points` gives."""


def quick_scorer(data: Any, beside: str | Path, progress: OnStep | None = None) -> QuickScore:
    """Choose a scorer: the distance of points; of images, what a classifier measures.

    The classifier is read from the cache, or trained once (one or two minutes).

    Args:
        data: A data module that has `splits`, `shape` and `class_names`.
        beside: Folder of the data, where the classifier is cached if it exists and can be written;
            else it is cached in the user's folder.
        progress: Called with (step, steps, loss) while the classifier is trained.

    Returns:
        A function of samples and labels. Its scores hold `fd`, `fd_ratio` and, where there are
        labels, `agreement`; those of points hold `sw_ratio`.
    """
    data.prepare_data()
    if len(data.shape) == 1:
        return partial(_score_points, data)
    folders = cache_dirs(Path(beside).expanduser())
    return partial(score, feature_space(_real_images(data), folders, progress=progress))


def cached_predictor(data: Any, beside: str | Path) -> Callable[[Tensor], Tensor] | None:
    """Choose what predicts the class of a sample, if it is in the cache; nothing is trained for it.

    Args:
        data: A data module that has `splits`, `shape` and `class_names`.
        beside: Folder of the data, searched before the user's cache.

    Returns:
        The classifier that `evaluate` and `quick_scorer` train and cache, as a function of samples
        (N, C, H, W) in [-1, 1] that gives the probability of each class (N, K); None where there
        is none yet, or no classes, or points.
    """
    if len(data.shape) == 1:
        return None
    net = cached_classifier(_real_images(data), cache_dirs(Path(beside).expanduser()))
    return None if net is None else partial(_probabilities, net)


def _real_images(data: Any) -> RealImages:
    return RealImages(*data.splits[:4], num_classes=len(data.class_names))


@torch.no_grad()
def _probabilities(net: Any, samples: Tensor) -> Tensor:
    return net(quantised(samples)).softmax(1)


def _score_points(data: Any, samples: Tensor, labels: Tensor | None) -> dict[str, Any]:
    train, _, test, _ = data.splits[:4]
    return score_points(samples, train, test)
