"""The table of all metrics: name, title, format, group and which values are better.

A metric that a scorer computes and that has a row here is shown everywhere: on the terminal and the
page of `evaluate`, as a column or an axis of a study, and, where it is logged during a training, in
the curves and as the metric that selects best.ckpt. `NAME_low`, `NAME_high` and `NAME_real` are
the ends of its 95 % interval and its value for held-out real data.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

CLASSES = "Classes"
DISTANCE = "Distance to the training data"
PRECISION = "Samples among real images"
RECALL = "Real images among samples"
VARIETY = "Variety"
COPIES = "Copies of training images"
COST = "Cost"


class Metric(NamedTuple):
    """A row of the catalog.

    Attributes:
        name: In metrics.json, study.json and the columns of a study.
        title: Heading and axis label.
        spec: Format of a value.
        group: Its section on a page.
        meaning: A few words after the value; "" for none.
        better: "low" or "high", which values are better; "" where that depends.
        ideal: The value of real data, where `NAME_real` is not known.
        share: Whether it is a share of a whole: an axis starts at 0 and is never logarithmic.
        logged: Its name during a training; "" where it is not logged.
    """

    name: str
    title: str
    spec: str
    group: str
    meaning: str = ""
    better: Literal["low", "high", ""] = ""
    ideal: float | None = None
    share: bool = False
    logged: str = ""


_METRICS = (
    Metric("agreement", "class agreement", ".2%", CLASSES, "the predicted class is as requested",
           "high", share=True, logged="val/agreement"),
    Metric("agreement2", "class agreement (2nd classifier)", ".2%", CLASSES,
           "the same, by the second classifier", "high", share=True),
    Metric("class_entropy", "class entropy", ".3f", CLASSES, "of the predicted classes, in nats",
           "high"),
    Metric("class_variation", "class variation", ".3f", CLASSES,
           "share of samples in too frequent classes", "low"),
    Metric("fd", "FD-CNN", ",.3f", DISTANCE, "Fréchet distance, in the classifier's features",
           "low", logged="val/fd_cnn"),
    Metric("fd_unbiased", "FD-CNN, unbiased", ",.3f", DISTANCE,
           "extrapolated to infinitely many samples", "low"),
    Metric("fd2", "FD-CNN2", ",.3f", DISTANCE, "in the second classifier's features", "low"),
    Metric("fd_unbiased2", "FD-CNN2, unbiased", ",.3f", DISTANCE,
           "extrapolated to infinitely many samples", "low"),
    Metric("fd_ratio", "FD ratio", ",.2f", DISTANCE, "over that of the first test images", "low",
           logged="val/fd_ratio"),
    Metric("kd", "KD-CNN", ".4f", DISTANCE, "kernel distance; unbiased, 0 is ideal", "low", 0.0),
    Metric("kd2", "KD-CNN2", ".4f", DISTANCE, "in the second classifier's features", "low", 0.0),
    Metric("fid", "FID", ",.3f", DISTANCE, "Fréchet distance in Inception's features", "low"),
    Metric("kid", "KID", ".5f", DISTANCE, "kernel distance in Inception's features; 0 is ideal",
           "low", 0.0),
    Metric("sw", "sliced Wasserstein", ".4f", DISTANCE, "distance to test points", "low"),
    Metric("sw_ratio", "SW ratio", ",.2f", DISTANCE, "over that of training points; 1 is ideal",
           "low", 1.0, logged="val/sw_ratio"),
    Metric("mmd", "kernel distance", ".5f", DISTANCE, "squared MMD to test points; 0 is ideal",
           "low", 0.0),
    Metric("precision", "precision", ".3f", PRECISION, "samples among real images", "high",
           share=True),
    Metric("density", "density", ".3f", PRECISION, "real images around a sample; above 1: crowded",
           "", 1.0),
    Metric("recall", "recall", ".3f", RECALL, "real images among samples", "high", share=True),
    Metric("coverage", "coverage", ".3f", RECALL, "real images with a sample nearby", "high",
           share=True),
    Metric("vendi", "Vendi score", ".2f", VARIETY, "effective number of different samples", "high"),
    Metric("pairwise_distance", "pairwise distance", ".2f", VARIETY, "of two samples, in pixels"),
    Metric("remaining_variance", "remaining variance", ".3f", VARIETY,
           "as a share of real data's; 0: all samples alike", "", 1.0, share=True),
    Metric("nearest_ratio", "nearest ratio", ".3f", COPIES,
           "median distance to the nearest training image", "", 1.0),
    Metric("copied_share", "copied share", ".2%", COPIES, "nearer to one than 99 % of test images",
           "", 0.01),
    Metric("closer_probability", "P(closer)", ".3f", COPIES,
           "nearer to one than a test image; 1 copies", "", 0.5),
    Metric("step", "optimizer steps", ",.0f", COST),
    Metric("network_calls", "network calls per sample", ",.6g", COST, better="low"),
    Metric("seconds", "seconds", ",.1f", COST, better="low"),
    Metric("speedup", "times faster", ",.1f", COST),
)  # fmt: skip

METRICS = {metric.name: metric for metric in _METRICS}
"""Name -> row, in the order in which they are shown."""
LOGGED = {metric.logged: metric for metric in _METRICS if metric.logged}
"""Name during a training -> row."""
GROUPS = tuple(dict.fromkeys(metric.group for metric in _METRICS if metric.group != COST))
"""The groups of a page, in order."""


def metric(name: str) -> Metric:
    """The row of a name.

    Raises:
        ValueError: There is none; the message lists all names.
    """
    if name not in METRICS:
        raise ValueError(f"column {name!r} is unknown; there are {', '.join(METRICS)}")
    return METRICS[name]
