"""Which checkpoint a path means."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from diffusion_lab.errors import CheckpointError

AUTO = ("auto", "latest")
"""Words that mean the newest of all."""


def find_checkpoint(path: str | Path, output: Path = Path("outputs")) -> Path:
    """The checkpoint file meant by a path.

    Args:
        path: A file; a run folder, or its folder of checkpoints (last.ckpt, else the newest); a
            folder of runs (the newest last.ckpt in it); or `auto` (the newest of all).
        output: Where runs are, for `auto` and for the message.

    Raises:
        CheckpointError: Nothing is there; the message lists what is.
    """
    place = output if str(path) in AUTO else Path(path).expanduser()
    if place.is_file():
        return place
    if not place.is_dir():
        raise CheckpointError(f"checkpoint {path} does not exist{_others(output)}")
    inside = sorted(place.rglob("last.ckpt"), key=_written, reverse=True)
    for candidate in (*candidates_in(place), *inside):
        return candidate
    raise CheckpointError(f"{path} is a folder without checkpoints{_others(output)}")


def missing_checkpoint(command: str, output: str = "outputs") -> str:
    """What to say where `ckpt` was not given."""
    return f"{command} needs ckpt=PATH, a checkpoint or a run folder{_others(Path(output))}"


def candidates_in(folder: Path) -> Iterator[Path]:
    """Checkpoints of a run folder or of a folder of checkpoints: last.ckpt, then newest first."""
    for place in (folder / "checkpoints", folder):
        files = sorted(place.glob("*.ckpt"), key=_written, reverse=True)
        yield from sorted(files, key=lambda file: file.name != "last.ckpt")


def _written(file: Path) -> float:
    return file.lstat().st_mtime  # of a link itself, which may lead nowhere


def _others(output: Path) -> str:
    found = sorted(output.rglob("last.ckpt"), key=_written, reverse=True)[:3]
    if not found:
        return "; train first: python -m diffusion_lab.train experiment=quickstart"
    return "; newest here: " + ", ".join(str(path) for path in found)
