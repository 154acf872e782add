"""What `conf/study/*.yaml` describe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from diffusion_lab.figures.study_figures import StudyFigure
from diffusion_lab.studies.rows import Rows
from diffusion_lab.studies.runs import Run


class Need(Protocol):
    """What a study asks of the runs it looks at."""

    def fault(self, stored: Mapping[str, Any]) -> str | None:
        """What is wrong with a checkpoint's description of itself, with the remedy; or None."""
        ...


class DiscreteTime:
    """A schedule with a number of steps, as DDPM has."""

    def fault(self, stored: Mapping[str, Any]) -> str | None:
        """See `Need`."""
        schedule = stored["config"].get("schedule") or {}
        if schedule.get("steps"):
            return None
        kind = str(schedule.get("_target_", "")).rpartition(".")[2]
        return (
            f"its schedule {kind} has continuous time, so there is no number of all steps to "
            "compare with: take a run trained with e.g. schedule=linear schedule.steps=300 "
            "parameterization=eps"
        )


class AveragedWeights:
    """Averaged weights beside the raw ones."""

    def fault(self, stored: Mapping[str, Any]) -> str | None:
        """See `Need`."""
        if "ema" in stored["weights"].values():
            return None
        return (
            "it has no averaged weights to compare with the raw ones: take a run trained with "
            "averaging (callbacks.ema not null, and past its start_step)"
        )


@dataclass(frozen=True)
class Study:
    """A claim, and the rows that measure it.

    Attributes:
        name: Names its folder.
        claim: What is to be seen, in words.
        runs: Runs it looks at, by name.
        training: Further overrides of every training it starts.
        needs: What it asks of the runs.
        rows: Where its rows come from.
        columns: Figures of the table, by name; those that no row has are left out.
        figure: How they are drawn.
        paired: Also compare every row with the first: same noise, same labels, differences with
            intervals.
    """

    name: str
    claim: str
    runs: Mapping[str, Run]
    training: Sequence[str]
    needs: Sequence[Need]
    rows: Rows
    columns: Sequence[str]
    figure: StudyFigure
    paired: bool = False
