"""Where the rows of a study come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, NamedTuple, Protocol

from annotated_types import Ge

from diffusion_lab.checkpoints.finding import find_checkpoint
from diffusion_lab.config.words import combinations
from diffusion_lab.errors import ConfigError
from diffusion_lab.ranges import checked
from diffusion_lab.runs.folder import run_folder_of
from diffusion_lab.spread import spread


class Row(NamedTuple):
    """A row to be measured: `evaluate ckpt=CKPT OVERRIDES`.

    Attributes:
        name: What it is called.
        ckpt: The checkpoint.
        overrides: What would be typed.
        curve: Rows of one name are joined by a line where a figure draws lines.
    """

    name: str
    ckpt: Path
    overrides: Sequence[str]
    curve: str = ""


class Rows(Protocol):
    """Makes the rows of a study out of its runs."""

    def settings(self) -> Sequence[Sequence[str]]:
        """All lists of overrides that rows will have, known before there are runs."""
        ...

    def __call__(self, runs: Mapping[str, Path]) -> list[Row]:
        """The rows, in order, of runs given by their checkpoints."""
        ...


@dataclass(frozen=True)
class ListedRows:
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


@checked
@dataclass(frozen=True)
class SavedSteps:
    """One row for each checkpoint `step_*.ckpt` that a run kept, evenly chosen.

    Attributes:
        overrides: What would be typed after `evaluate ckpt=FILE` for each.
        most: Largest number of rows; the first and the last checkpoint are always among them.
    """

    overrides: Sequence[str]
    most: Annotated[int, Ge(2)] = 12

    def settings(self) -> Sequence[Sequence[str]]:
        """See `Rows`."""
        return [self.overrides]

    def __call__(self, runs: Mapping[str, Path]) -> list[Row]:
        """See `Rows`.

        Raises:
            ConfigError: A run kept none.
        """
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


@dataclass(frozen=True)
class Product:
    """Every combination of lists of values, all of the study's first run.

    Attributes:
        over: Words as in a sweep: `sampler=euler,heun`, `sampler.steps=10,20,50`. Typed ones
            replace those of the same key.
        along: The key whose values follow each other along a curve.
    """

    over: Sequence[str]
    along: str = "sampler.steps"

    def settings(self) -> Sequence[Sequence[str]]:
        """See `Rows`."""
        return combinations(self.over)

    def __call__(self, runs: Mapping[str, Path]) -> list[Row]:
        """See `Rows`."""
        ckpt = next(iter(runs.values()))
        rows = []
        for words in combinations(self.over):
            fixed = [word for word in words if not word.startswith(f"{self.along}=")]
            rows.append(Row(_short(words), ckpt, words, _short(fixed)))
        return rows


def _short(words: Sequence[str]) -> str:
    """`sampler=heun`, `sampler.steps=20` as "heun steps=20"."""
    parts = (word.partition("=") for word in words)
    return " ".join(
        f"{key.rsplit('.', 1)[-1]}={value}" if "." in key else value for key, _, value in parts
    )


@dataclass(frozen=True)
class Pair:
    """Two rows: the study's first run as it is typed, and what it is compared with.

    Attributes:
        ckpt: Another checkpoint or run folder; None is the same one.
        overrides: What is typed further for the second row.
        names: What the rows are called.
    """

    ckpt: str | None = None
    overrides: Sequence[str] = field(default=())
    names: Sequence[str] = ("A", "B")

    def settings(self) -> Sequence[Sequence[str]]:
        """See `Rows`."""
        return [self.overrides]

    def __call__(self, runs: Mapping[str, Path]) -> list[Row]:
        """See `Rows`.

        Raises:
            ConfigError: Nothing differs between the two, or there is no such checkpoint.
        """
        if self.ckpt is None and not self.overrides:
            raise ConfigError(
                "nothing differs between the two rows: give study.rows.ckpt=RUN (another run) or "
                "'study.rows.overrides=[\"sampler.steps=50\"]' (another setting)"
            )
        one = next(iter(runs.values()))
        other = one if self.ckpt is None else find_checkpoint(self.ckpt)
        return [Row(self.names[0], one, ()), Row(self.names[1], other, self.overrides)]


def _step(file: Path) -> int:
    digits = file.stem.removeprefix("step_")
    return int(digits) if digits.isdigit() else 0
