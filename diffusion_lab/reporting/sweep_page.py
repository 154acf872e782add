"""The page of a sweep: which setting is best, what each parameter does, and every job."""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from diffusion_lab.reporting.charts import Chart, effects, overlay
from diffusion_lab.reporting.html_tables import MISSING, TableCell, number_cell
from diffusion_lab.reporting.inline_images import MOST_GRIDS, ImageInliner, InlineImage
from diffusion_lab.reporting.run_facts import duration
from diffusion_lab.runs.leaderboard import FINISHED, PRUNED, SettingEstimate
from diffusion_lab.runs.records import grids, read_metrics
from diffusion_lab.runs.sweep_records import SweepFolder, SweptJob, as_number, read_sweep, short

MOST_CURVES = 60
MOST_IMAGE_BYTES = 4_000_000


def sweep_context(folder: Path, target: Path) -> dict[str, Any]:
    """Everything the page of a sweep shows.

    Args:
        folder: The sweep's folder.
        target: The folder that the page will stand in; links are relative to it.
    """
    sweep = read_sweep(folder)
    inline = ImageInliner(folder, MOST_IMAGE_BYTES)
    ranked = sweep.ranked()
    jobs = [*ranked, *(job for job in sweep.jobs if job not in ranked)]
    counts = Counter(job.status or "recorded" for job in sweep.jobs)
    return {
        "title": folder.resolve().name,
        "status": f"{len(sweep.jobs)} jobs: "
        + ", ".join(f"{count} {status}" for status, count in counts.items()),
        "metric": sweep.metric,
        "better": "larger" if sweep.mode == "max" else "smaller",
        "best": _best(sweep),
        "leaderboard": _board(sweep),
        "effects": [(name, found) for name in sweep.shown if (found := effects(sweep, name))],
        "parallel": _parallel(sweep, inline),
        "curves": _curves(jobs, sweep.metric),
        "grids": _last_grids(sweep, jobs, inline, target),
        "jobs": _jobs(sweep, jobs, target),
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
        if value is MISSING:
            return []
        named = [(n, row[n]) for n in sweep.parameters if row.get(n)]
        return [*named, (sweep.metric, value.text)]
    ranked = sweep.ranked()
    if not ranked:
        return []
    return [*ranked[0].varied.items(), (sweep.metric, f"{ranked[0].numbers[sweep.metric]:.5g}")]


def _board(sweep: SweepFolder) -> tuple[list[str], list[list[TableCell]]]:
    """One row a setting: what varies, runs, and metrics with their intervals over seeds."""
    header, rows = sweep.leaderboard
    names = [name for name in sweep.parameters if name in header]
    names += ["runs"] if "runs" in header else []
    metrics = [name for name in sweep.metrics if name in header]
    table = []
    for row in rows:
        cells = dict(zip(header, row, strict=True))
        estimates = (_estimate(cells, name) for name in metrics)
        table.append([*_varied_cells(cells, names), *estimates])
    return [*names, *metrics], table


def _estimate(row: dict[str, str], name: str) -> TableCell:
    """A mean with its interval, if it has one."""
    value, low, high = (as_number(row.get(name + end)) for end in ("", "_low", "_high"))
    return number_cell(value, "" if value is None else str(SettingEstimate(value, low, high)))


def _varied_cells(row: Mapping[str, str], names: Sequence[str]) -> list[TableCell]:
    return [TableCell(short(row.get(name, ""), 40), row.get(name, "")) for name in names]


def _parallel(sweep: SweepFolder, inline: ImageInliner) -> InlineImage | None:
    """Parallel coordinates of the sweep's metric; None with fewer than two jobs or parameters."""
    jobs = [job for job in sweep.ranked() if all(name in job.varied for name in sweep.parameters)]
    names = [n for n in sweep.parameters if len({job.varied[n] for job in jobs}) > 1]
    if len(jobs) < 2 or not names:
        return None
    from matplotlib import rc_context

    from diffusion_lab.figures.parallel_coordinates import parallel_image

    rows = [{**job.varied, sweep.metric: job.numbers[sweep.metric]} for job in jobs]
    file = io.BytesIO()
    with rc_context({"text.parse_math": False}):  # a name is no formula
        parallel_image(rows, names, sweep.metric, sweep.mode).save(file, "PNG")
    return inline.content(file.getvalue(), "parallel coordinates")


def _jobs(sweep: SweepFolder, jobs: Sequence[SweptJob], target: Path) -> dict[str, Any]:
    """Every job, the best first, those without a value last."""
    metrics = [name for name in sweep.metrics if name != "seconds"]
    rows = []
    for job in jobs:
        seconds = job.numbers.get("seconds")
        cells = [
            TableCell(job.status, kind="status"),
            *_varied_cells(job.varied, sweep.parameters),
            *(number_cell(job.numbers.get(name)) for name in metrics),
            number_cell(seconds, "" if seconds is None else duration(seconds)),
            TableCell(job.error, kind="error"),
        ]
        good = job.status == FINISHED
        rows.append({"link": _link(job, target), "name": job.name, "good": good, "cells": cells})
    header = ["job", "status", *sweep.parameters, *metrics, "time", "error"]
    return {"header": header, "rows": rows}


def _link(job: SweptJob, target: Path) -> str:
    """A job's own page, relative to this one; "" where it has none."""
    if job.folder is None or not (job.folder / "report.html").is_file():
        return ""
    # "./" first, so that no name can be read as another scheme than the page's own
    return "./" + quote(Path(os.path.relpath(job.folder / "report.html", target)).as_posix())


def _curves(jobs: Sequence[SweptJob], metric: str) -> list[Chart]:
    """The sweep's metric and the training loss of all jobs over the steps, the best job first."""
    chosen = {job.name: job for job in jobs if job.folder is not None}
    logged = [
        (job, read_metrics(job.folder / "metrics.csv", []))
        for job in [*chosen.values()][:MOST_CURVES]
        if job.folder is not None
    ]
    named = Counter(job.label for job, _ in logged)
    names = [j.label if named[j.label] == 1 else f"{j.label} ({j.name})" for j, _ in logged]
    found = []
    for name in dict.fromkeys([metric, "val/loss", "train/loss"]):
        series = {n: rows.get(name, []) for n, (_, rows) in zip(names, logged, strict=True)}
        chart = overlay(name, series)
        if chart is not None and any(len(line.dots) > 1 for line in chart.lines):
            found.append(chart)
    return found


def _last_grids(
    sweep: SweepFolder, jobs: Sequence[SweptJob], inline: ImageInliner, target: Path
) -> list[dict[str, Any]]:
    """The last grid of each job, the best first; of older sweeps, of each folder."""
    listed = {job.folder for job in jobs}
    folders = sorted(p.parent for p in sweep.path.glob("*/samples") if p.parent not in listed)
    others = (SweptJob(path.name, "", {}, {}, folder=path) for path in folders)
    shown: list[dict[str, Any]] = []
    for job in [*jobs, *others]:
        last = grids(job.folder)[-1:] if job.folder is not None else []
        for picture in inline.several(last, [job.label]):
            if picture.source and len(shown) < MOST_GRIDS:
                number = job.numbers.get(sweep.metric)
                value = "" if number is None else f"{sweep.metric} = {number:.5g}"
                link = _link(job, target)
                shown.append({"picture": picture, "label": job.label, "value": value, "link": link})
    return shown
