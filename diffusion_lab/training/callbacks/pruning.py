"""Giving up a job of a search that does worse than others did."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from diffusion_lab.errors import RunError
from diffusion_lab.files import read_record
from diffusion_lab.runs.leaderboard import FINISHED
from diffusion_lab.runs.records import read_metrics


class Pruned(RunError):
    """A job was given up on purpose; the message says what it was compared with."""


class Pruning(Callback):
    """Asks a pruner of Optuna's, after each validation, whether the job is worth going on with.

    What the pruner is told comes from the folders beside the run's: the values that each finished
    job had on its way, from its metrics.csv. So it works under every launcher and sweeper, and no
    database is needed. Pruners that keep books of their own inside a study (successive halving,
    Hyperband) see no more than these values, and so give up less.

    A job that is given up raises `Pruned`: its checkpoints and grids stay, its status is "pruned",
    and the same sweep typed again leaves it as it is.

    Args:
        run_dir: The run's folder; the other jobs are its siblings.
        pruner: A pruner, e.g. `optuna.pruners.MedianPruner`: the job's best value so far is worse
            than the median of what the others had at the same step (Golovin et al. 2017, 3.2.2).
        monitor: Name of the metric as it is logged.
        mode: "min" where the smallest value is the best, "max" where the largest is.
    """

    def __init__(
        self,
        run_dir: str | Path,
        pruner: Any,
        monitor: str = "val/loss",
        mode: Literal["min", "max"] = "min",
    ) -> None:
        if mode not in ("min", "max"):
            raise ValueError(f"callbacks.pruning.mode={mode!r} must be min or max")
        self.folder = Path(run_dir)
        self.pruner = pruner
        self.monitor = monitor
        self.mode = mode
        self._values: dict[int, float] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take up the values of a run that goes on."""
        self._values = values_of(self.folder, self.monitor) if trainer.global_step else {}

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Ask, where the metric was logged."""
        value = trainer.callback_metrics.get(self.monitor)
        if value is None or trainer.sanity_checking or trainer.state.fn != "fit":
            return
        self._values[trainer.global_step] = float(value)
        worse = trainer.is_global_zero and self._is_worse()
        if trainer.strategy.broadcast(worse):
            raise Pruned(
                f"given up at step {trainer.global_step} with {self.monitor}={float(value):.5g}: "
                f"others did better by then ({type(self.pruner).__name__})"
            )

    def _is_worse(self) -> bool:
        """What the pruner says of this job among the finished ones."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(direction=f"{self.mode}imize")
        for folder in sorted(self.folder.parent.iterdir()):
            if folder == self.folder or not _is_finished(folder):
                continue
            values = values_of(folder, self.monitor)
            if values:
                last = values[max(values)]
                study.add_trial(optuna.trial.create_trial(value=last, intermediate_values=values))
        study.add_trial(
            optuna.trial.create_trial(
                state=optuna.trial.TrialState.RUNNING, intermediate_values=self._values
            )
        )
        return bool(self.pruner.prune(study, study.trials[-1]))


def values_of(folder: Path, metric: str) -> dict[int, float]:
    """Step -> value of a metric of a run, from its metrics.csv; finite values only."""
    points = read_metrics(folder / "metrics.csv", []).get(metric, [])
    # metrics.csv counts steps from 0, so a value after n steps stands at n - 1.
    return {int(step) + 1: value for step, value in points if math.isfinite(value)}


def _is_finished(folder: Path) -> bool:
    """Whether a folder holds a finished job of a sweep; another run is nothing to compare with."""
    status = read_record(folder / "summary.json").get("status")
    return status == FINISHED and (folder / "job.json").is_file()
