"""The page of one run: what it drew, how it learned, what it is worth, and how to get it again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffusion_lab.reporting.charts import charts
from diffusion_lab.reporting.html_tables import paired_differences, study_table
from diffusion_lab.reporting.inline_images import MOST_GRIDS, ImageInliner, InlineImage, evenly
from diffusion_lab.reporting.run_facts import commands, environment, facts
from diffusion_lab.reporting.score_rows import scores
from diffusion_lab.runs.records import PageRecord, RunFolder, StudyRecord, caption, show

MOST_OF_A_FIGURE = 12
"""Images shown of a figure that has many."""
MOST_FRAMES = 40
"""Frames shown of a denoising."""
MOST_GRID_BYTES = 3_000_000
MOST_RAW_BYTES = 1_000_000
MOST_PAGE_BYTES = 3_500_000
"""Images beyond this are named by their file, so that the report can still be sent by mail."""


def run_context(run: RunFolder) -> dict[str, Any]:
    """Everything the page of a run shows."""
    inline = ImageInliner(run.path, MOST_PAGE_BYTES)
    return {
        "title": run.path.resolve().name,
        "experiment": str(run.summary.get("experiment") or ""),
        "status": show(run.summary.get("status", "unknown")),
        "when": str(run.summary.get("started") or "").replace("T", " ")[:16],
        "warnings": _warnings(run),
        "facts": facts(run.summary),
        "grids": _grids(run.grids, run.path, MOST_GRID_BYTES),
        "raw_grids": _grids(run.raw_grids, run.path, MOST_RAW_BYTES),
        "films": [shown for page in run.pages if page.is_film for shown in _film(page, inline)],
        "charts": charts(run.metrics),
        "scores": scores(run, inline),
        "studies": [_study_section(study, inline) for study in run.studies],
        "figures": [
            shown for page in run.pages if not page.is_film for shown in _figure(page, inline)
        ],
        "differs": run.differs,
        "overrides": [line.partition("=")[::2] for line in run.overrides],
        "config": run.config,
        "environment": environment(run.summary),
        "commands": [*commands(run)],
    }


def _warnings(run: RunFolder) -> list[str]:
    """What a reader must not miss."""
    data = run.summary.get("data")
    fallback = data.get("fallback") if isinstance(data, dict) else None
    status = run.summary.get("status")
    why = f" {run.summary['error']}" if run.summary.get("error") else ""
    ended = [] if status in ("finished", None) else [f"This run is {status}, not finished.{why}"]
    failed = [f"Figure {p.name} could not be made: {p.error}" for p in run.pages if p.error]
    return [*([str(fallback)] if fallback else []), *ended, *failed, *run.remarks]


def _grids(paths: Sequence[Path], folder: Path, most: int) -> list[InlineImage]:
    """The grids of training, evenly thinned where they are too many or too large."""
    size = sum(path.stat().st_size for path in paths)
    room = int(len(paths) * most / size) if size else 0
    chosen = evenly(paths, max(1, min(MOST_GRIDS, room)))
    return ImageInliner(folder, size).several(chosen, [caption(path) for path in chosen])


def _film(page: PageRecord, inline: ImageInliner) -> list[dict[str, Any]]:
    """A denoising, most noise first."""
    files = evenly(page.files, MOST_FRAMES)
    frames = inline.several(files, [f"frame {k} of {len(files)}" for k in range(1, len(files) + 1)])
    if len(frames) < 2 or not all(frame.source for frame in frames):
        return _figure(page, inline)
    return [_titled(page) | {"frames": frames}]


def _figure(page: PageRecord, inline: ImageInliner) -> list[dict[str, Any]]:
    """A figure with its images; none where it has none."""
    files = evenly(page.files, MOST_OF_A_FIGURE)
    images = inline.several(files, [path.stem for path in files])
    return [_titled(page) | {"images": images}] if images else []


def _titled(page: PageRecord) -> dict[str, Any]:
    return {"title": page.name.replace("_", " "), "caption": page.caption}


def _study_section(study: StudyRecord, inline: ImageInliner) -> dict[str, Any]:
    """Figure, table, paired differences and samples of a study."""
    header, rows = study_table(study.table)
    images = inline.several(study.pictures, [path.stem for path in study.pictures])
    return {
        "name": study.name.replace("_", " "),
        "claim": study.claim,
        "header": header,
        "rows": rows,
        "differences": paired_differences(study.differences),
        "images": images,
    }
