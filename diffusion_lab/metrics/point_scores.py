"""The figures of points drawn from a model, each with its interval and a perfect sampler's value.

A figure X comes with ``X_low``, ``X_high`` and ``X_real`` as in `scores`; here ``X_real`` is that
of training points, which have the distribution of the data too. Of ``sw_ratio`` it is 1.
"""

from __future__ import annotations

import math
from statistics import fmean

from torch import Tensor

from diffusion_lab.metrics.diversity import remaining_variance_jackknife
from diffusion_lab.metrics.image_figures import Estimates
from diffusion_lab.metrics.intervals import FEWEST, Jackknife, deal
from diffusion_lab.metrics.kernels import gaussian_kernel, reference_of, squared_mmd
from diffusion_lab.metrics.point_distances import score_points, sliced_wasserstein_jackknife
from diffusion_lab.metrics.scores import Scored, flat_estimates
from diffusion_lab.random import permutation

MOST, SETS = 5000, 5
"""Points whose kernel distance is taken, and how many sets of training points at most."""


def scored_points(
    samples: Tensor,
    train_points: Tensor,
    test_points: Tensor,
    labels: Tensor | None = None,
    test_labels: Tensor | None = None,
) -> Scored:
    """Score points.

    Args:
        samples: float ``(N, d)``, N of at least 10.
        train_points: ``(M, d)``.
        test_points: ``(K, d)``.
        labels: int64 ``(N,)``, the classes asked for, or None.
        test_labels: int64 ``(K,)``, needed with `labels`.

    Returns:
        Figures: those of `points.score_points`; ``mmd``: squared maximum mean discrepancy to test
        points (`kernels.gaussian_kernel`), 0 is ideal; ``remaining_variance``: over that of test
        points, 1 is ideal.

    Raises:
        ValueError: fewer than 10 samples, or samples that are not finite.
    """
    figures = score_points(samples, train_points, test_points)
    if len(samples) < FEWEST:
        raise ValueError(
            f"num_samples={len(samples)}: figures with intervals need at least {FEWEST}, "
            "better 5000"
        )
    samples, labels = samples.detach().cpu(), None if labels is None else labels.cpu()
    sw = sliced_wasserstein_jackknife(samples, test_points)
    real = {"sw": figures["sw_test"], "sw_ratio": 1.0, "remaining_variance": 1.0}
    ratio = Jackknife(figures["sw_ratio"], sw.left_out / figures["sw_test"], (0.0, math.inf))
    reference = reference_of(test_points[:MOST], gaussian_kernel(test_points))
    count = min(len(samples), MOST)
    estimates: Estimates = {
        "sw": sw,
        "sw_ratio": ratio,
        "mmd": squared_mmd(
            samples[:count], reference, deal(count, None if labels is None else labels[:count])
        ),
        "remaining_variance": remaining_variance_jackknife(
            samples, test_points, labels, test_labels, deal(len(samples), labels)
        ),
    }
    order = permutation(len(train_points), "scored points")
    sets = [part for part in train_points[order].split(count)[:SETS] if len(part) == count]
    if sets:
        real["mmd"] = fmean(squared_mmd(part, reference, deal(count)).value for part in sets)
    return Scored(figures | flat_estimates(estimates, real), estimates, None, None, labels)
