"""What a run folder tells: reading its files, forgiving those that are missing or broken.

A report of a run that was killed is as wanted as one of a run that ended well, so a file that
cannot be read becomes a remark on the page and not an error.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Point = tuple[float, float]
"""A step and a value."""

_MOMENT = re.compile(r"step_\d+\.png")
_GRID = re.compile(r"(epoch|step)_(\d+)\.png")


@dataclass(frozen=True)
class PageRecord:
    """One entry of artefacts.json: a page that the run made, or could not make."""

    name: str
    caption: str = ""
    files: tuple[Path, ...] = ()
    error: str = ""

    @property
    def is_film(self) -> bool:
        """Whether its pictures are the moments of one denoising, in their order."""
        return len(self.files) > 1 and all(_MOMENT.fullmatch(path.name) for path in self.files)


@dataclass(frozen=True)
class StudyRecord:
    """What one `evaluate study=NAME` left in a run's folder."""

    name: str
    claim: str
    table: tuple[Mapping[str, Any], ...]
    differences: object = None
    pictures: tuple[Path, ...] = ()


@dataclass(frozen=True)
class RunFolder:
    """The readable content of one run folder."""

    path: Path
    config: str = ""
    overrides: tuple[str, ...] = ()
    differs: tuple[tuple[str, str, str], ...] | None = None
    summary: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    likelihood: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, list[Point]] = field(default_factory=dict)
    grids: tuple[Path, ...] = ()
    raw_grids: tuple[Path, ...] = ()
    pages: tuple[PageRecord, ...] = ()
    scored: tuple[Path, ...] = ()
    studies: tuple[StudyRecord, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether nothing of a run was found."""
        return not (self.config or self.summary or self.metrics or self.grids)


def read_run(folder: str | Path) -> RunFolder:
    """Read a run folder: configuration, summary, metrics, evaluation, studies, grids, pages.

    Args:
        folder: the run folder.

    Returns:
        What could be read; ``remarks`` says what could not.

    Raises:
        FileNotFoundError: ``folder`` is not a folder.
    """
    path = Path(folder)
    if not path.is_dir():
        raise FileNotFoundError(f"run={str(folder)!r} is not a folder: give a run's or a sweep's")
    remarks: list[str] = []
    overrides = [line.strip() for line in _text(path / "overrides.txt", remarks).splitlines()]
    return RunFolder(
        path=path,
        config=_text(path / "config.yaml", remarks),
        overrides=tuple(line for line in overrides if line and not line.startswith("#")),
        differs=_differs(path / "differs.json", remarks),
        summary=_json(path / "summary.json", remarks),
        evaluation=_json(path / "metrics.json", remarks),
        likelihood=_json(path / "likelihood.json", remarks),
        metrics=read_metrics(path / "metrics.csv", remarks),
        grids=tuple(grids(path)),
        raw_grids=tuple(_numbered(path / "samples" / "raw")),
        pages=tuple(_pages(path, remarks)),
        scored=tuple(sorted(p for p in path.glob("metrics_*.png") if _is_own(p, path))),
        studies=tuple(_studies(path, remarks)),
        remarks=tuple(remarks),
    )


def grids(folder: str | Path) -> list[Path]:
    """The grids that training drew: samples/epoch_*.png, then step_*.png, each by its number."""
    return _numbered(Path(folder) / "samples")


def _numbered(folder: Path) -> list[Path]:
    own = (path for path in folder.glob("*") if _is_own(path, folder))
    found = [(_GRID.fullmatch(path.name), path) for path in own]
    numbered = [(match[1], int(match[2]), path) for match, path in found if match]
    return [path for _, _, path in sorted(numbered)]


def _is_own(path: Path, folder: Path) -> bool:
    """Whether a file is there, and is in a folder: a link out of it is not followed."""
    return path.is_file() and path.resolve().is_relative_to(folder.resolve())


def caption(grid: Path) -> str:
    """epoch_001.png -> "epoch 1"; any other name as it is."""
    match = _GRID.fullmatch(grid.name)
    return f"{match[1]} {int(match[2])}" if match else grid.stem


def read_table(path: str | Path) -> tuple[list[str], list[list[str]]]:
    """Read a CSV file as its header and its rows, each as long as the header."""
    with Path(path).open(encoding="utf-8", errors="replace", newline="") as file:
        header, *rows = [*csv.reader(file)] or [[]]
    return header, [(row + [""] * len(header))[: len(header)] for row in rows if row]


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield ("a.b", text) for each leaf of nested mappings; numbers with five digits."""
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{name}.")
        else:
            yield name, show(value)


def show(value: object) -> str:
    """One value as text for a table cell."""
    if value is None or value == {} or value == []:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, list | tuple):
        return ", ".join(show(item) for item in value)
    return str(value)


