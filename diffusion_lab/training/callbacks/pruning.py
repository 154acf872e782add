"""Stop a job of a search that does worse than the others did."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer

from diffusion_lab.errors import RunError
from diffusion_lab.files import read_record
from diffusion_lab.ranges import checked
from diffusion_lab.runs.leaderboard import FINISHED
from diffusion_lab.runs.records import read_metrics
from diffusion_lab.training.trainer_state import validates_training


class Pruned(RunError):
    """A job was stopped by a pruner; the message names the metric and its value."""


class Pruning(Callback):
    """Asks an Optuna pruner after each validation whether the job is worth continuing.

    The pruner sees the values that each finished job in a folder beside `run_dir` had on its way,
    from its metrics.csv. So this works with every launcher and sweeper, and needs no database.
    Pruners that keep state inside a study (successive halving, Hyperband) see no more than these
    values, and so stop fewer jobs. `optuna.pruners.MedianPruner` stops a job whose best value so
    far is worse than the median of the others at the same step (Golovin et al. 2017, 3.2.2).

    A job that is stopped raises `Pruned`: its checkpoints and grids stay, its status is "pruned",
    and the same sweep typed again leaves it as it is.
    """

    @checked
    def __init__(
        self,
        run_dir: str | Path,
        pruner: Any,
        monitor: str = "val/loss",
        mode: Literal["min", "max"] = "min",
    ) -> None:
        self.folder = Path(run_dir)
        self.pruner = pruner
        self.monitor = monitor
        self.mode = mode
        self._values: dict[int, float] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the values of a resumed run."""
        self._values = values_of(self.folder, self.monitor) if trainer.global_step else {}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ask the pruner, if the metric was logged."""
        value = trainer.callback_metrics.get(self.monitor)
        if value is None or not validates_training(trainer):
            return
        self._values[trainer.global_step] = float(value)
        worse = trainer.is_global_zero and self._is_worse()
        if trainer.strategy.broadcast(worse):
            raise Pruned(
                f"pruned at step {trainer.global_step} with {self.monitor}={float(value):.5g}: "
                f"others did better by then ({type(self.pruner).__name__})"
            )

    def _is_worse(self) -> bool:
        """What the pruner decides about this job, given the finished ones."""
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
    """Whether a folder holds a finished job of a sweep; other runs are not compared with."""
    status = read_record(folder / "summary.json").get("status")
    return status == FINISHED and (folder / "job.json").is_file()
