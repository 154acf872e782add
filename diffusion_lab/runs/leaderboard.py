"""The leaderboard of a sweep: which setting is best, over all seeds that it was run with."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

from diffusion_lab.files import read_record, write_atomically

SEED = "seed"
"""What varies this key alone is one setting, tried several times."""
FINISHED = "finished"
"""`status` in summary.json of a run that came to its end."""
PRUNED = "pruned"
"""A job that was given up since others did better: done, but in no mean."""
DONE = (FINISHED, PRUNED)
"""Statuses of jobs that nothing is left to do for."""
LEVEL = 0.95


class Goal(NamedTuple):
    """What jobs are compared by: a metric, and "min" or "max"."""

    metric: str = "val/loss"
    mode: str = "min"

    @classmethod
    def of(cls, known: Mapping[str, Any]) -> Goal:
        """That of a config's node `sweep`, or of sweep.json; the defaults where it is silent."""
        return cls(*(str(known.get(name, cls._field_defaults[name])) for name in cls._fields))


@dataclass(frozen=True)
class Job:
    """One job of a sweep, as its folder tells of it.

    Attributes:
        folder: The run's folder; its name is the job's.
        status: finished, pruned, running, refused, failed or interrupted.
        varied: Key -> value of what varies in the sweep.
        metrics: The last value of each logged metric.
        seconds: How long it took, resumptions included; None where it is not known.
        error: What stopped it.
        skipped: Whether it was finished before the command was typed.
        command: Mark of the command that it was last part of.
        setting: Hash of its config without the seed: jobs of several commands may lie in one
            folder, and differ by more than what varied in each.
    """

    folder: Path
    status: str
    varied: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    seconds: float | None = None
    error: str = ""
    skipped: bool = False
    command: str | None = None
    setting: str = ""

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def done(self) -> bool:
        """Whether nothing is left to do for it."""
        return self.status in DONE


class SettingEstimate(NamedTuple):
    """A mean over seeds with its 95 % interval (Student's t); no interval of a single run."""

    mean: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        """As in "0.1234 (0.1200 to 0.1268)"."""
        between = self.low is not None and self.high is not None
        return f"{self.mean:.5g}" + (f" ({self.low:.5g} to {self.high:.5g})" if between else "")


@dataclass(frozen=True)
class Setting:
    """Finished jobs that differ by their seed alone.

    Attributes:
        varied: What varies, the seed left out.
        jobs: The finished jobs.
    """

    varied: Mapping[str, str]
    jobs: tuple[Job, ...]

    def estimate(self, metric: str) -> SettingEstimate | None:
        """Mean and interval of a metric over the jobs that have it; None where none has."""
        values = [job.metrics[metric] for job in self.jobs if metric in job.metrics]
        if not values:
            return None
        mean, count = fmean(values), len(values)
        if count == 1:
            return SettingEstimate(mean)
        from scipy.special import stdtrit  # its import is not needed for single runs

        half = float(stdtrit(count - 1, 0.5 + LEVEL / 2)) * stdev(values) / math.sqrt(count)
        return SettingEstimate(mean, mean - half, mean + half)


def jobs_of(sweep: Path) -> list[Job]:
    """All jobs in a sweep's folder, in the order of their names."""
    found = []
    for file in sorted(sweep.glob("*/job.json")):
        record = read_record(file)
        if record:
            found.append(_job(file.parent, record))
    return found


def _job(folder: Path, record: Mapping[str, Any]) -> Job:
    summary = read_record(folder / "summary.json")
    metrics, varied = summary.get("metrics"), record.get("varied")
    seconds = summary.get("seconds", record.get("seconds"))
    return Job(
        folder=folder,
        status=str(record.get("status")),
        varied={str(k): str(v) for k, v in varied.items()} if isinstance(varied, dict) else {},
        metrics={k: float(v) for k, v in metrics.items() if isinstance(v, int | float)}
        if isinstance(metrics, dict)
        else {},
        seconds=float(seconds) if isinstance(seconds, int | float) else None,
        error=one_line(record.get("error")),
        skipped=bool(record.get("skipped")),
        command=record.get("sweep"),
        setting=str(record.get("setting", "")),
    )


def one_line(error: object) -> str:
    """The faults of a message in one line, without its heading."""
    lines = [line.strip(" -") for line in str(error or "").splitlines() if line.strip()]
    return "; ".join(lines[1:] or lines)


def parameters_of(jobs: Iterable[Job]) -> list[str]:
    """Keys that vary, in the order in which they were typed."""
    return list(dict.fromkeys(key for job in jobs for key in job.varied))


def settings(jobs: Sequence[Job], goal: Goal) -> list[Setting]:
    """Finished jobs by setting, the best mean first; those without the metric come last."""
    groups: dict[tuple[Any, ...], list[Job]] = {}
    for job in jobs:
        if job.status == FINISHED:
            varied = ((name, value) for name, value in job.varied.items() if name != SEED)
            groups.setdefault((job.setting, *varied), []).append(job)
    found = [Setting(dict(key[1:]), tuple(group)) for key, group in groups.items()]
    sign = -1.0 if goal.mode == "max" else 1.0

    def rank(setting: Setting) -> float:
        estimate = setting.estimate(goal.metric)
        return math.inf if estimate is None else sign * estimate.mean

    return sorted(found, key=rank)


def write_tables(sweep: Path, goal: Goal, jobs: Sequence[Job] | None = None) -> None:
    """Write sweep.csv (a row a job), leaderboard.csv (a row a setting) and sweep.json.

    Args:
        sweep: The sweep's folder.
        goal: What settings are ordered by.
        jobs: Its jobs; None: all that the folder has.
    """
    jobs = jobs_of(sweep) if jobs is None else jobs
    keys = parameters_of(jobs)
    _write_csv(sweep / "sweep.csv", _job_rows(jobs, keys))
    _write_csv(sweep / "leaderboard.csv", _setting_rows(settings(jobs, goal), keys))
    known = read_record(sweep / "sweep.json")
    record = known | {"metric": goal.metric, "mode": goal.mode, "parameters": keys}
    write_atomically(sweep / "sweep.json", (json.dumps(record, indent=1) + "\n").encode())


def _job_rows(jobs: Sequence[Job], keys: Sequence[str]) -> list[list[Any]]:
    metrics = sorted({name for job in jobs for name in job.metrics})
    rows: list[list[Any]] = [["job", "status", *keys, *metrics, "seconds", "error"]]
    for job in jobs:
        values: list[Any] = [job.varied.get(key, "") for key in keys]
        values += [job.metrics.get(name, "") for name in metrics]
        seconds = "" if job.seconds is None else round(job.seconds, 1)
        rows.append([job.name, job.status, *values, seconds, job.error])
    return rows


def _setting_rows(found: Sequence[Setting], keys: Sequence[str]) -> list[list[Any]]:
    keys = [key for key in keys if key != SEED]
    metrics = sorted({name for setting in found for job in setting.jobs for name in job.metrics})
    metrics = [name for name in metrics if "_by_level/" not in name]  # sweep.csv has them
    heads = [f"{name}{end}" for name in metrics for end in ("", "_low", "_high")]
    rows: list[list[Any]] = [[*keys, "runs", *heads]]
    for setting in found:
        row: list[Any] = [setting.varied.get(key, "") for key in keys]
        row.append(len(setting.jobs))
        for name in metrics:
            estimate = setting.estimate(name) or ("", None, None)
            row += ["" if value is None else value for value in estimate]
        rows.append(row)
    return rows


def _write_csv(path: Path, rows: Iterable[Sequence[Any]]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    write_atomically(path, text.getvalue().encode())
