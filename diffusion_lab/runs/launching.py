"""A sweep's command: what happens before its first job and after its last.

Before: its folder is settled, launches that would train different things on different processes
are refused, and a command whose jobs are all done is answered without composing a single one.
After: the tables, the report and the exit status.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from diffusion_lab.config.arguments import rewrite
from diffusion_lab.config.checking import raise_errors
from diffusion_lab.config.composing import CONF, raw
from diffusion_lab.config.rules import ranged
from diffusion_lab.config.words import Typed, key_of, quoted, swept_values, value_of
from diffusion_lab.errors import ConfigError
from diffusion_lab.files import read_record, write_atomically
from diffusion_lab.runs.folder import is_rank_zero, prepare, status_of
from diffusion_lab.runs.leaderboard import (
    DONE,
    Goal,
    Job,
    jobs_of,
    write_tables,
)

_PLAIN = ("BasicSweeper", "BasicLauncher")
"""Hydra's own: every combination, one after the other, in this process."""
_WITHOUT_PROCESSES = ("spawn", "fork", "notebook")
"""Strategies that start their processes from the job itself, not by typing the command again."""


After = Callable[[Path, Sequence[Job], Goal, Mapping[str, Any]], None]
"""What is done with a sweep whose jobs have run: its folder, all its jobs, what they are for, and
the node `logger` of the command."""


class SweepLaunch:
    """One command, from what was typed to its exit status; a single run is only prepared.

    Args:
        after: Called once the jobs of a sweep have run, e.g. to write its report.
    """

    def __init__(self, after: After) -> None:
        self.after = after
        self.command = ""
        self.digest = ""
        self.folder = Path()
        self.logger: Any = {}

    def start(self, typed: Typed) -> list[str]:
        """`folder.prepare`; of a sweep also everything above. Ends the process where all is done.

        Raises:
            ConfigError: A launch or a value that cannot work.
        """
        overrides = prepare(typed)
        if not typed.multirun:
            return overrides
        words = [word for word in typed.overrides if key_of(word) not in {"run_dir", "resume"}]
        self.command = f"{os.getpid()}-{time.time_ns()}"
        self.folder = Path(str(value_of("run_dir", overrides)))
        self.digest = _digest(words)
        self._answer_if_done()
        fixed = [word for word in words if swept_values(word) is None]
        once = rewrite("train", fixed)
        cfg = raw("train", [*once, quoted("run_dir", self.folder)], hydra=True)
        refuse_launch(cfg.hydra, cfg.get("trainer") or {})
        names = ("launcher", "sweeper")
        nodes = {name: OmegaConf.to_container(cfg.hydra[name]) for name in names}
        raise_errors([*ranged({"hydra": nodes}).values()])
        self.logger = OmegaConf.to_container(cfg.get("logger") or OmegaConf.create(), resolve=True)
        if (_name_of(cfg.hydra.sweeper), _name_of(cfg.hydra.launcher)) == _PLAIN:
            # Otherwise Hydra composes every job once more before it starts the first.
            overrides.append("hydra.sweeper.max_batch_size=1")
        keys = {key_of(word) for word in fixed}
        if not any(key_of(word) == "budget" for word in words):
            keys.add("budget")
        return [
            *overrides,
            quoted("sweep.command", self.command),
            quoted("sweep.fixed", " ".join(sorted(keys))),
        ]

    def _answer_if_done(self) -> None:
        """Show the tables and end, if this very command has done all its jobs before."""
        known = read_record(self.folder / "sweep.json")
        names = known.get("jobs")
        if not isinstance(names, list) or not names or known.get("command") != self.digest:
            return
        if any(status_of(self.folder / str(name)) not in DONE for name in names):
            return
        jobs = [replace(job, skipped=True) for job in jobs_of(self.folder) if job.name in names]
        sys.exit(self._tell(jobs, Goal.of(known)))

    def finish(self) -> int:
        """After the last job: tables, exit status (1 if any job of this command failed)."""
        if not is_rank_zero():
            return 0
        goal, jobs = Goal.of(read_record(self.folder / "sweep.json")), jobs_of(self.folder)
        mine = [job for job in jobs if job.command == self.command]
        if not mine:
            print("no job of this sweep left a record, see above", file=sys.stderr)
            return 1
        write_tables(self.folder, goal, jobs)
        if not all(job.skipped for job in mine):
            self.after(self.folder, jobs, goal, self.logger)
        return self._tell(mine, goal)

    def _tell(self, jobs: Sequence[Job], goal: Goal) -> int:
        """Print the tables and where everything is; the exit status."""
        from diffusion_lab.runs.sweep_table import show_sweep  # rich is slow to import

        show_sweep(jobs, goal)
        for name, file in (
            ("report", "report.html"),
            ("jobs", "sweep.csv"),
            ("table", "leaderboard.csv"),
        ):
            print(f"{name:<8} {self.folder / file}")
        open_jobs = [job.name for job in jobs if not job.done]
        if open_jobs:
            print(
                f"{len(open_jobs)} of {len(jobs)} jobs did not finish: {', '.join(open_jobs)}; the "
                "same command again skips the finished ones and goes on with these",
                file=sys.stderr,
            )
            return 1
        self._note_as_done([job.name for job in jobs])
        return 0

    def _note_as_done(self, names: Sequence[str]) -> None:
        """Note in sweep.json that this command has nothing left to do but these jobs."""
        record = read_record(self.folder / "sweep.json")
        record |= {"command": self.digest, "jobs": list(names)}
        content = json.dumps(record, indent=1) + "\n"
        write_atomically(self.folder / "sweep.json", content.encode())


