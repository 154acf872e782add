"""What the terminal shows at the end of a sweep."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from diffusion_lab.runs.leaderboard import (
    FINISHED,
    SEED,
    Goal,
    Job,
    Setting,
    parameters_of,
    settings,
)
from diffusion_lab.runs.sweep_records import short


def show_sweep(jobs: Sequence[Job], goal: Goal) -> None:
    """Print the leaderboard, and the jobs that have no place in it.

    Args:
        jobs: The jobs of one command.
        goal: What settings are ordered by.
    """
    console = Console()
    found = settings(jobs, goal)
    if found:
        console.print(_leaderboard_table(found, jobs, goal))
        if all(setting.estimate(goal.metric) is None for setting in found):
            print(_not_logged(found, goal))
    others = [job for job in jobs if job.status != FINISHED]
    if others:
        console.print(_unfinished_table(others))


def _leaderboard_table(found: Sequence[Setting], jobs: Sequence[Job], goal: Goal) -> Table:
    better = "larger" if goal.mode == "max" else "smaller"
    skipped = sum(job.skipped for job in jobs)
    before = f", {skipped} of them finished before" if skipped else ""
    count = "1 job" if len(jobs) == 1 else f"{len(jobs)} jobs"
    table = Table(title=f"{count}{before}; {goal.metric}: {better} is better")
    keys = [key for key in parameters_of(jobs) if key != SEED]
    several = any(len(setting.jobs) > 1 for setting in found)
    table.add_column("")
    for key in keys:
        table.add_column(key, overflow="fold")
    if several:
        table.add_column("runs", justify="right")
    table.add_column(f"{goal.metric} (95 %)" if several else goal.metric, overflow="fold")
    table.add_column("seconds", justify="right")
    for number, setting in enumerate(found):
        estimate = setting.estimate(goal.metric)
        best = number == 0 and estimate is not None and len(found) > 1
        seconds = [job.seconds for job in setting.jobs if job.seconds is not None]
        table.add_row(
            "best" if best else "",
            *(escape(short(setting.varied.get(key, ""))) for key in keys),
            *([str(len(setting.jobs))] if several else []),
            "–" if estimate is None else str(estimate),
            f"{sum(seconds) / len(seconds):.0f}" if seconds else "",
            style="bold" if best else None,
        )
    return table


def _unfinished_table(jobs: Sequence[Job]) -> Table:
    table = Table(title="not in the leaderboard")
    for title in ("job", "status", "error"):
        table.add_column(title, overflow="fold")
    for job in jobs:
        table.add_row(escape(job.name), job.status, escape(job.error))
    return table


def _not_logged(found: Sequence[Setting], goal: Goal) -> str:
    names = sorted({name for setting in found for job in setting.jobs for name in job.metrics})
    logged = f"they logged {', '.join(names)}" if names else "they logged nothing"
    return (
        f"No job logged {goal.metric} (sweep.metric): {logged}. Validations come every "
        "trainer.check_val_every_n_epoch epochs; shorter runs have none."
    )
