"""Weights & Biases, in the run folder until it is synced."""

from __future__ import annotations

import os
import shutil
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lightning.pytorch.loggers import WandbLogger
from PIL.Image import Image

from diffusion_lab.files import read_record
from diffusion_lab.ranges import NonNegative, checked
from diffusion_lab.training.loggers.background import BackgroundLogger, Cell, facts_of_run

if TYPE_CHECKING:
    from wandb import Run

STEP = "trainer/global_step"
"""The x-axis of every chart: the index of the last optimizer step."""

BY_LEVEL = "val/loss_by_level/"
"""What the names of losses by noise level begin with; the rest is a range in per cent."""

LINES = 12
"""Validations in the chart of the loss over the noise level, at most."""

OUTCOME = ("status", "step", "seconds", "images_per_second")
"""What a run's summary.json says of its end."""


class WandbRun(BackgroundLogger, WandbLogger):  # type: ignore[misc]
    """Weights & Biases; offline unless told otherwise, so it needs no account and never asks.

    Where the server cannot be reached, the run goes on offline, which is said once. A resumed run
    continues the run at Weights & Biases that its folder began. Half of `patience` is left to a
    server to answer. conf/logger/wandb.yaml explains the arguments.
    """

    @checked
    def __init__(
        self,
        run_dir: str | Path,
        project: str = "diffusion_lab",
        name: str | None = None,
        group: str | None = None,
        job_type: str | None = None,
        tags: Sequence[str] | None = None,
        offline: bool = True,
        log_checkpoints: Literal["last", "best", False] = False,
        patience: NonNegative = 30.0,
    ) -> None:
        super().__init__(name=name, save_dir=run_dir, project=project)
        self.run_dir = Path(run_dir)
        self.run_name = name or self.run_dir.name
        self.group, self.job_type, self.tags = group, job_type, list(tags or ())
        self.offline = offline
        self.log_checkpoints = log_checkpoints
        self.patience = patience
        self.answer_within = patience / 2
        self._abandoned = False
        self._levels: list[tuple[int, dict[str, float]]] = []

    def open(self, config: dict[str, Any]) -> Run:
        """Start a run, or continue that of the folder; silent, and never a prompt."""
        os.environ.setdefault("WANDB_SILENT", "true")
        # its reports of its own errors hold up the end of the process where no server answers
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        self._levels = []
        self.run_dir.mkdir(parents=True, exist_ok=True)
        config |= facts_of_run(self.run_dir)
        if self.offline:
            return self._start("offline", config)
        try:
            if not wandb.login(prompt=False, verify=False):
                raise ValueError("no API key; `wandb login` keeps one")
            return self._start("online", config)
        except Exception as error:
            if self._abandoned:
                raise
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            warnings.warn(
                f"logger.offline=false: no run could be started at Weights & Biases ({reason}); "
                f"this one goes on offline, `wandb sync {self.run_dir}/wandb/offline-run-*` "
                "uploads it",
                stacklevel=1,
            )
            _leave_service()
            return self._start("offline", config)

    def _start(self, mode: Literal["online", "offline"], config: dict[str, Any]) -> Run:
        import wandb

        run = wandb.init(
            project=self.name,
            name=self.run_name,
            group=self.group,
            job_type=self.job_type,
            tags=self.tags,
            config=config,
            dir=str(self.run_dir),
            mode=mode,
            id=_run_id(self.run_dir),
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(console="off", silent=True, init_timeout=self.answer_within),
        )
        run.define_metric(STEP)
        run.define_metric("*", step_metric=STEP, step_sync=True)
        return run

    def write_values(self, values: dict[str, float], step: int) -> None:
        """Curves; losses by noise level are kept for the chart at the end too."""
        levels = {k.removeprefix(BY_LEVEL): v for k, v in values.items() if k.startswith(BY_LEVEL)}
        if levels:
            self._levels.append((step, levels))
        super().write_values(values, step)

    def write_picture(self, key: str, picture: Image, step: int) -> None:
        """A picture on the x-axis of the curves."""
        import wandb

        self.experiment.log({key: wandb.Image(picture), STEP: step})

    def write_table(self, key: str, columns: list[str], rows: list[list[Cell]], step: int) -> None:
        """A table, pictures in it."""
        import wandb

        cells = [[wandb.Image(c) if isinstance(c, Image) else c for c in row] for row in rows]
        with self._own_folder():
            self.experiment.log({key: wandb.Table(columns=[*columns], data=cells), STEP: step})

    def log_page(self, key: str, path: Path) -> None:
        """Log a file of HTML, shown as it is."""
        self.post(partial(self._write_page, key, path))

    def _write_page(self, key: str, path: Path) -> None:
        import wandb

        html = wandb.Html(path.read_text(encoding="utf-8"), inject=False)
        self.experiment.log({key: html})

    def close(self, status: str) -> None:
        """Finish the run; how it ended becomes part of its summary."""
        record = read_record(self.run_dir / "summary.json")
        outcome = {key: record.get(key) for key in OUTCOME if record.get(key) is not None}
        self.experiment.summary.update(outcome)
        if self._levels:
            self._chart_levels()
        path = self.run_dir / "checkpoints" / f"{self.log_checkpoints}.ckpt"
        if self.log_checkpoints and path.is_file():
            self._log_file(path)
        self.experiment.finish(exit_code=1 if status == "failed" else 0)

    def abandon(self) -> None:
        """Let W&B's own process end alone."""
        self._abandoned = True
        _leave_service()

    def __getstate__(self) -> dict[str, Any]:
        """As it is: a run is opened in the process that logs, never before it is copied there."""
        return self.__dict__.copy()

    def _chart_levels(self) -> None:
        """The loss over the noise level, a line a validation (those of `spread`)."""
        import wandb

        from diffusion_lab.spread import spread

        chosen = [self._levels[k] for k in spread(len(self._levels), LINES)]
        chart = wandb.plot.line_series(
            xs=[[_middle(name) for name in levels] for _, levels in chosen],
            ys=[list(levels.values()) for _, levels in chosen],
            keys=[f"step {step + 1}" for step, _ in chosen],
            title="Loss by noise level",
            xname="noise level, %",
        )
        with self._own_folder():
            self.experiment.log({"loss_by_level": chart})

    def _log_file(self, path: Path) -> None:
        """A file as an artifact, from a copy of its own beside W&B's files.

        The copy is a hard link where there can be one: checkpoints are replaced, never changed.
        """
        import wandb

        own = Path(self.experiment.settings.sync_dir) / "checkpoints" / path.name
        own.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path, own)
        except OSError:
            shutil.copy2(path, own)
        artifact = wandb.Artifact(f"checkpoint-{self.experiment.id}", type="model")
        artifact.add_file(str(own), name=path.name, policy="immutable", skip_cache=True)
        self.experiment.log_artifact(artifact, aliases=[path.stem])

    @contextmanager
    def _own_folder(self) -> Iterator[None]:
        """Have what belongs to tables and charts kept in the run's folder, not in the user's.

        W&B reads the place from the environment, at the moment something is logged.
        """
        if "WANDB_DATA_DIR" in os.environ:
            yield
            return
        os.environ["WANDB_DATA_DIR"] = str(Path(self.experiment.settings.sync_dir) / "data")
        try:
            yield
        finally:
            del os.environ["WANDB_DATA_DIR"]


def _run_id(run_dir: Path) -> str | None:
    """The id of the run that a folder began: W&B's folders are [offline-]run-<time>-<id>."""
    folders = [path.name.removeprefix("offline-") for path in (run_dir / "wandb").glob("*run-*-*")]
    return max(folders).rpartition("-")[2] if folders else None


def _middle(span: str) -> float:
    """The middle of a range of noise levels in per cent: "00-10" is 5."""
    low, _, high = span.partition("-")
    return (float(low) + float(high)) / 2


def _leave_service() -> None:
    """Have W&B's own process end without anybody waiting for it.

    W&B waits for that process when Python ends, for a minute and more where no server answers.
    `wandb.teardown` first takes that hook away and then waits; it does so in a thread here that
    nobody waits for. The next run in this process starts a service of its own.
    """
    import wandb

    threading.Thread(target=wandb.teardown, name="wandb teardown", daemon=True).start()
    until = time.monotonic() + 5.0
    while "WANDB_SERVICE" in os.environ and time.monotonic() < until:
        time.sleep(0.02)
