"""Weights & Biases, in the run folder until it is synced."""

from __future__ import annotations

import os
import shutil
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from PIL.Image import Image

from diffusion_lab.ranges import NonNegative, checked
from diffusion_lab.training.loggers.facts import facts_of_run, outcome
from diffusion_lab.training.loggers.guarded import GuardedLogger

if TYPE_CHECKING:
    from wandb import Run

STEP = "trainer/global_step"
"""The x-axis of every chart: the index of the last optimizer step."""

LEVELS = "val/loss_by_level/"
"""What the names of losses by noise level begin with; the rest is a range in per cent."""

LINES = 12
"""Validations in the chart of the loss over the noise level, at most."""


class WandbRun(GuardedLogger):
    """Weights & Biases; offline unless told otherwise, so it needs no account and never asks.

    Where the server cannot be reached, the run goes on offline, which is said once.

    Args:
        run_dir: The run's folder; the files go to its folder `wandb`.
        project: Project of the run.
        name: Name of the run; null: the folder's name.
        group: Runs shown together, e.g. a sweep; null for none.
        job_type: What the run is within its group, e.g. train; null for nothing.
        tags: Words to find the run by.
        offline: True keeps everything in the run folder (`wandb sync` uploads it later); False
            uploads while training and needs an account.
        log_checkpoints: Which of the run's checkpoints becomes an artifact when it ends: last,
            best, or false for none.
        patience: Seconds that the end of a run waits for it at most; a server may take half of them
            to answer.

    Raises:
        ArgumentError: another checkpoint, or patience below 0.
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
        super().__init__(patience)
        self.run_dir = Path(run_dir)
        self.project, self.group, self.job_type = project, group, job_type
        self.run_name = name or self.run_dir.name
        self.tags = list(tags or ())
        self.offline = offline
        self.log_checkpoints = log_checkpoints
        self.answer_within = patience / 2
        self._abandoned = False

    def open(self, config: dict[str, Any]) -> WandbSink:
        """Start a run; silent, and never a prompt."""
        os.environ.setdefault("WANDB_SILENT", "true")
        # its reports of its own errors hold up the end of the process where no server answers
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        self.run_dir.mkdir(parents=True, exist_ok=True)
        known = config | facts_of_run(self.run_dir)
        if self.offline:
            return self._sink(self._start("offline", known))
        try:
            if not wandb.login(prompt=False, verify=False):
                raise ValueError("no API key; `wandb login` keeps one")
            return self._sink(self._start("online", known))
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
            return self._sink(self._start("offline", known))

    def log_page(self, key: str, path: Path) -> None:
        """Log a file of HTML, shown as it is."""
        self._post(lambda sink: sink.page(key, path))

    def abandon(self) -> None:
        """Let W&B's own process end alone."""
        self._abandoned = True
        _leave_service()

    def _start(self, mode: Literal["online", "offline"], config: dict[str, Any]) -> Run:
        import wandb

        run = wandb.init(
            project=self.project,
            name=self.run_name,
            group=self.group,
            job_type=self.job_type,
            tags=self.tags,
            config=config,
            dir=str(self.run_dir),
            mode=mode,
            reinit="create_new",
            settings=wandb.Settings(console="off", silent=True, init_timeout=self.answer_within),
        )
        run.define_metric(STEP)
        run.define_metric("*", step_metric=STEP, step_sync=True)
        return run

    def _sink(self, run: Run) -> WandbSink:
        which = self.log_checkpoints
        path = self.run_dir / "checkpoints" / f"{which}.ckpt" if which else None
        return WandbSink(run, self.run_dir, path)


class WandbSink:
    """One run of Weights & Biases.

    Args:
        run: The run.
        run_dir: The run's folder.
        checkpoint: Becomes an artifact when the run is closed, if it is there; None for none.
    """

    @checked
    def __init__(self, run: Run, run_dir: Path, checkpoint: Path | None = None) -> None:
        self.run = run
        self.run_dir = run_dir
        self.checkpoint = checkpoint
        self.levels: list[tuple[int, dict[str, float]]] = []

    def values(self, values: dict[str, float], step: int) -> None:
        """Curves."""
        levels = {k.removeprefix(LEVELS): v for k, v in values.items() if k.startswith(LEVELS)}
        if levels:
            self.levels.append((step, levels))
        self.run.log({**values, STEP: step})

    def picture(self, key: str, picture: Image, step: int) -> None:
        """A picture on the x-axis of the curves."""
        import wandb

        self.run.log({key: wandb.Image(picture), STEP: step})

    def table(self, key: str, columns: list[str], rows: list[list[Any]], step: int) -> None:
        """A table, pictures in it."""
        import wandb

        cells = [[wandb.Image(c) if isinstance(c, Image) else c for c in row] for row in rows]
        with self._own_folder():
            self.run.log({key: wandb.Table(columns=[*columns], data=cells), STEP: step})

    def page(self, key: str, path: Path) -> None:
        """A file of HTML, shown as it is."""
        import wandb

        self.run.log({key: wandb.Html(path.read_text(encoding="utf-8"), inject=False)})

    def flush(self) -> None:
        """Nothing: W&B writes as it goes."""

    def close(self, status: str) -> None:
        """Finish the run; how it ended becomes part of its summary."""
        self.run.summary.update(outcome(self.run_dir))
        if self.levels:
            self._chart_levels()
        if self.checkpoint is not None and self.checkpoint.is_file():
            self._log_file(self.checkpoint)
        self.run.finish(exit_code=1 if status == "failed" else 0)

    def _chart_levels(self) -> None:
        """The loss over the noise level, a line a validation (those of `spread`)."""
        import wandb

        from diffusion_lab.spread import spread

        chosen = [self.levels[k] for k in spread(len(self.levels), LINES)]
        chart = wandb.plot.line_series(
            xs=[[_middle(name) for name in levels] for _, levels in chosen],
            ys=[list(levels.values()) for _, levels in chosen],
            keys=[f"step {step + 1}" for step, _ in chosen],
            title="Loss by noise level",
            xname="noise level, %",
        )
        with self._own_folder():
            self.run.log({"loss_by_level": chart})

    def _log_file(self, path: Path) -> None:
        """A file as an artifact, from a copy of its own beside W&B's files.

        The copy is a hard link where there can be one: checkpoints are replaced, never changed.
        """
        import wandb

        own = Path(self.run.settings.sync_dir) / "checkpoints" / path.name
        own.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path, own)
        except OSError:
            shutil.copy2(path, own)
        artifact = wandb.Artifact(f"checkpoint-{self.run.id}", type="model")
        artifact.add_file(str(own), name=path.name, policy="immutable", skip_cache=True)
        self.run.log_artifact(artifact, aliases=[path.stem])

    @contextmanager
    def _own_folder(self) -> Iterator[None]:
        """Have what belongs to tables and charts kept in the run's folder, not in the user's.

        W&B reads the place from the environment, at the moment something is logged.
        """
        if "WANDB_DATA_DIR" in os.environ:
            yield
            return
        os.environ["WANDB_DATA_DIR"] = str(Path(self.run.settings.sync_dir) / "data")
        try:
            yield
        finally:
            del os.environ["WANDB_DATA_DIR"]


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
