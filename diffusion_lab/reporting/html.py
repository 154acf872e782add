"""One page that tells the story of a run, or of a sweep: `report.html`."""

from __future__ import annotations

from pathlib import Path

from diffusion_lab.files import write_atomically
from diffusion_lab.reporting.rendering import render
from diffusion_lab.reporting.run_page import story
from diffusion_lab.reporting.sweep_page import sweep_story
from diffusion_lab.runs.records import read_run


def write_report(run_dir: str | Path, out: str | Path | None = None) -> Path:
    """Write ``report.html`` of a run folder, or of a sweep folder (one that holds ``sweep.csv``).

    Args:
        run_dir: the folder; only its own files are read.
        out: where to write; None for ``run_dir/report.html``.

    Returns:
        The page's path.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: the folder holds nothing of a run or a sweep.
    """
    folder = Path(run_dir)
    target = Path(out) if out is not None else folder / "report.html"
    if (folder / "sweep.csv").is_file():
        page = render("sweep.html.j2", sweep_story(folder, target.parent))
        return write_atomically(target, page)
    run = read_run(folder)
    if run.empty:
        raise ValueError(
            f"run={str(run_dir)!r} holds no config.yaml, summary.json, metrics.csv or samples/: "
            "give the folder that a training run printed at its end"
        )
    return write_atomically(target, render("run.html.j2", story(run)))
