"""A sweep as one more run of its group: leaderboard, parallel coordinates, report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from diffusion_lab.figures.parallel_coordinates import parallel_image, ranking
from diffusion_lab.runs.leaderboard import FINISHED, Goal, Job, parameters_of
from diffusion_lab.runs.sweep_records import as_number
from diffusion_lab.training.loggers.wandb_run import WandbRun

LARGEST_REPORT = 8_000_000
"""Bytes of a report.html that is logged, at most."""


def log_jobs(folder: Path, jobs: Sequence[Job], goal: Goal, logger: Mapping[str, Any]) -> None:
    """`log_sweep` of the finished jobs, where `logger`, their plain node, sent them there."""
    if str(logger.get("_target_")).endswith(f".{WandbRun.__name__}"):
        rows = [{**job.varied, **job.metrics} for job in jobs if job.status == FINISHED]
        mode: Literal["min", "max"] = "max" if goal.mode == "max" else "min"
        log_sweep(folder, rows, parameters_of(jobs), goal.metric, mode, logger)


def log_sweep(
    folder: Path,
    rows: Sequence[Mapping[str, Any]],
    parameters: Sequence[str],
    metric: str,
    mode: Literal["min", "max"],
    logger: Mapping[str, Any],
) -> None:
    """Write a run with job type "sweep" into a sweep's group at Weights & Biases.

    It holds the table "leaderboard" (best first, then the rows without the metric), the picture
    "parallel_coordinates", the page "report" where the folder has one that is not too large, and
    the best row as summary. Like every logger it never raises: what fails is a warning.

    Args:
        folder: The sweep's folder; W&B's files go to its folder `wandb`.
        rows: What is known of each job, or of each setting: values by name.
        parameters: Names of what varied; they come first in the table and in the picture.
        metric: What the rows are ranked by.
        mode: "min" where the smallest value is the best, "max" where the largest is.
        logger: Arguments of the jobs' `WandbRun`; without a group it is the folder's name.
    """
    run = WandbRun(
        folder,
        project=logger["project"],
        name=f"{folder.name}-sweep",
        group=logger["group"] or folder.name,
        job_type="sweep",
        tags=logger["tags"],
        offline=logger["offline"],
        patience=logger["patience"],
    )
    best = ranking(rows, metric, mode)
    run.log_hyperparams({"sweep": {"parameters": [*parameters], "metric": metric, "mode": mode}})
    columns, cells = _leaderboard(
        [*best, *(row for row in rows if row not in best)], parameters, metric
    )
    run.log_table("leaderboard", columns, cells, 0)
    if best:
        run.log_picture("parallel_coordinates", parallel_image(best, parameters, metric, mode), 0)
        run.log_metrics({f"best/{metric}": float(best[0][metric])}, 0)
    report = folder / "report.html"
    if report.is_file() and report.stat().st_size <= LARGEST_REPORT:
        run.log_page("report", report)
    run.finalize("success")


def _leaderboard(
    rows: Sequence[Mapping[str, Any]], parameters: Sequence[str], metric: str
) -> tuple[list[str], list[list[Any]]]:
    """Head and cells; a column of which every value spells a number holds numbers."""
    others = [name for row in rows for name in row if name not in (*parameters, metric)]
    columns = [*parameters, metric, *dict.fromkeys(others)]
    cells: list[list[float | str | None]] = []
    for name in columns:
        values = [row.get(name) for row in rows]
        there = [value for value in values if value not in (None, "")]
        if all(as_number(value) is not None for value in there):
            cells.append([as_number(value) for value in values])
        else:
            cells.append([None if value is None else str(value) for value in values])
    return columns, [list(row) for row in zip(*cells, strict=True)]
