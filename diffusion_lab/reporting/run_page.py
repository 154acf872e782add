"""The page of one run: what it drew, how it learned, what it is worth, and how to get it again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffusion_lab.reporting.commands import commands
from diffusion_lab.reporting.curves import charts
from diffusion_lab.reporting.rendering import Album, Picture
from diffusion_lab.reporting.run_facts import environment, facts
from diffusion_lab.reporting.scoring import (
    STRIP,
    Figure,
    confusion,
    groups_of,
    number,
    per_class,
)
from diffusion_lab.reporting.study_tables import paired_differences, study_table
from diffusion_lab.runs.records import PageRecord, RunFolder, StudyRecord, caption, show
from diffusion_lab.spread import spread

MOST_GRIDS = 60
MOST_OF_A_PAGE = 12
"""Pictures shown of a page that has many."""
MOST_MOMENTS = 40
"""Moments shown of a denoising."""
MOST_GRID_BYTES = 3_000_000
MOST_RAW_BYTES = 1_000_000
MOST_PAGE_BYTES = 3_500_000
"""Pictures beyond this are named by their file, so that the report can still be sent by mail."""


def story(run: RunFolder) -> dict[str, Any]:
    """Everything the page of a run shows."""
    album = Album(run.path, MOST_PAGE_BYTES)
    return {
        "title": run.path.resolve().name,
        "experiment": str(run.summary.get("experiment") or ""),
        "status": show(run.summary.get("status", "unknown")),
        "when": str(run.summary.get("started") or "").replace("T", " ")[:16],
        "warnings": _warnings(run),
        "facts": facts(run.summary),
        "grids": _grids(run.grids, run.path, MOST_GRID_BYTES),
        "raw_grids": _grids(run.raw_grids, run.path, MOST_RAW_BYTES),
        "films": [shown for page in run.pages if page.is_film for shown in _film(page, album)],
        "charts": charts(run.metrics),
        "evaluation": _evaluation(run, album),
        "studies": [_study(study, album) for study in run.studies],
        "pages": [shown for page in run.pages if not page.is_film for shown in _page(page, album)],
        "differs": run.differs,
        "overrides": [line.partition("=")[::2] for line in run.overrides],
        "config": run.config,
        "environment": environment(run.summary),
        "commands": commands(run),
        "strip": STRIP,
    }


def _warnings(run: RunFolder) -> list[str]:
    """What a reader must not miss."""
    data = run.summary.get("data")
    fallback = data.get("fallback") if isinstance(data, dict) else None
    status = run.summary.get("status")
    why = f" {run.summary['error']}" if run.summary.get("error") else ""
    ended = [] if status in ("finished", None) else [f"This run is {status}, not finished.{why}"]
    failed = [f"Page {p.name} could not be made: {p.error}" for p in run.pages if p.error]
    return [*([str(fallback)] if fallback else []), *ended, *failed, *run.remarks]


def _grids(paths: Sequence[Path], folder: Path, most: int) -> list[Picture]:
    """The grids of training, evenly thinned where they are too many or too large."""
    size = sum(path.stat().st_size for path in paths)
    room = int(len(paths) * most / size) if size else 0
    count = max(1, min(MOST_GRIDS, room))
    album = Album(folder, size)
    chosen = [paths[k] for k in spread(len(paths), count) if paths]
    found = [album(path, caption(path)) for path in chosen]
    return [picture for picture in found if picture is not None]


def _film(page: PageRecord, album: Album) -> list[dict[str, Any]]:
    """A denoising, most noise first."""
    files = [page.files[k] for k in spread(len(page.files), MOST_MOMENTS)]
    last = len(files) - 1
    frames = [album(path, f"moment {k + 1} of {last + 1}") for k, path in enumerate(files)]
    shown = [frame for frame in frames if frame is not None]
    whole = len(shown) > 1 and all(frame.source for frame in shown)
    if not whole:
        return _page(page, album)
    return [{"title": page.name.replace("_", " "), "caption": page.caption, "frames": shown}]


def _page(page: PageRecord, album: Album) -> list[dict[str, Any]]:
    """A page with its pictures; none where it has none."""
    files = [page.files[k] for k in spread(len(page.files), MOST_OF_A_PAGE) if page.files]
    found = [album(path, path.stem) for path in files]
    shown = [picture for picture in found if picture is not None]
    if not shown:
        return []
    return [{"title": page.name.replace("_", " "), "caption": page.caption, "pictures": shown}]


def _evaluation(run: RunFolder, album: Album) -> dict[str, Any]:
    """Figures with intervals, the confusion matrix, and pictures of samples scored."""
    groups = groups_of(run.evaluation)
    if number(run.likelihood.get("mean")) is not None:
        groups.append(("Likelihood of test images", [_likelihood(run)]))
    matrix = confusion(run.evaluation)
    pictures = {path.stem.removeprefix("metrics_"): album(path) for path in run.scored}
    if matrix is not None:
        pictures.pop("confusion", None)
    what = {
        "confusion": "classes asked for (down) and read (across)",
        "nearest": "samples nearest to a training image, each above it, with their distance",
        "density": "density of test points and of samples",
    }
    return {
        "groups": groups,
        "count": show(run.evaluation.get("num_samples")),
        "calls": show(run.evaluation.get("network_calls")),
        "confusion": matrix,
        "per_class": per_class(run.evaluation),
        "pictures": [(what.get(name, name), found) for name, found in pictures.items() if found],
    }


def _likelihood(run: RunFolder) -> Figure:
    """The figure of likelihood.json."""
    mean, low, high = (number(run.likelihood.get(name)) for name in ("mean", "low", "high"))
    between = "" if low is None or high is None else f"{low:.4f} to {high:.4f}"
    unit, count = show(run.likelihood.get("unit")), show(run.likelihood.get("num_images"))
    return Figure(unit, f"{mean:.4f}", between, "", f"of {count} images; less is better", None)


def _study(study: StudyRecord, album: Album) -> dict[str, Any]:
    """Figure, table, paired differences and samples of a study."""
    header, rows = study_table(study.table)
    found = [(path.stem, album(path)) for path in study.pictures]
    return {
        "name": study.name.replace("_", " "),
        "claim": study.claim,
        "header": header,
        "rows": rows,
        "differences": paired_differences(study.differences),
        "pictures": [(name, picture) for name, picture in found if picture is not None],
    }