def _text(path: Path, remarks: list[str]) -> str:
    """A text file's content; empty, with a remark, where it cannot be had."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        if path.exists():
            remarks.append(f"{path.name} could not be read: {error.strerror}")
        return ""


def _json(path: Path, remarks: list[str]) -> Mapping[str, Any]:
    """A JSON object; empty, with a remark, where it cannot be had."""
    text = _text(path, remarks)
    if not text:
        return {}
    try:
        content = json.loads(text)
    except ValueError as error:
        remarks.append(f"{path.name} is not valid JSON: {error}")
        return {}
    if isinstance(content, dict):
        return content
    return {path.stem: content}


def _pages(folder: Path, remarks: list[str]) -> Iterator[PageRecord]:
    """What artefacts.json lists; a picture outside of the run folder is not read."""
    entries = _json(folder / "artefacts.json", remarks).get("pages")
    for entry in entries if isinstance(entries, list) else []:
        if not isinstance(entry, dict):
            continue
        names = entry.get("files")
        paths = [folder / str(name) for name in names] if isinstance(names, list) else []
        own = [path for path in paths if path.suffix == ".png" and _is_own(path, folder)]
        yield PageRecord(
            name=str(entry.get("name", "")),
            caption=str(entry.get("caption") or ""),
            files=tuple(own),
            error=str(entry.get("error") or ""),
        )


def _differs(path: Path, remarks: list[str]) -> tuple[tuple[str, str, str], ...] | None:
    """Rows of differs.json as text: key, value in the default recipe, value here; None without."""
    rows = _json(path, remarks).get(path.stem)
    if not isinstance(rows, list):
        return None
    whole = [row for row in rows if isinstance(row, list) and len(row) == 3]
    return tuple((str(key), show(before), show(now)) for key, before, now in whole)


def _studies(folder: Path, remarks: list[str]) -> Iterator[StudyRecord]:
    """Every study.json in the folder, in one of its own and under studies/."""
    for pattern in ("study.json", "*/study.json", "studies/*/study.json"):
        for path in sorted(folder.glob(pattern)):
            content = _json(path, remarks)
            rows = content.get("table")
            pictures = (path.with_name(name) for name in ("figure.png", "samples.png"))
            yield StudyRecord(
                name=str(content.get("study", path.parent.name)),
                claim=str(content.get("claim", "")),
                table=tuple(row for row in rows or () if isinstance(row, dict)),
                differences=content.get("differences"),
                pictures=tuple(picture for picture in pictures if _is_own(picture, folder)),
            )


def read_metrics(path: Path, remarks: list[str]) -> Mapping[str, list[Point]]:
    """Columns of ``step,epoch,<metric>...`` as (step, value) pairs; blank cells are skipped."""
    try:
        header, rows = read_table(path)
    except OSError as error:
        if path.exists():
            remarks.append(f"{path.name} could not be read: {error.strerror}")
        return {}
    if "step" not in header:
        if header:
            remarks.append(f"{path.name} has no column 'step'")
        return {}
    at = header.index("step")
    columns: dict[str, list[Point]] = {}
    for row in rows:
        for name, cell in zip(header, row, strict=True):
            if name not in ("step", "epoch") and cell:
                point = (_number(row[at]), _number(cell))
                if math.isfinite(point[0]):
                    columns.setdefault(name, []).append(point)
    return columns


def _number(cell: str) -> float:
    """The cell's number; NaN where it holds none."""
    try:
        return float(cell)
    except ValueError:
        return math.nan
