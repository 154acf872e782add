"""The trainings of runs that a study is about and that are missing."""

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

from diffusion_lab.config.arguments import compose, with_budget
from diffusion_lab.config.checking import check
from diffusion_lab.config.words import key_of, quoted
from diffusion_lab.errors import ConfigError, StudyError
from diffusion_lab.runs.folder import has_checkpoint, status_of
from diffusion_lab.runs.leaderboard import FINISHED

if TYPE_CHECKING:
    from diffusion_lab.config.composing import DictConfig


@dataclass(frozen=True)
class Training:
    """One training that a study needs, with a folder that depends on its overrides alone.

    Attributes:
        name: Of the run in the study.
        words: Overrides of `train` that determine the result, and the name of the folder.
        places: Overrides that say where data and folders are.
        folder: The run's folder.
    """

    name: str
    words: tuple[str, ...]
    places: tuple[str, ...]
    folder: Path

    def errors(self) -> list[str]:
        """Everything wrong with its config."""
        try:
            errors = check(compose("train", [*self.words, *self.places]))
        except ConfigError as error:
            errors = [str(error)]
        return [f"study.runs.{self.name}: {error}" for error in errors]

    def run(self) -> Path:
        """Train by the command line, or resume; nothing if the run is finished.

        Returns:
            The folder.

        Raises:
            StudyError: The training failed or was stopped.
        """
        if status_of(self.folder) == FINISHED:
            print(f"run {self.name}: finished before, {self.folder}", flush=True)
            return self.folder
        words = [*self.words, *self.places, quoted("run_dir", self.folder)]
        if has_checkpoint(self.folder):
            words.append("resume=auto")
        else:
            for left in ("config.yaml", "metrics.csv"):
                (self.folder / left).unlink(missing_ok=True)
        print(f"run {self.name}: train {' '.join(words)}", flush=True)
        if _exit_status([sys.executable, "-m", "diffusion_lab.train", *words]):
            raise StudyError(
                f"the training of run {self.name} (train {' '.join(self.words)}) did not finish; "
                f"the same command again resumes it, in {self.folder}"
            )
        return self.folder


def training_of(name: str, words: Sequence[str], cfg: DictConfig) -> Training:
    """The training of a run.

    Args:
        name: Of the run in the study.
        words: Overrides of its training; later ones win.
        cfg: The study's config, for the places of data and folders and for the device.
    """
    device = ["trainer.accelerator=cpu"] if str(cfg.device) == "cpu" else []
    words = with_budget([*words, *device])
    places = [quoted(f"paths.{key}", cfg.paths[key]) for key in cfg.paths]
    places += [f"trust={list(cfg.trust)}"] if cfg.trust else []
    digest = hashlib.sha256("\n".join(words).encode()).hexdigest()[:8]
    values = [w.partition("=")[2] for w in words if "." not in key_of(w) and key_of(w) != "budget"]
    readable = re.sub(r"[^A-Za-z0-9._+-]+", "-", "_".join(values))[:60].strip("-.")
    folder = Path(str(cfg.paths.output_dir)) / "studies" / "runs" / f"{readable}_{digest}"
    return Training(name, tuple(words), tuple(places), folder)


def _exit_status(command: Sequence[str]) -> int:
    """Run a command to its end; after Ctrl-C it has the time to save."""
    with subprocess.Popen(command, env=os.environ) as child:
        try:
            return child.wait()
        except KeyboardInterrupt:
            return child.wait() or 130
