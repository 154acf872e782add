"""What a sweep's folder tells: its tables, read forgivingly, and where its jobs are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from diffusion_lab.files import read_record
from diffusion_lab.runs.records import read_table

_METRIC = ("train/", "val/", "test/")
_OWN = ("job", "run", "status", "rank", "seconds", "error")
"""Columns of sweep.csv that are neither a parameter nor a metric."""
_NO_VERDICT = ("train/lr", "train/grad_norm")
"""Logged, but neither good nor bad."""
_NEXT = ("val/agreement", "val/fd_ratio", "val/sw_ratio", "val/loss", "train/loss", "seconds")
"""What is shown beside the sweep's own metric, where it is there."""


@dataclass(frozen=True)
class SweptJob:
    """One job: its name, how it ended, what it varied, and its numbers by name."""

    name: str
    status: str
    varied: Mapping[str, str]
    numbers: Mapping[str, float]
    error: str = ""
    folder: Path | None = None

    @property
    def label(self) -> str:
        """What it varied, in short."""
        words = [f"{key.rsplit('.', 1)[-1]}={value}" for key, value in self.varied.items()]
        return " ".join(words) or self.name


@dataclass(frozen=True)
class SweepFolder:
    """The readable content of a sweep's folder.

    Attributes:
        path: the folder.
        jobs: those of sweep.csv, in its order.
        parameters: what varies.
        metrics: names of numbers, that of the sweep first.
        mode: "min" or "max", which values of the first metric are better.
        leaderboard: header and rows of leaderboard.csv; empty without one.
    """

    path: Path
    jobs: tuple[SweptJob, ...] = ()
    parameters: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    mode: str = "min"
    leaderboard: tuple[list[str], list[list[str]]] = field(default_factory=lambda: ([], []))

    @property
    def metric(self) -> str:
        """What jobs are compared by; "" where they have no numbers."""
        return self.metrics[0] if self.metrics else ""

    @property
    def shown(self) -> list[str]:
        """The sweep's metric and up to two more."""
        return [*self.metrics[:1], *[m for m in _NEXT if m in self.metrics[1:]][:2]]

    def ranked(self, metric: str = "") -> list[SweptJob]:
        """Jobs with a value of the metric, the best first."""
        name = metric or self.metric
        sign = -1 if self.mode == "max" and name == self.metric else 1
        found = [job for job in self.jobs if name in job.numbers]
        return sorted(found, key=lambda job: sign * job.numbers[name])


def read_sweep(folder: Path) -> SweepFolder:
    """Read sweep.csv, and leaderboard.csv and sweep.json where they are there."""
    header, rows = read_table(folder / "sweep.csv")
    about = read_record(folder / "sweep.json")
    table = [dict(zip(header, row, strict=True)) for row in rows]
    named = about.get("parameters")
    given = [str(name) for name in named] if isinstance(named, list) else []
    parameters = [name for name in given if name in header] or _parameters(header)
    jobs = tuple(_swept_job(folder, row, parameters) for row in table)
    known = [name for name in header if any(name in job.numbers for job in jobs)]
    metrics = [name for name in known if "_by_level/" not in name and name not in _NO_VERDICT]
    first = str(about.get("metric") or "val/loss")
    metrics.sort(key=lambda name: (name != first, name == "seconds", not name.startswith("val/")))
    board = folder / "leaderboard.csv"
    return SweepFolder(
        path=folder,
        jobs=jobs,
        parameters=tuple(parameters),
        metrics=tuple(metrics),
        mode=str(about.get("mode") or "min"),
        leaderboard=read_table(board) if board.is_file() else ([], []),
    )


def _parameters(header: Sequence[str]) -> list[str]:
    """Columns that vary, where sweep.json does not name them."""
    return [name for name in header if name not in _OWN and not name.startswith(_METRIC)]


def _swept_job(folder: Path, row: Mapping[str, str], parameters: Sequence[str]) -> SweptJob:
    name = row.get("job") or row.get("run") or ""
    own = folder / name
    inside = bool(name) and own.is_dir() and own.resolve().parent == folder.resolve()
    return SweptJob(
        name=name,
        status=row.get("status", ""),
        varied={key: row[key] for key in parameters if row.get(key)},
        numbers=dict(_numbers(row, parameters)),
        error=row.get("error", ""),
        folder=own if inside else None,
    )


def _numbers(row: Mapping[str, str], parameters: Sequence[str]) -> Iterator[tuple[str, float]]:
    for name, text in row.items():
        if name in parameters or name in set(_OWN) - {"seconds"}:
            continue
        value = as_number(text)
        if value is not None:
            yield name, value


def as_number(value: object) -> float | None:
    """The finite number that a value is or spells; None where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def short(value: str, most: int | None = None) -> str:
    """A value of a parameter; long decimals to four digits, other texts cut to `most` letters."""
    number = as_number(value)
    if number is not None and len(value) > 8:
        return f"{number:.4g}"
    return value if most is None or len(value) <= most else value[: most - 1] + "…"
