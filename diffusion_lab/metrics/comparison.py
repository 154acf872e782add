"""Two sets of samples from the same noise and classes: how much do their figures differ?

The k-th samples of both sets start from one noise, so their luck is largely the same and falls out
of the difference. Its interval is therefore often much narrower than the two intervals suggest,
which may overlap although the difference is clear.
"""

from __future__ import annotations

import math

import torch

from diffusion_lab.metrics.scores import Scored


def compare(one: Scored, two: Scored) -> dict[str, float | None]:
    """Differences of all figures that both sets have, with 95 % intervals.

    Means and shares are compared by a bootstrap of the paired differences, other statistics by the
    jackknife on the same groups, see `intervals`.

    Args:
        one: scored samples.
        two: those it is compared with: of the same noise, classes and feature spaces.

    Returns:
        For each figure X of `metrics.scores`: ``X_difference``, that of `one` less that of `two`,
        and the ends ``X_difference_low`` and ``X_difference_high``; None for no value.

    Raises:
        ValueError: other numbers, other classes asked for, or other feature spaces.
    """
    counts = one.figures["num_samples"], two.figures["num_samples"]
    if counts[0] != counts[1]:
        raise ValueError(f"num_samples={counts[0]} and {counts[1]}: draw equally many of both")
    if (one.labels is None) != (two.labels is None) or (
        one.labels is not None
        and two.labels is not None
        and not torch.equal(one.labels, two.labels)
    ):
        raise ValueError("labels of the two sets differ: draw the same classes in the same order")
    for key in one.figures.keys() & two.figures.keys():
        if key.endswith("_sha256") and one.figures[key] != two.figures[key]:
            raise ValueError(f"{key} differs: score both sets with the same classifiers")
    result: dict[str, float | None] = {}
    for name, estimate in one.estimates.items():
        if name in two.estimates:
            found = estimate.minus(two.estimates[name])
            for end, value in zip(("", "_low", "_high"), found, strict=True):
                result[f"{name}_difference{end}"] = float(value) if math.isfinite(value) else None
    return result
