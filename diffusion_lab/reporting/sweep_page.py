"""The page of a sweep: which setting is best, what each parameter does, and every job."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from diffusion_lab.reporting.curves import Chart, overlay
from diffusion_lab.reporting.effects import effects, parallel
from diffusion_lab.reporting.rendering import Album, Picture
from diffusion_lab.reporting.run_facts import duration
from diffusion_lab.reporting.scoring import TableCell
from diffusion_lab.runs.leaderboard import FINISHED, PRUNED, SettingEstimate
from diffusion_lab.runs.records import grids, read_metrics
from diffusion_lab.runs.sweep_records import (
    SweepFolder,
    SweptJob,
    as_number,
    read_sweep,
    short,
)

MOST_GRIDS = 60
MOST_CURVES = 60
MOST_GRID_BYTES = 4_000_000


def sweep_story(folder: Path, target: Path) -> dict[str, Any]:
    """Everything the page of a sweep shows.

    Args:
        folder: the sweep's folder.
        target: the folder that the page will stand in; links are relative to it.
    """
    sweep = read_sweep(folder)
    album = Album(folder, MOST_GRID_BYTES)
    counts = Counter(job.status or "recorded" for job in sweep.jobs)
    return {
        "title": folder.resolve().name,
        "status": f"{len(sweep.jobs)} jobs: "
        + ", ".join(f"{count} {status}" for status, count in counts.items()),
        "metric": sweep.metric,
        "better": "larger" if sweep.mode == "max" else "smaller",
        "best": _best(sweep),
        "leaderboard": _leaderboard(sweep),
        "effects": [(name, found) for name in sweep.shown if (found := effects(sweep, name))],
        "parallel": parallel(sweep),
        "curves": _curves(sweep),
        "grids": _grids(sweep, album, target),
        "jobs": _jobs(sweep, target),
        "failed": [
            (job.name, job.status, job.error)
            for job in sweep.jobs
            if job.status not in (FINISHED, PRUNED, "")
        ],
    }


def _best(sweep: SweepFolder) -> list[tuple[str, str]]:
    """The best setting, and its metric."""
    header, rows = sweep.leaderboard
    if rows and sweep.metric in header:
        row = dict(zip(header, rows[0], strict=True))
        value = _estimate(row, sweep.metric)
        if value.text == "–":
            return []
        named = [(n, row[n]) for n in sweep.parameters if row.get(n)]
        return [*named, (sweep.metric, value.text)]
    ranked = sweep.ranked()
    if not ranked:
        return []
    return [*ranked[0].varied.items(), (sweep.metric, f"{ranked[0].numbers[sweep.metric]:.5g}")]


def _leaderboard(sweep: SweepFolder) -> tuple[list[str], list[list[TableCell]]]:
    """One row a setting: what varies, runs, and metrics with their intervals over seeds."""
    header, rows = sweep.leaderboard
    names = [name for name in sweep.parameters if name in header]
    names += ["runs"] if "runs" in header else []
    metrics = [name for name in sweep.metrics if name in header]
    table = []
    for row in rows:
        cells = dict(zip(header, row, strict=True))
        line = [TableCell(short(cells[name], 40), cells[name]) for name in names]
        table.append(line + [_estimate(cells, name) for name in metrics])
    return [*names, *metrics], table


def _estimate(row: dict[str, str], name: str) -> TableCell:
    """A mean with its interval, if it has one."""
    value, low, high = (as_number(row.get(name + end, "")) for end in ("", "_low", "_high"))
    if value is None:
        return TableCell("–", "")
    return TableCell(str(SettingEstimate(value, low, high)), repr(value))


def _jobs(sweep: SweepFolder, target: Path) -> dict[str, Any]:
    """Every job, the best first, those without a value last."""
    ranked = sweep.ranked()
    jobs = [*ranked, *[job for job in sweep.jobs if job not in ranked]]
    metrics = [name for name in sweep.metrics if name != "seconds"]
    header = ["job", "status", *sweep.parameters, *metrics, "time", "error"]
    return {
        "header": header,
        "rows": [
            {
                "link": _link(job, target),
                "name": job.name,
                "good": job.status == FINISHED,
                "cells": _cells(job, sweep.parameters, metrics),
            }
            for job in jobs
        ],
    }


def _cells(job: SweptJob, parameters: Sequence[str], metrics: Sequence[str]) -> list[TableCell]:
    seconds = job.numbers.get("seconds")
    cells = [TableCell(job.status, job.status, "status")]
    cells += [
        TableCell(short(job.varied.get(n, ""), 40), job.varied.get(n, "")) for n in parameters
    ]
    for name in metrics:
        value = job.numbers.get(name)
        cells.append(
            TableCell("–", "") if value is None else TableCell(f"{value:.5g}", repr(value))
        )
    cells.append(
        TableCell("–", "") if seconds is None else TableCell(duration(seconds), repr(seconds))
    )
    return [*cells, TableCell(job.error, job.error, "error")]


def _link(job: SweptJob, target: Path) -> str:
    """A job's own page, relative to this one; "" where it has none."""
    if job.folder is None or not (job.folder / "report.html").is_file():
        return ""
    # "./" first, so that no name can be read as another scheme than the page's own
    return "./" + quote(Path(os.path.relpath(job.folder / "report.html", target)).as_posix())


def _curves(sweep: SweepFolder) -> list[Chart]:
    """The sweep's metric and the training loss of all jobs over the steps, the best job first."""
    runs = [job for job in [*sweep.ranked(), *sweep.jobs] if job.folder is not None]
    chosen = list({job.name: job for job in runs}.values())[:MOST_CURVES]
    logged = [(job, read_metrics(job.folder / "metrics.csv", [])) for job in chosen if job.folder]
    named = Counter(job.label for job, _ in logged)
    names = [j.label if named[j.label] == 1 else f"{j.label} ({j.name})" for j, _ in logged]
    found = []
    for metric in dict.fromkeys([sweep.metric, "val/loss", "train/loss"]):
        series = {n: rows.get(metric, []) for n, (_, rows) in zip(names, logged, strict=True)}
        chart = overlay(metric, series)
        if chart is not None and any(len(line.dots) > 1 for line in chart.lines):
            found.append(chart)
    return found


def _grids(sweep: SweepFolder, album: Album, target: Path) -> list[dict[str, Any]]:
    """The last grid of each job, the best first."""
    ranked = sweep.ranked()
    jobs = [*ranked, *[job for job in sweep.jobs if job not in ranked]]
    listed = {job.folder for job in jobs}
    folders = sorted(p.parent for p in sweep.path.glob("*/samples") if p.parent not in listed)
    jobs += [SweptJob(path.name, "", {}, {}, folder=path) for path in folders]
    shown: list[dict[str, Any]] = []
    for job in jobs:
        picture = _last_grid(job, album)
        if picture is not None and len(shown) < MOST_GRIDS:
            value = job.numbers.get(sweep.metric)
            shown.append(
                {
                    "picture": picture,
                    "label": job.label,
                    "value": "" if value is None else f"{sweep.metric} = {value:.5g}",
                    "link": _link(job, target),
                }
            )
    return shown


def _last_grid(job: SweptJob, album: Album) -> Picture | None:
    drawn = grids(job.folder)[-1:] if job.folder is not None else []
    picture = album(drawn[0], job.label) if drawn else None
    return picture if picture is not None and picture.source else None
