"""A likelihood in numbers: its parts, and how foreign data and classes are told by it."""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor

from diffusion_lab.evaluation.likelihoods import BoundScore, Score, factor_of, totals, unit_of

RANGES = 10
"""Equal ranges of t that the terms are added up in."""
WIDTH = NormalDist().inv_cdf(0.975)
"""Standard errors from the mean to an end of a 95 % interval."""


def summary(score: Score, terms: Tensor) -> dict[str, Any]:
    """Figures of parts (N, S + 1), N of at least 2, as plain data in `unit_of`.

    ``mean``, ``se``, ``low``, ``high``: -log p, its standard error over images and 95 % interval;
    ``split``: the parts that add up to it, each with ``mean`` and ``se``: ``prior``, ranges of t
    (where an interval begins) as ``t 0.9-1``, and ``reconstruction`` of a bound or
    ``dequantisation`` of an ODE; ``steps``: the parts of single intervals.
    """
    parts, factor = terms * factor_of(score), factor_of(score)
    bounds = isinstance(score, BoundScore)
    inner = parts[:, 1:-1] if bounds else parts[:, 1:]
    begins = torch.tensor([float(level.t) for level in score.path[: inner.shape[1]]])
    place = (begins * RANGES - 1e-5).ceil().long().clamp(1, RANGES) - 1
    split = {"prior": _with_error(parts[:, 0])}
    for k in reversed(range(RANGES)):
        chosen = inner[:, place == k].sum(1)
        split[f"t {k / RANGES:g}-{(k + 1) / RANGES:g}"] = _with_error(chosen)
    if bounds:
        split["reconstruction"] = _with_error(parts[:, -1])
    elif score.offset:
        split["dequantisation"] = {"mean": score.offset * factor, "se": 0.0}
    steps = [
        {"t": float(t), "log_snr": _finite(level.log_snr), **_with_error(inner[:, k])}
        for k, (t, level) in enumerate(zip(begins, score.path, strict=False))
    ]
    whole = totals(score, terms)
    found = _with_error(whole)
    ends = {"low": found["mean"] - WIDTH * found["se"], "high": found["mean"] + WIDTH * found["se"]}
    unit = {"unit": unit_of(score), "num_images": len(terms)}
    return {**unit, **found, **ends, "split": split, "steps": steps}


def _with_error(values: Tensor) -> dict[str, float]:
    return {"mean": float(values.mean()), "se": float(values.std()) / len(values) ** 0.5}


def _finite(value: Tensor) -> float | None:
    return float(value) if bool(torch.isfinite(value)) else None


def separation(own: Tensor, foreign: Tensor) -> dict[str, float]:
    """How well a threshold on scores tells two sets apart: the area under the ROC curve.

    Args:
        own: Scores of data like those trained on, (N,), N of at least 2.
        foreign: Scores of other data, (M,), M of at least 2.

    Returns:
        ``auroc``: the probability that a foreign score is the higher one, ties counted half;
        ``low``, ``high``: its 95 % interval (DeLong et al. 1988), within [0, 1].
    """
    above = (foreign[None] > own[:, None]).double() + 0.5 * (foreign[None] == own[:, None]).double()
    area = float(above.mean())
    variance = float(above.mean(1).var()) / len(own) + float(above.mean(0).var()) / len(foreign)
    reach = WIDTH * variance**0.5
    return {"auroc": area, "low": max(0.0, area - reach), "high": min(1.0, area + reach)}


def classifier_accuracy(scores: Tensor, labels: Tensor) -> dict[str, float]:
    """Share of images whose own class has the lowest score (N, K), and its 95 % Wilson interval."""
    from scipy.stats import binomtest

    right = int((scores.argmin(1) == labels.cpu()).sum())
    ends = binomtest(right, len(labels)).proportion_ci(method="wilson")
    share = {"accuracy": right / len(labels), "low": float(ends.low), "high": float(ends.high)}
    return {**share, "num_images": len(labels)}


def lines(found: dict[str, Any]) -> list[str]:
    """The figures, to be read."""
    unit, name = found["unit"], "variational bound" if _is_bound(found) else "-log p by the ODE"
    ends = f"95 % interval {found['low']:.4f} to {found['high']:.4f}"
    found_lines = [
        f"{name:<20}{found['mean']:>9.4f}   {unit}, {found['num_images']} samples; {ends}"
    ]
    for part, value in found["split"].items():
        found_lines.append(f"  {part:<18}{value['mean']:>9.4f}   +- {value['se']:.4f}")
    if "separation" in found:
        other, area = found["against"], found["separation"]
        ends = f"95 % interval {other['low']:.4f} to {other['high']:.4f}"
        found_lines.append(f"{'of ' + other['data']:<20}{other['mean']:>9.4f}   {unit}; {ends}")
        ends = f"95 % interval {area['low']:.3f} to {area['high']:.3f}; 0.5 tells nothing"
        found_lines.append(f"{'told apart (AUROC)':<20}{area['auroc']:>9.3f}   {ends}")
    if "classifier" in found:
        read = found["classifier"]
        ends = f"95 % interval {read['low']:.1%} to {read['high']:.1%}"
        found_lines.append(
            f"{'read by the bound':<20}{read['accuracy']:>9.1%}   of classes; {ends}"
        )
    return found_lines


def _is_bound(found: dict[str, Any]) -> bool:
    return "reconstruction" in found["split"]
