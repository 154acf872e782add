"""A likelihood in numbers: its parts, detection of foreign data, and classification by it."""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor

from diffusion_lab.evaluation.likelihoods import BoundScore, Score, totals
from diffusion_lab.metrics.intervals import share

RANGES = 10
"""Equal ranges of t that the terms are added up in."""
Z_95 = NormalDist().inv_cdf(0.975)
"""Standard errors from the mean to an end of a 95 % interval."""


def summary(score: Score, terms: Tensor) -> dict[str, Any]:
    """Sum up parts (N, S + 1), N of at least 2, as plain data in its unit.

    `mean`, `se`, `low`, `high`: -log p, its standard error over images and 95 % interval; `split`:
    the parts that add up to it, each with `mean` and `se`: `prior`, ranges of t (where an interval
    begins) as `t 0.9-1`, and `reconstruction` of a bound or `dequantisation` of an ODE; `steps`:
    the parts of single intervals.
    """
    parts, factor = terms * score.factor, score.factor
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
        {"t": float(t), "log_snr": _or_none(level.log_snr), **_with_error(inner[:, k])}
        for k, (t, level) in enumerate(zip(begins, score.path, strict=False))
    ]
    whole = totals(score, terms)
    found = _with_error(whole)
    ends = {"low": found["mean"] - Z_95 * found["se"], "high": found["mean"] + Z_95 * found["se"]}
    unit = {"unit": score.unit, "num_images": len(terms)}
    return {**unit, **found, **ends, "split": split, "steps": steps}


def _with_error(values: Tensor) -> dict[str, float]:
    return {"mean": float(values.mean()), "se": float(values.std()) / len(values) ** 0.5}


def _or_none(value: Tensor) -> float | None:
    return float(value) if bool(torch.isfinite(value)) else None


def separation(own: Tensor, foreign: Tensor) -> dict[str, float]:
    """How well scores (N,) of own and (M,) of foreign data separate: the area under the ROC curve.

    Returns:
        `auroc`: the probability that a foreign score is the higher one, ties counted half; `low`,
        `high`: its 95 % interval (DeLong et al. 1988), within [0, 1].
    """
    above = (foreign[None] > own[:, None]).double() + 0.5 * (foreign[None] == own[:, None]).double()
    area = float(above.mean())
    variance = float(above.mean(1).var()) / len(own) + float(above.mean(0).var()) / len(foreign)
    half = Z_95 * variance**0.5
    return {"auroc": area, "low": max(0.0, area - half), "high": min(1.0, area + half)}


def classifier_accuracy(scores: Tensor, labels: Tensor) -> dict[str, float]:
    """Share of images whose own class has the lowest score (N, K), and its 95 % Wilson interval."""
    right = int((scores.argmin(1) == labels.cpu()).sum())
    accuracy, low, high = share(right, len(labels))
    return {"accuracy": accuracy, "low": low, "high": high, "num_images": len(labels)}


def lines(found: dict[str, Any]) -> list[str]:
    """The content of likelihood.json, to be printed."""
    unit, name = found["unit"], "-log p by the ODE"
    if "reconstruction" in found["split"]:
        name = "variational bound"
    printed = [_line(name, found, ".4f", f"{unit}, {found['num_images']} samples")]
    for part, value in found["split"].items():
        printed.append(f"  {part:<18}{value['mean']:>9.4f}   +- {value['se']:.4f}")
    if "separation" in found:
        other, area = found["against"], found["separation"]
        printed.append(_line(f"of {other['data']}", other, ".4f", unit))
        printed.append(_line("detection (AUROC)", area, ".3f", "0.5 is chance"))
    if "classifier" in found:
        printed.append(_line("accuracy of classes", found["classifier"], ".1%", "by the bound"))
    return printed


def _line(name: str, found: dict[str, Any], spec: str, meaning: str) -> str:
    value = next(found[key] for key in ("mean", "auroc", "accuracy") if key in found)
    ends = f"95 % interval {found['low']:{spec}} to {found['high']:{spec}}"
    return f"{name:<20}{value:>9{spec}}   {meaning}; {ends}"