def _name_of(node: Any) -> str:
    return str(node.get("_target_", "")).rsplit(".", 1)[-1]


def refuse_launch(hydra: Any, trainer: Mapping[str, Any]) -> None:
    """Refuse processes of one job that would not agree, or could not start.

    Lightning starts the other processes of a distributed run by typing the command again. With a
    sampling sweeper each would then draw its own values, silently; in a process of another
    launcher there is no command to type.

    Args:
        hydra: Hydra's own node, with `sweeper` and `launcher`.
        trainer: The trainer's node.

    Raises:
        ConfigError: Naming the remedy.
    """
    strategy, devices = str(trainer.get("strategy", "auto")), trainer.get("devices", 1)
    nodes = int(trainer.get("num_nodes", 1) or 1)
    one = nodes == 1 and re.fullmatch(r"1|\d+,|\[\d+\]", str(devices))
    if one or any(name in strategy for name in _WITHOUT_PROCESSES):
        return
    sweeper, launcher = _name_of(hydra.sweeper), _name_of(hydra.launcher)
    remedy = "use trainer.devices=1 (with sweep=joblib for several jobs at once), or "
    remedy += "trainer.strategy=ddp_spawn"
    if sweeper != "BasicSweeper":
        raise ConfigError(
            f"{sweeper} with trainer.devices={devices} and trainer.strategy={strategy}: every "
            f"process would draw its own values; {remedy}"
        )
    if launcher == "SlurmLauncher":
        tasks, given = int(hydra.launcher.get("tasks_per_node", 1)), int(hydra.launcher.nodes)
        if str(devices) == str(tasks) and nodes == given:
            return
        raise ConfigError(
            f"trainer.devices={devices} and trainer.num_nodes={nodes} need as many Slurm tasks: "
            f"hydra.launcher.tasks_per_node={devices} hydra.launcher.nodes={nodes} (they are "
            f"{tasks} and {given})"
        )
    if launcher != "BasicLauncher":
        raise ConfigError(
            f"{launcher} with trainer.devices={devices} and trainer.strategy={strategy}: the other "
            f"processes of a job cannot be started from one of its own; {remedy}"
        )


def _digest(words: Sequence[str]) -> str:
    """A hash of the command, of every file of `conf/` and of the version: what decides a sweep."""
    known = hashlib.sha256(version("diffusion_lab").encode())
    known.update("\n".join(sorted(rewrite("train", words))).encode())
    for file in sorted(CONF.rglob("*.yaml")):
        known.update(str(file.relative_to(CONF)).encode() + b"\0" + file.read_bytes())
    return known.hexdigest()
