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

from diffusion_lab.reporting.curves import Point

_GRID = re.compile(r"(epoch|step)_(\d+)\.png")


@dataclass(frozen=True)
class PageRecord:
    """One entry of artefacts.json: a page that the run made, or could not make."""

    name: str
    caption: str = ""
    files: tuple[Path, ...] = ()
    error: str = ""


@dataclass(frozen=True)
class RunFolder:
    """The readable content of one run folder."""

    path: Path
    config: str = ""
    overrides: tuple[str, ...] = ()
    summary: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, list[Point]] = field(default_factory=dict)
    grids: tuple[Path, ...] = ()
    pages: tuple[PageRecord, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether nothing of a run was found."""
        return not (self.config or self.summary or self.metrics or self.grids)


def read_run(folder: str | Path) -> RunFolder:
    """Read a run folder: configuration, overrides, summary, metrics, evaluation, grids, pages.

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
        summary=_json(path / "summary.json", remarks),
        evaluation=_json(path / "metrics.json", remarks),
        metrics=_metrics(path / "metrics.csv", remarks),
        grids=tuple(grids(path)),
        pages=tuple(_pages(path, remarks)),
        remarks=tuple(remarks),
    )


def grids(folder: str | Path) -> list[Path]:
    """The grids that training drew: samples/epoch_*.png, then step_*.png, each by its number."""
    found = [(_GRID.fullmatch(path.name), path) for path in (Path(folder) / "samples").glob("*")]
    numbered = [(match[1], int(match[2]), path) for match, path in found if match]
    return [path for _, _, path in sorted(numbered)]


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
        own = [path for path in paths if path.suffix == ".png" and path.is_file()]
        yield PageRecord(
            name=str(entry.get("name", "")),
            caption=str(entry.get("caption") or ""),
            files=tuple(path for path in own if path.resolve().is_relative_to(folder.resolve())),
            error=str(entry.get("error") or ""),
        )


def _metrics(path: Path, remarks: list[str]) -> Mapping[str, list[Point]]:
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
