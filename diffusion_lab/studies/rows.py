"""Where the rows of a study come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from diffusion_lab.config import ConfigError
from diffusion_lab.config.runs import run_folder_of
from diffusion_lab.reporting.spread import spread


class Row(NamedTuple):
    """A row to be measured: `evaluate ckpt=CKPT OVERRIDES`."""

    name: str
    ckpt: Path
    overrides: Sequence[str]


class Rows(Protocol):
    """Makes the rows of a study out of its runs."""

    def settings(self) -> Sequence[Sequence[str]]:
        """All lists of overrides that rows will have, known before there are runs."""
        ...

    def __call__(self, runs: Mapping[str, Path]) -> list[Row]:
        """The rows, in order, of runs given by their checkpoints."""
        ...


@dataclass(frozen=True)
class Listed:
    """Rows written down, all of the study's first run.

    Attributes:
        overrides: Name of a row -> what would be typed after `evaluate ckpt=RUN` for it.
    """

    overrides: Mapping[str, Sequence[str]]

    def settings(self) -> Sequence[Sequence[str]]:
        """See `Rows`."""
        return list(self.overrides.values())

    def __call__(self, runs: Mapping[str, Path]) -> list[Row]:
        """See `Rows`."""
        ckpt = next(iter(runs.values()))
        return [Row(name, ckpt, words) for name, words in self.overrides.items()]


@dataclass(frozen=True)
class EachRun:
    """One row a run, named like it.

    Attributes:
        overrides: What would be typed after `evaluate ckpt=RUN` for each.
    """

    overrides: Sequence[str]

    def settings(self) -> Sequence[Sequence[str]]:
        """See `Rows`."""
        return [self.overrides]

    def __call__(self, runs: Mapping[str, Path]) -> list[Row]:
        """See `Rows`."""
        return [Row(name, ckpt, self.overrides) for name, ckpt in runs.items()]


@dataclass(frozen=True)
class SavedSteps:
    """One row for each checkpoint `step_*.ckpt` that a run kept, evenly chosen.

    Attributes:
        overrides: What would be typed after `evaluate ckpt=FILE` for each.
        most: Largest number of rows; the first and the last checkpoint are always among them.
    """

    overrides: Sequence[str]
    most: int = 12

    def settings(self) -> Sequence[Sequence[str]]:
        """See `Rows`."""
        return [self.overrides]

    def __call__(self, runs: Mapping[str, Path]) -> list[Row]:
        """See `Rows`.

        Raises:
            ConfigError: A run kept none; or `most` is below 2.
        """
        if self.most < 2:
            raise ConfigError(f"study.rows.most={self.most} must be at least 2: first and last")
        rows = []
        for ckpt in runs.values():
            folder = run_folder_of(ckpt) / "checkpoints"
            files = sorted(folder.glob("step_*.ckpt"), key=_step)
            if not files:
                raise ConfigError(
                    f"there is no step_*.ckpt in {folder}: this run kept none of its states; "
                    "train with callbacks.checkpoints.keep_every_n_epochs=1"
                )
            rows += [
                Row(f"step {_step(files[k]):,}", files[k], self.overrides)
                for k in spread(len(files), self.most)
            ]
        return rows


def _step(file: Path) -> int:
    digits = file.stem.removeprefix("step_")
    return int(digits) if digits.isdigit() else 0
