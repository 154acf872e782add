"""What a run ran on and from, and what to type to get it again, to go on with it and to use it."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from diffusion_lab.runs.records import RunFolder, flat, show

Facts = list[tuple[str, str]]

FACT_TITLES = {
    "step": "steps done",
    "max_steps": "steps planned",
    "epoch": "epochs",
    "seconds": "time",
    "images_per_second": "images per second",
    "resumed_from": "resumed from steps",
    "init_from": "started from the weights of",
    "git": "git revision",
    "metrics": "last values",
    "versions": "software",
}
_SOFTWARE = ("git", "precision")
_MACHINE = ("processes",)
_ELSEWHERE = ("status", "error")
_DATA = re.compile(r"^paths:\n(?: .*\n)*?  data_dir: ([\w./~@:+-]+)$", re.M)
_USUAL_DATA = "data"


def duration(seconds: float) -> str:
    """48.2 -> "48.2 s", 367 -> "6 min 7 s", 4000 -> "1 h 7 min"."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def facts(summary: Mapping[str, Any]) -> Facts:
    """The few numbers that everybody asks for first."""
    metrics, data = (
        summary[name] if isinstance(summary.get(name), dict) else {} for name in ("metrics", "data")
    )
    wanted = [
        ("steps", summary.get("step"), "{:,}".format, int),
        ("parameters", summary.get("parameters"), "{:,}".format, int),
        ("time", summary.get("seconds"), duration, int | float),
        ("images per second", summary.get("images_per_second"), "{:,.0f}".format, int | float),
        ("train/loss", metrics.get("train/loss"), "{:.4g}".format, int | float),
        ("val/loss", metrics.get("val/loss"), "{:.4g}".format, int | float),
        ("data", data.get("name") or None, str, object),
    ]
    return [(n, write(v)) for n, v, write, kind in wanted if v is not None and isinstance(v, kind)]


def environment(summary: Mapping[str, Any]) -> list[tuple[str, Facts]]:
    """All of summary.json in groups: run, hardware, software, data and the rest."""
    scalars = {k: v for k, v in summary.items() if not isinstance(v, dict)}
    dicts = {k: v for k, v in summary.items() if isinstance(v, dict) and v}
    machine, software = ({k: scalars.pop(k) for k in names if k in scalars}
                         for names in (_MACHINE, _SOFTWARE))  # fmt: skip
    groups = [
        ("run", _rows({k: v for k, v in scalars.items() if k not in _ELSEWHERE})),
        ("hardware", [*_rows(machine), *_rows(dicts.pop("hardware", {}))]),
        ("software", [*_rows(software), *_rows(dicts.pop("versions", {}))]),
        ("data", _rows(dicts.pop("data", {}))),
        *((FACT_TITLES.get(name, name), _rows(rows)) for name, rows in dicts.items()),
    ]
    return [(title, rows) for title, rows in groups if rows]


def _rows(tree: Mapping[str, Any]) -> Facts:
    rows = []
    for name, text in flat(tree):
        value = tree.get(name)
        if name == "seconds" and isinstance(value, int | float):
            text = f"{duration(value)} ({show(value)} s)"
        elif name in ("started", "ended"):
            text = text.replace("T", " ").replace("+00:00", " UTC")
        rows.append((FACT_TITLES.get(name, name), text))
    return rows


class Command(NamedTuple):
    """A line to type, what for, and what to know about it."""

    what: str
    line: str
    note: str = ""


def commands(run: RunFolder) -> Iterator[Command]:
    """Commands for a run: the same again from the same code, further, samples, scores."""
    beside = os.path.relpath(run.path)
    folder = shlex.quote(str(run.path.resolve()) if beside.startswith("..") else beside)
    commit, _, changes = str(run.summary.get("git") or "").partition("+")
    if re.fullmatch(r"[0-9a-f]{7,64}", commit):
        note = "The code had changes that were not committed; this does not bring them back."
        yield Command("The same code", f"git checkout {commit}", note if changes else "")
    words = [*run.overrides, *_data_words(run)]
    for what, line in (
        ("Train it again", " ".join(["train", *map(shlex.quote, words)])),
        ("Resume it", f"train resume={folder}"),
        ("Generate samples", f"sample ckpt={folder} num_samples=100 out=grid.png"),
        ("Score it", f"evaluate ckpt={folder}"),
        ("Speed against quality", f"evaluate study=frontier ckpt={folder} num_samples=500"),
        ("Write this page again", f"report run={folder}"),
    ):
        yield Command(what, f"python -m diffusion_lab.{line}")


def _data_words(run: RunFolder) -> list[str]:
    """Where the data was, if that was neither typed nor the usual place."""
    found = _DATA.search(run.config)
    typed = any(word.lstrip("+").startswith("paths.data_dir=") for word in run.overrides)
    if found is None or typed or found[1] == _USUAL_DATA:
        return []
    return [f"paths.data_dir={found[1]}"]
