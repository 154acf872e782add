"""What a run ran on and from, grouped for a reader."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffusion_lab.runs.records import flat, show

Rows = list[tuple[str, str]]

TITLES = {
    "step": "steps done",
    "max_steps": "steps planned",
    "epoch": "epochs",
    "seconds": "time",
    "images_per_second": "images a second",
    "resumed_from": "resumed from steps",
    "init_from": "started from the weights of",
    "git": "git revision",
    "metrics": "last values",
    "versions": "software",
}
_SOFTWARE = ("git", "precision")
_MACHINE = ("processes",)
_TIMES = ("started", "ended")
_ELSEWHERE = ("status", "error")


def duration(seconds: float) -> str:
    """48.2 -> "48.2 s", 367 -> "6 min 7 s", 4000 -> "1 h 7 min"."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def facts(summary: Mapping[str, Any]) -> Rows:
    """The few numbers that everybody asks for first."""
    metrics = summary.get("metrics")
    data = summary.get("data")
    rows = [("steps", summary.get("step")), ("parameters", summary.get("parameters"))]
    found = [(name, f"{value:,}") for name, value in rows if isinstance(value, int)]
    if isinstance(summary.get("seconds"), int | float):
        found.append(("time", duration(summary["seconds"])))
    if isinstance(summary.get("images_per_second"), int | float):
        found.append(("images a second", f"{summary['images_per_second']:,.0f}"))
    for name in ("train/loss", "val/loss"):
        if isinstance(metrics, dict) and isinstance(metrics.get(name), int | float):
            found.append((name, f"{metrics[name]:.4g}"))
    if isinstance(data, dict) and data.get("name"):
        found.append(("data", str(data["name"])))
    return found


def environment(summary: Mapping[str, Any]) -> list[tuple[str, Rows]]:
    """All of summary.json in groups: run, hardware, software, data and the rest."""
    scalars = {k: v for k, v in summary.items() if not isinstance(v, dict)}
    dicts = {k: v for k, v in summary.items() if isinstance(v, dict) and v}
    apart = (*_SOFTWARE, *_MACHINE, *_ELSEWHERE)
    groups = [
        ("run", _rows({k: v for k, v in scalars.items() if k not in apart})),
        ("hardware", [*_only(scalars, _MACHINE), *_rows(dicts.pop("hardware", {}))]),
        ("software", [*_only(scalars, _SOFTWARE), *_rows(dicts.pop("versions", {}))]),
        ("data", _rows(dicts.pop("data", {}))),
        *((TITLES.get(name, name), _rows(rows)) for name, rows in dicts.items()),
    ]
    return [(title, rows) for title, rows in groups if rows]


def _only(scalars: Mapping[str, Any], names: tuple[str, ...]) -> Rows:
    return _rows({name: scalars[name] for name in names if name in scalars})


def _rows(tree: Mapping[str, Any]) -> Rows:
    rows = []
    for name, text in flat(tree):
        value = tree.get(name)
        if name == "seconds" and isinstance(value, int | float):
            text = f"{duration(value)} ({show(value)} s)"
        elif name in _TIMES:
            text = text.replace("T", " ").replace("+00:00", " UTC")
        rows.append((TITLES.get(name, name), text))
    return rows
