"""The runs that a study looks at: those that are there, and those that it trains."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from diffusion_lab.checkpoints.finding import find_checkpoint
from diffusion_lab.config.arguments import compose, with_budget
from diffusion_lab.config.checking import check
from diffusion_lab.config.words import key_of, quoted
from diffusion_lab.errors import ConfigError, StudyError
from diffusion_lab.runs.folder import has_checkpoint, status_of
from diffusion_lab.runs.leaderboard import FINISHED

if TYPE_CHECKING:
    from diffusion_lab.config.composing import DictConfig


@dataclass(frozen=True)
class Run:
    """A run by its path, or by how to train it.

    Attributes:
        train: What would be typed after `train` for it.
        path: A checkpoint or run folder; None trains it.
    """

    train: Sequence[str]
    path: str | None = None


@dataclass(frozen=True)
class Training:
    """One training that a study needs, with a folder that depends on its words alone.

    Attributes:
        name: What the study calls the run.
        words: Overrides of `train` that decide the result; they name the folder.
        places: Overrides that say where data and folders are.
        folder: The run's folder.
    """

    name: str
    words: tuple[str, ...]
    places: tuple[str, ...]
    folder: Path

    @property
    def finished(self) -> bool:
        """Whether it came to its end before."""
        return status_of(self.folder) == FINISHED

    def faults(self) -> list[str]:
        """Everything wrong with its config."""
        try:
            found = check(compose("train", [*self.words, *self.places]))
        except ConfigError as error:
            found = [str(error)]
        return [f"study.runs.{self.name}: {fault}" for fault in found]

    def run(self) -> Path:
        """Train, or go on where it stopped, by the command line; nothing if it is finished.

        Returns:
            The folder.

        Raises:
            StudyError: The training failed or was stopped.
        """
        if self.finished:
            print(f"run {self.name}: finished before, {self.folder}", flush=True)
            return self.folder
        words = [*self.words, *self.places, quoted("run_dir", self.folder)]
        if has_checkpoint(self.folder):
            words.append("resume=auto")
        else:
            for left in ("config.yaml", "metrics.csv"):
                (self.folder / left).unlink(missing_ok=True)
        print(f"run {self.name}: train {' '.join(words)}", flush=True)
        if _wait([sys.executable, "-m", "diffusion_lab.train", *words]):
            raise StudyError(
                f"the training of run {self.name} (train {' '.join(self.words)}) did not finish; "
                f"the same command again goes on with it, in {self.folder}"
            )
        return self.folder


def training_of(name: str, run: Run, more: Sequence[str], cfg: DictConfig) -> Training:
    """The training of a run.

    Args:
        name: What the study calls it.
        run: The run; `path` is not looked at.
        more: Further overrides, which win.
        cfg: The study's config, for the places of data and folders and for the device.
    """
    words = [*run.train, *more]
    if str(cfg.device) == "cpu":
        words.append("trainer.accelerator=cpu")
    words = with_budget(words)
    places = [quoted(f"paths.{key}", cfg.paths[key]) for key in cfg.paths]
    places += [f"trust={list(cfg.trust)}"] if cfg.trust else []
    digest = hashlib.sha256("\n".join(words).encode()).hexdigest()[:8]
    values = [w.partition("=")[2] for w in words if "." not in key_of(w) and key_of(w) != "budget"]
    readable = re.sub(r"[^A-Za-z0-9._+-]+", "-", "_".join(values))[:60].strip("-.")
    folder = Path(str(cfg.paths.output_dir)) / "studies" / "runs" / f"{readable}_{digest}"
    return Training(name, tuple(words), tuple(places), folder)


def checkpoint_of(path: str | Path, cfg: DictConfig) -> Path:
    """The checkpoint file meant by a path.

    Raises:
        ConfigError: There is none.
    """
    return find_checkpoint(str(path), Path(str(cfg.paths.output_dir)))


def _wait(command: Sequence[str]) -> int:
    """Run a command to its end; at Ctrl-C it is left the time to save."""
    with subprocess.Popen(command, env=os.environ) as child:
        try:
            return child.wait()
        except KeyboardInterrupt:
            return child.wait() or 130
