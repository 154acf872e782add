"""Where curves and grids go.

`MetricsFile` writes metrics.csv and is always there. The others are optional and guarded: a
logger that fails says so once and is silent from then on; training never stops for it.
"""

from __future__ import annotations

import os
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from PIL.Image import Image

from diffusion_lab.training.metrics_file import MetricsFile

__all__ = ["GuardedLogger", "MetricsFile", "TensorBoardRun", "WandbRun", "log_images"]


def log_images(loggers: Iterable[Logger], key: str, picture: Image, step: int) -> None:
    """Hand a picture to every logger that takes pictures.

    Args:
        loggers: The trainer's loggers.
        key: Name of the series; one picture a step.
        picture: What to show.
        step: Index of the last optimizer step, the x-axis of the curves.
    """
    for logger in loggers:
        if isinstance(logger, GuardedLogger):
            logger.log_picture(key, picture, step)


class GuardedLogger(Logger):
    """A logger that is started at its first value and can fail without stopping anything."""

    def __init__(self) -> None:
        super().__init__()
        self._inner: Any = None
        self._dead = False
        self._hyperparams: Any = None

    @abstractmethod
    def start(self) -> Logger:
        """Start the real logger."""

    @abstractmethod
    def show(self, inner: Any, key: str, picture: Image, step: int) -> None:
        """Hand a picture to the real logger."""

    @property
    def name(self) -> str:
        """The class's name."""
        return type(self).__name__

    @property
    def version(self) -> str:
        """Empty: the run folder tells runs apart."""
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log values at `step`."""
        self._try(lambda inner: inner.log_metrics(dict(metrics), step))

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Keep the configuration, to be logged when the logger starts."""
        self._hyperparams = params

    @rank_zero_only
    def log_picture(self, key: str, picture: Image, step: int) -> None:
        """Log a picture at `step`."""
        self._try(lambda inner: self.show(inner, key, picture, step))

    @rank_zero_only
    def save(self) -> None:
        """Flush, if it was started."""
        if self._inner is not None:
            self._try(lambda inner: inner.save())

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Close, if it was started, so that the next run in this process starts its own."""
        if self._inner is not None:
            self._try(lambda inner: self.close(inner, status))
            self._inner = None

    def close(self, inner: Any, status: str) -> None:
        """Close the real logger; `status` is "success", "failed" or "finished"."""
        inner.finalize(status)

    def _try(self, action: Callable[[Any], None]) -> None:
        if self._dead:
            return
        try:
            if self._inner is None:
                self._inner = self.start()
                if self._hyperparams:
                    self._inner.log_hyperparams(self._hyperparams)
            action(self._inner)
        except Exception as error:
            self._dead = True
            warnings.warn(
                f"{self.name} failed and is switched off for this run; training goes on and "
                f"metrics.csv has everything: {type(error).__name__}: {error}",
                stacklevel=3,
            )


class WandbRun(GuardedLogger):
    """Weights & Biases; offline unless told otherwise, so it needs no account and never asks.

    Args:
        run_dir: The run's folder; the files go to its folder `wandb`.
        project: Project of the run.
        name: Name of the run; null: the folder's name.
        group: Runs shown together, e.g. a sweep; null for none.
        tags: Words to find the run by.
        offline: True keeps everything in the run folder (`wandb sync` uploads it later); False
            uploads while training and needs an account.
    """

    def __init__(
        self,
        run_dir: str | Path,
        project: str = "diffusion_lab",
        name: str | None = None,
        group: str | None = None,
        tags: list[str] | None = None,
        offline: bool = True,
    ) -> None:
        super().__init__()
        self.run_dir = Path(run_dir)
        self.settings = {"project": project, "group": group, "tags": tags}
        self.run_name = name or self.run_dir.name
        self.offline = offline

    def start(self) -> Logger:
        """Start a run; silent, and never a prompt."""
        os.environ.setdefault("WANDB_SILENT", "true")
        import wandb
        from lightning.pytorch.loggers import WandbLogger

        self.run_dir.mkdir(parents=True, exist_ok=True)
        run = wandb.init(
            name=self.run_name,
            dir=str(self.run_dir),
            mode="offline" if self.offline else "online",
            reinit="finish_previous",
            settings=wandb.Settings(console="off", silent=True),
            **self.settings,
        )
        run.define_metric("trainer/global_step")
        run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return WandbLogger(experiment=run, log_model=False)

    def show(self, inner: Any, key: str, picture: Image, step: int) -> None:
        """Log a picture on the x-axis of the curves."""
        import wandb

        inner.experiment.log({key: wandb.Image(picture), "trainer/global_step": step})

    def close(self, inner: Any, status: str) -> None:
        """Finish the run."""
        inner.experiment.finish(exit_code=1 if status == "failed" else 0)


class TensorBoardRun(GuardedLogger):
    """TensorBoard: `tensorboard --logdir RUN_DIR/tensorboard` shows it live.

    Args:
        run_dir: The run's folder; the files go to its folder `tensorboard`.
    """

    def __init__(self, run_dir: str | Path) -> None:
        super().__init__()
        self.run_dir = Path(run_dir)

    def start(self) -> Logger:
        """Open the event file."""
        from lightning.pytorch.loggers import TensorBoardLogger

        return TensorBoardLogger(str(self.run_dir), name="tensorboard", version="")

    def show(self, inner: Any, key: str, picture: Image, step: int) -> None:
        """Log a picture."""
        import numpy as np

        pixels = np.asarray(picture.convert("RGB"))
        inner.experiment.add_image(key, pixels, step, dataformats="HWC")
