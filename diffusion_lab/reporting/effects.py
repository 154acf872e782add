"""What each parameter of a sweep does to a metric, and all of them at once, as numbers for SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median

from diffusion_lab.reporting.axes import Axis, Box, Tick
from diffusion_lab.reporting.curves import LOG_SPAN
from diffusion_lab.runs.sweep_records import SweepFolder, SweptJob, as_number, short

BOX = Box(width=340, height=200, left=56, right=14, top=12, bottom=26)
INSET = 34
"""Room at both ends of the axis of a parameter, for its labels."""
HUES = 7
"""Steps of colour from the best value of a metric to the worst."""
DECADE = 10.0
MOST_TICKS = 6
AXIS_ROOM = 150
"""Units between two axes of parallel coordinates."""


@dataclass(frozen=True)
class Spot:
    """One job in a chart."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Effect:
    """One metric over the values of one parameter: jobs as spots, means as a line."""

    parameter: str
    metric: str
    spots: tuple[Spot, ...]
    means: str
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]
    box: Box = BOX


@dataclass(frozen=True)
class Upright:
    """One axis of parallel coordinates."""

    name: str
    x: float
    ticks: tuple[Tick, ...]


@dataclass(frozen=True)
class Path:
    """One job through parallel coordinates; hue 0 is best."""

    points: str
    hue: int
    text: str


@dataclass(frozen=True)
class Parallel:
    """All jobs over all parameters and the metric."""

    box: Box
    axes: tuple[Upright, ...]
    paths: tuple[Path, ...]


class Values:
    """The values of one parameter along an axis.

    Numbers stand where they belong, on a logarithmic axis where they span a decade; anything else
    is spread evenly, in the order of the jobs.

    Args:
        values: as typed, one a job.
        ends: of the axis, in box units.
    """

    def __init__(self, values: Sequence[str], ends: tuple[float, float]) -> None:
        self.names = list(dict.fromkeys(values))
        numbers = [as_number(value) for value in self.names]
        known = [number for number in numbers if number is not None]
        self.numeric = len(known) == len(numbers) and len(set(known)) > 1
        if self.numeric:
            self.names.sort(key=float)
            low, high = min(known), max(known)
            self._axis = Axis(low, high, ends, low > 0 and high / low >= DECADE)
        else:
            self._axis = Axis(0, max(len(self.names) - 1, 0), ends, False)

    def __call__(self, value: str) -> float:
        """Where a value stands."""
        return self._axis(float(value) if self.numeric else self.names.index(value))

    def ticks(self) -> tuple[Tick, ...]:
        """The values themselves where they are few, else round numbers or some of them."""
        if self.numeric and len(self.names) > MOST_TICKS:
            return self._axis.ticks()
        shown = self.names[:: -(-len(self.names) // MOST_TICKS)]
        return tuple(Tick(self(name), short(name, 4 + 24 // len(shown))) for name in shown)


def effects(sweep: SweepFolder, metric: str) -> list[Effect]:
    """One chart for each parameter that takes several values; all share the axis of the metric."""
    jobs = sweep.ranked(metric)
    if not jobs:
        return []
    values = [job.numbers[metric] for job in jobs]
    up = Axis(min(values), max(values), BOX.up, _logarithmic(values))
    found = []
    for name in sweep.parameters:
        here = [job for job in jobs if name in job.varied]
        if len({job.varied[name] for job in here}) > 1:
            found.append(_effect(name, metric, here, up))
    return found


def _effect(name: str, metric: str, jobs: Sequence[SweptJob], up: Axis) -> Effect:
    start, end = BOX.across
    across = Values([job.varied[name] for job in jobs], (start + INSET, end - INSET))
    groups: dict[str, list[float]] = {value: [] for value in across.names}
    for job in jobs:
        groups[job.varied[name]].append(job.numbers[metric])
    means = [(across(value), up(fmean(numbers))) for value, numbers in groups.items()]
    spots = [
        Spot(across(job.varied[name]), up(value), f"{job.label}: {metric} = {value:.5g}")
        for job in jobs
        for value in [job.numbers[metric]]
    ]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in means)
    return Effect(name, metric, tuple(spots), line, across.ticks(), up.ticks())


def parallel(sweep: SweepFolder) -> Parallel | None:
    """Parallel coordinates of the sweep's metric; None with fewer than two jobs or parameters."""
    jobs = [j for j in sweep.ranked() if all(name in j.varied for name in sweep.parameters)]
    names = [n for n in sweep.parameters if len({job.varied[n] for job in jobs}) > 1]
    if len(jobs) < 2 or not names:
        return None
    width = max(BOX.width, 100 + AXIS_ROOM * len(names))
    box = Box(width, 240, left=24, right=76, top=26, bottom=16)
    numbers = [job.numbers[sweep.metric] for job in jobs]
    metric = Axis(min(numbers), max(numbers), box.up, _logarithmic(numbers))
    start, end = box.across
    xs = [start + (end - start) * k / len(names) for k in range(len(names) + 1)]
    scales = [Values([job.varied[name] for job in jobs], box.up) for name in names]
    titles = [*(short(name.rsplit(".", 1)[-1], 20) for name in names), sweep.metric]
    ticks = [*(scale.ticks() for scale in scales), metric.ticks()]
    axes = [Upright(*axis) for axis in zip(titles, xs, ticks, strict=True)]
    best, worst = metric(numbers[0]), metric(numbers[-1])
    paths = []
    for job, number in zip(jobs, numbers, strict=True):
        ys = [scale(job.varied[name]) for name, scale in zip(names, scales, strict=True)]
        points = zip(xs, [*ys, metric(number)], strict=True)
        share = 0.0 if best == worst else (metric(number) - best) / (worst - best)
        text = f"{job.label}: {sweep.metric} = {number:.5g}"
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        paths.append(Path(line, round(share * (HUES - 1)), text))
    return Parallel(box, tuple(axes), tuple(reversed(paths)))  # the best is drawn last, on top


def _logarithmic(values: Sequence[float]) -> bool:
    """Whether a few values are far above the most, as of jobs that diverged."""
    return min(values) > 0 and max(values) / median(values) > LOG_SPAN
