"""What `conf/study/*.yaml` describe: a claim, the runs it is about, and the rows that measure it.

The functions make the rows, each of the study's runs and of what its yaml says (`_partial_`). Runs
are given by their checkpoints, None for a run that is not trained yet, so that all overrides are
known before hours of training are spent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from annotated_types import Ge

from diffusion_lab.checkpoints.finding import find_checkpoint
from diffusion_lab.config.words import combinations
from diffusion_lab.errors import ConfigError
from diffusion_lab.figures.study_figures import StudyFigure
from diffusion_lab.ranges import checked
from diffusion_lab.runs.folder import run_folder_of
from diffusion_lab.spread import spread

Runs = Mapping[str, Path | None]
"""Name of a run -> its checkpoint; None where it is not trained yet."""


class Row(NamedTuple):
    """A row of a study: `evaluate ckpt=CKPT OVERRIDES`.

    Attributes:
        name: Of the row.
        ckpt: The checkpoint; None where its run is not trained yet.
        overrides: As they would be typed.
        curve: A figure that draws lines joins the rows of one name.
    """

    name: str
    ckpt: Path | None
    overrides: Sequence[str]
    curve: str = ""


@dataclass(frozen=True)
class Study:
    """A claim, and the rows that measure it.

    Attributes:
        name: Names its folder.
        claim: The expected result, in words.
        runs: Name of a run -> `train`, the overrides of its training, and `path`, its checkpoint or
            run folder, None to have it trained.
        training: Further overrides of every training that it starts.
        rows: A function below.
        columns: Metrics of the table, by name; those that no row has are left out.
        figure: Draws the rows.
        needs: What its runs must have.
        paired: Also compare every row with the first: same noise, same labels, differences with
            intervals.
    """

    name: str
    claim: str
    runs: Mapping[str, Mapping[str, Any]]
    training: Sequence[str]
    rows: Callable[[Runs], list[Row]]
    columns: Sequence[str]
    figure: StudyFigure
    needs: Literal["discrete_time", "averaged_weights"] | None = None
    paired: bool = False

    def __post_init__(self) -> None:
        for name, run in self.runs.items():
            if not isinstance(run["train"], list):
                raise ValueError(f"study.runs.{name}.train={run['train']} must be a list")

    def lacking(self, stored: Mapping[str, Any]) -> str | None:
        """What a checkpoint, by its description of itself, lacks of `needs`; None if nothing."""
        schedule = stored["config"].get("schedule") or {}
        if self.needs == "discrete_time" and not schedule.get("steps"):
            kind = str(schedule.get("_target_", "")).rpartition(".")[2]
            return (
                f"its schedule {kind} has continuous time, so there is no number of all steps to "
                "compare with: take a run trained with e.g. schedule=linear schedule.steps=300 "
                "parameterization=eps"
            )
        if self.needs == "averaged_weights" and "ema" not in stored["weights"].values():
            return (
                "it has no averaged weights to compare with the raw ones: take a run trained with "
                "averaging (callbacks.ema not null, and past its start_step)"
            )
        return None


def named_rows(runs: Runs, overrides: Mapping[str, Sequence[str]]) -> list[Row]:
    """Rows of the first run, from name to overrides."""
    ckpt = next(iter(runs.values()))
    return [Row(name, ckpt, words) for name, words in overrides.items()]


def row_per_run(runs: Runs, overrides: Sequence[str]) -> list[Row]:
    """One row of each run, named like it, all with the same overrides."""
    return [Row(name, ckpt, overrides) for name, ckpt in runs.items()]


@checked
def row_per_saved_step(
    runs: Runs, overrides: Sequence[str], most: Annotated[int, Ge(2)] = 12
) -> list[Row]:
    """One row of each checkpoint `step_*.ckpt` of the first run, all with the same overrides.

    Of more than `most` checkpoints so many are chosen evenly, the first and the last among them.

    Raises:
        ConfigError: The run has no such checkpoint.
    """
    ckpt = next(iter(runs.values()))
    if ckpt is None:
        return [Row("", None, overrides)]
    folder = run_folder_of(ckpt) / "checkpoints"
    files = sorted(folder.glob("step_*.ckpt"), key=_step)
    if not files:
        raise ConfigError(
            f"there is no step_*.ckpt in {folder}: this run stored none of its states; "
            "train with callbacks.checkpoints.keep_every_n_epochs=1"
        )
    chosen = [files[k] for k in spread(len(files), most)]
    return [Row(f"step {_step(file):,}", file, overrides) for file in chosen]


def all_combinations(runs: Runs, over: Sequence[str], along: str = "sampler.steps") -> list[Row]:
    """One row of the first run for each combination of lists of values.

    Args:
        runs: The runs.
        over: Overrides as in a sweep: `sampler=euler,heun`, `sampler.steps=10,20,50`. Typed ones
            replace those of the same key.
        along: The key whose values follow each other along a curve.
    """
    ckpt = next(iter(runs.values()))
    rows = []
    for words in combinations(over):
        fixed = [word for word in words if not word.startswith(f"{along}=")]
        rows.append(Row(_short(words), ckpt, words, _short(fixed)))
    return rows


def two_rows(
    runs: Runs,
    ckpt: str | None = None,
    overrides: Sequence[str] = (),
    names: Sequence[str] = ("A", "B"),
) -> list[Row]:
    """The first run as it is typed, and what it is compared with.

    Args:
        runs: The runs.
        ckpt: Checkpoint or run folder of the second row; None is the first run again.
        overrides: Further ones of the second row.
        names: Of the rows.

    Raises:
        ConfigError: Nothing differs between the two, or there is no such checkpoint.
    """
    if ckpt is None and not overrides:
        raise ConfigError(
            "nothing differs between the two rows: give study.rows.ckpt=RUN (another run) or "
            "'study.rows.overrides=[\"sampler.steps=50\"]' (another setting)"
        )
    one = next(iter(runs.values()))
    other = one if ckpt is None else find_checkpoint(ckpt)
    return [Row(names[0], one, ()), Row(names[1], other, overrides)]


def _short(words: Sequence[str]) -> str:
    """`sampler=heun`, `sampler.steps=20` as "heun steps=20"."""
    parts = (word.partition("=") for word in words)
    return " ".join(
        f"{key.rsplit('.', 1)[-1]}={value}" if "." in key else value for key, _, value in parts
    )


def _step(file: Path) -> int:
    digits = file.stem.removeprefix("step_")
    return int(digits) if digits.isdigit() else 0
