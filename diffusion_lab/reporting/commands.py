"""What to type to get a run again, to go on with it and to use it."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from typing import NamedTuple

from diffusion_lab.runs.records import RunFolder

_DATA = re.compile(r"^paths:\n(?: .*\n)*?  data_dir: ([\w./~@:+-]+)$", re.M)
USUAL_DATA = "data"
"""Where data lies if nothing is said."""


class Command(NamedTuple):
    """A line to type, what for, and what to know about it."""

    what: str
    line: str
    note: str = ""


def commands(run: RunFolder) -> list[Command]:
    """Commands for a run: the same again from the same code, further, samples, figures."""
    beside = os.path.relpath(run.path)
    folder = shlex.quote(str(run.path.resolve()) if beside.startswith("..") else beside)
    words = [*run.overrides, *_data_words(run)]
    again = " ".join(["python -m diffusion_lab.train", *map(shlex.quote, words)])
    return [
        *_checkout(run),
        Command("Train it again", again),
        Command("Go on with it", f"python -m diffusion_lab.train resume={folder}"),
        Command(
            "Draw samples",
            f"python -m diffusion_lab.sample ckpt={folder} num_samples=100 out=grid.png",
        ),
        Command("Score it", f"python -m diffusion_lab.evaluate ckpt={folder}"),
        Command("Speed against quality", _frontier(folder)),
        Command("Write this page again", f"python -m diffusion_lab.report run={folder}"),
    ]


def _frontier(folder: str) -> str:
    return f"python -m diffusion_lab.evaluate study=frontier ckpt={folder} num_samples=500"


def _checkout(run: RunFolder) -> Sequence[Command]:
    """The code it ran from, where that is known."""
    commit, _, changes = str(run.summary.get("git") or "").partition("+")
    if not re.fullmatch(r"[0-9a-f]{7,64}", commit):
        return []
    note = "The code had changes that were not committed; this does not bring them back."
    return [Command("The same code", f"git checkout {commit}", note if changes else "")]


def _data_words(run: RunFolder) -> list[str]:
    """Where the data was, if that was neither typed nor the usual place."""
    found = _DATA.search(run.config)
    typed = any(word.lstrip("+").startswith("paths.data_dir=") for word in run.overrides)
    if found is None or typed or found[1] == USUAL_DATA:
        return []
    return [f"paths.data_dir={found[1]}"]
