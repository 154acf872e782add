"""summary.json of a run, kept up to date from its first second to its last."""

from __future__ import annotations

import json
import math
import time
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from diffusion_lab.files import read_record, write_atomically
from diffusion_lab.runs.environment import git_revision, hardware, versions
from diffusion_lab.training.callbacks.interruption import Interrupted
from diffusion_lab.training.callbacks.pruning import Pruned
from diffusion_lab.training.callbacks.speed import Speed
from diffusion_lab.training.trainer_state import callback_of


class RunRecord(Callback):
    """Writes summary.json, and report.html when the run ends.

    Keys: status ("running", "finished", "interrupted", "pruned" or "failed"), experiment, step,
    epoch, max_steps, seconds, images_per_second, parameters, metrics (the last value of each), data
    (the data module's source), resumed_from (steps), started, ended, git, versions, hardware,
    processes, precision, and, where there are such, error and init_from (path, sha256 and step of
    the checkpoint whose weights it started from). A resumed run adds to `seconds`.
    `images_per_second` is null without the callback `Speed`.
    """

    def __init__(
        self, run_dir: str | Path, experiment: str | None = None, report: bool = True
    ) -> None:
        self.folder = Path(run_dir)
        self.path = self.folder / "summary.json"
        self.experiment = experiment
        self.report = report
        self.record: dict[str, Any] = {}
        self._clock = time.perf_counter()
        self._before = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record what is known before the first step."""
        self._clock = time.perf_counter()
        earlier = read_record(self.path) if trainer.global_step else {}
        self._before = float(earlier.get("seconds") or 0.0)
        resumed = [*(earlier.get("resumed_from") or [])]
        if trainer.global_step:
            resumed.append(trainer.global_step)
        self.record = self._known(trainer, pl_module) | {
            "seconds": self._before,
            "resumed_from": resumed,
            "started": earlier.get("started") or _now(),
        }
        self._write(trainer)

    def _known(self, trainer: Trainer, module: LightningModule) -> dict[str, Any]:
        """What is known before the first step, and empty places for the rest."""
        start = getattr(module, "init_from", None)
        return ({"init_from": start} if start else {}) | {
            "status": "running",
            "experiment": self.experiment,
            "step": trainer.global_step,
            "epoch": trainer.current_epoch,
            "max_steps": _json_number(trainer.estimated_stepping_batches),
            "seconds": None,
            "images_per_second": None,
            "parameters": sum(p.numel() for p in module.parameters()),
            "metrics": {},
            "data": getattr(trainer.datamodule, "source", None),  # type: ignore[attr-defined]
            "resumed_from": [],
            "started": None,
            "ended": None,
            "git": git_revision(),
            "versions": versions(),
            "hardware": hardware(module.device),
            "processes": trainer.world_size,
            "precision": trainer.precision,
        }

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the epoch."""
        self._update(trainer)
        self._write(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the end."""
        self._finish(trainer, "finished")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the end of a run that was resumed at its very end: no training hook ran."""
        if self.record or not trainer.global_step:
            return
        earlier = read_record(self.path)
        earlier.pop("error", None)
        ended = {"status": "finished", "ended": _now()}
        self.record = self._known(trainer, pl_module) | earlier | ended
        self._write(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the report, after every other callback and logger has written its last."""
        ended = stage == "fit" and self.record.get("ended")
        if not (self.report and ended and trainer.is_global_zero):
            return
        try:
            from diffusion_lab.reporting.html import write_report

            for logger in trainer.loggers:
                logger.save()
            write_report(self.folder)
        except Exception as error:
            warnings.warn(f"report.html could not be written: {error}", stacklevel=2)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Record what stopped the run."""
        self.record["error"] = str(exception) or type(exception).__name__
        stopped = isinstance(exception, Interrupted | KeyboardInterrupt)
        pruned = isinstance(exception, Pruned)
        self._finish(trainer, "interrupted" if stopped else "pruned" if pruned else "failed")

    def _finish(self, trainer: Trainer, status: str) -> None:
        self._update(trainer)
        self.record |= {"status": status, "ended": _now()}
        self._write(trainer)

    def _update(self, trainer: Trainer) -> None:
        speed = callback_of(trainer, Speed)
        rate = None if speed is None else speed.rate
        self.record |= {
            "step": trainer.global_step,
            "epoch": trainer.current_epoch,
            "seconds": round(self._before + time.perf_counter() - self._clock, 3),
            "images_per_second": round(rate, 2) if rate else None,
            "metrics": {k: _json_number(v) for k, v in sorted(trainer.callback_metrics.items())},
        }

    def _write(self, trainer: Trainer) -> None:
        if trainer.is_global_zero:
            text = json.dumps(self.record, indent=2, default=str) + "\n"
            write_atomically(self.path, text.encode())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _json_number(value: Any) -> float | int | None:
    """A number that JSON can hold."""
    number = float(value)
    if not math.isfinite(number):
        return None
    return int(number) if number.is_integer() and not hasattr(value, "shape") else number
