"""metrics.csv, the record of every curve that is always there."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from diffusion_lab.files import write_atomically


class MetricsFile(Logger):
    """metrics.csv: one row per logged step, columns step, epoch and the metrics.

    A resumed run keeps the rows before its first logged step and drops the later ones, which are
    logged again. Cells without a value are blank.
    """

    def __init__(self, run_dir: str | Path) -> None:
        super().__init__()
        self.path = Path(run_dir) / "metrics.csv"
        self._rows: dict[int, dict[str, Any]] | None = None
        self._columns = ["step", "epoch"]
        self._changed = False

    @property
    def name(self) -> str:
        """Of the logger."""
        return "csv"

    @property
    def version(self) -> str:
        """Of the run; one file a run."""
        return ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: config.yaml holds them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add values to the row of `step`, the index of the last optimizer step."""
        number = int(step or 0)
        if self._rows is None:
            self._rows = self._read(before=number)
        self._columns += [name for name in metrics if name not in self._columns]
        self._rows.setdefault(number, {"step": number}).update(metrics)
        self._changed = True

    @rank_zero_only
    def save(self) -> None:
        """Write the file: beside it and renamed, so that a reader never sees half of it."""
        if not self._changed or self._rows is None:
            return
        text = io.StringIO()
        writer = csv.DictWriter(text, self._columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows[step] for step in sorted(self._rows))
        write_atomically(self.path, text.getvalue().encode())
        self._changed = False

    def finalize(self, status: str) -> None:
        """Write what is left."""
        self.save()

    def _read(self, before: int) -> dict[int, dict[str, Any]]:
        """Rows and columns of an earlier part of this run, of steps below `before`."""
        try:
            with self.path.open(encoding="utf-8", newline="") as file:
                rows = [row for row in csv.DictReader(file) if int(row["step"]) < before]
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        for row in rows[:1]:
            self._columns += [name for name in row if name not in self._columns]
        return {int(row["step"]): row for row in rows}
