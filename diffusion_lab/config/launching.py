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
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

import diffusion_lab
from diffusion_lab.config.arguments import Typed, quoted, rewrite, value_of
from diffusion_lab.config.checking import refuse
from diffusion_lab.config.composing import CONF, key_of, options, raw
from diffusion_lab.config.rules import ranged
from diffusion_lab.config.runs import is_rank_zero, prepare, status_of
from diffusion_lab.config.suggestions import nearest
from diffusion_lab.errors import ConfigError
from diffusion_lab.reporting.files import read_record, write_atomically
from diffusion_lab.reporting.leaderboard import (
    DONE,
    FINISHED,
    Goal,
    Job,
    jobs_of,
    parameters_of,
    write_tables,
)

COMMAND = "DIFFUSION_LAB_SWEEP"
"""Environment variable that marks the jobs of one command, also in a parallel launcher."""
TYPED = f"{COMMAND}_TYPED"
FOLDER = f"{COMMAND}_DIR"
DIGEST = f"{COMMAND}_DIGEST"

_PLAIN = ("BasicSweeper", "BasicLauncher")
"""Hydra's own: every combination, one after the other, in this process."""
_WITHOUT_PROCESSES = ("spawn", "fork", "notebook")
"""Strategies that start their processes from the job itself, not by typing the command again."""


def start(typed: Typed) -> list[str]:
    """`runs.prepare`; of a sweep also everything above. Ends the process where all is done.

    Raises:
        ConfigError: A launch or a value that cannot work.
    """
    overrides = prepare(typed)
    if not typed.multirun:
        return overrides
    words = [word for word in typed.overrides if key_of(word) not in {"run_dir", "resume"}]
    os.environ[COMMAND] = f"{os.getpid()}-{time.time_ns()}"
    os.environ[TYPED] = json.dumps(typed.overrides)
    os.environ[FOLDER] = str(value_of("run_dir", overrides))
    os.environ[DIGEST] = _digest(words)
    _answer_if_done(Path(os.environ[FOLDER]))
    _refuse_unknown_options(words)
    fixed = rewrite("train", [w for w in words if not _varies(w)])
    cfg = raw("train", [*fixed, quoted("run_dir", os.environ[FOLDER])], hydra=True)
    refuse_launch(cfg.hydra, cfg.get("trainer") or {})
    nodes = {name: OmegaConf.to_container(cfg.hydra[name]) for name in ("launcher", "sweeper")}
    refuse([*ranged({"hydra": nodes}).values()])
    if (_name_of(cfg.hydra.sweeper), _name_of(cfg.hydra.launcher)) == _PLAIN:
        # Otherwise Hydra composes every job once more before it starts the first.
        overrides.append("hydra.sweeper.max_batch_size=1")
    return overrides


def _varies(word: str) -> bool:
    return bool(OverridesParser.create().parse_override(word).is_sweep_override())


def _refuse_unknown_options(words: Sequence[str]) -> None:
    """Refuse a mistyped choice now, not when its job comes up."""
    parser = OverridesParser.create()
    for word in words:
        override = parser.parse_override(word)
        group = key_of(word).partition("@")[0]
        known = options(group)
        if not known or not override.is_sweep_override() or not override.is_choice_sweep():
            continue
        for value in override.sweep_string_iterator():
            if str(value) not in {*known, "auto", "null"}:
                raise ConfigError(f"{group}={value}: no such choice{nearest(str(value), known)}")


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
    known = hashlib.sha256(diffusion_lab.__version__.encode())
    known.update("\n".join(sorted(rewrite("train", words))).encode())
    for file in sorted(CONF.rglob("*.yaml")):
        known.update(str(file.relative_to(CONF)).encode() + b"\0" + file.read_bytes())
    return known.hexdigest()


def _answer_if_done(sweep: Path) -> None:
    """Show the tables and end, if this very command has done all its jobs before."""
    known = read_record(sweep / "sweep.json")
    names = known.get("jobs")
    if not names or known.get("command") != os.environ[DIGEST]:
        return
    if any(status_of(sweep / name) not in DONE for name in names):
        return
    jobs = [replace(job, skipped=True) for job in jobs_of(sweep) if job.name in set(names)]
    sys.exit(_tell(sweep, jobs, Goal.of(known)))


def finish() -> int:
    """After the last job: tables, report, exit status (1 if any job of this command failed)."""
    sweep = Path(os.environ.get(FOLDER, "."))
    if not is_rank_zero():
        return 0
    goal, jobs = Goal.of(read_record(sweep / "sweep.json")), jobs_of(sweep)
    mine = [job for job in jobs if job.command == os.environ.get(COMMAND)]
    if not mine:
        print("no job of this sweep left a record, see above", file=sys.stderr)
        return 1
    write_tables(sweep, goal, jobs)
    try:
        from diffusion_lab.reporting.report import write_report

        write_report(sweep)
    except Exception as error:
        warnings.warn(f"{sweep / 'report.html'} could not be written: {error}", stacklevel=1)
    if not all(job.skipped for job in mine):
        _log(sweep, jobs, goal)
    return _tell(sweep, mine, goal)


def _log(sweep: Path, jobs: Sequence[Job], goal: Goal) -> None:
    """One more run in the sweep's group, where its jobs went to Weights & Biases."""
    configs = [job.folder / "config.yaml" for job in jobs]
    loaded: list[Any] = [OmegaConf.load(file) for file in configs if file.is_file()]
    nodes = [config.get("logger") for config in loaded]
    node = next((n for n in nodes if n and str(n.get("_target_")).endswith(".WandbRun")), None)
    if node is None:
        return
    from diffusion_lab.training.loggers.sweep import log_sweep

    log_sweep(
        sweep,
        [{**job.varied, **job.metrics} for job in jobs if job.status == FINISHED],
        parameters_of(jobs),
        goal.metric,
        mode="max" if goal.mode == "max" else "min",
        project=node.project,
        group=node.group,
        tags=list(node.tags or ()),
        offline=node.offline,
        patience=node.patience,
    )


def _tell(sweep: Path, jobs: Sequence[Job], goal: Goal) -> int:
    """Print the tables and where everything is; the exit status."""
    from diffusion_lab.reporting.sweep_table import show_sweep

    show_sweep(jobs, goal)
    for name, file in (
        ("report", "report.html"),
        ("jobs", "sweep.csv"),
        ("table", "leaderboard.csv"),
    ):
        print(f"{name:<8} {sweep / file}")
    open_jobs = [job.name for job in jobs if not job.done]
    if open_jobs:
        print(
            f"{len(open_jobs)} of {len(jobs)} jobs did not finish: {', '.join(open_jobs)}; the "
            "same command again skips the finished ones and goes on with these",
            file=sys.stderr,
        )
        return 1
    _note_as_done(sweep, [job.name for job in jobs])
    return 0


def _note_as_done(sweep: Path, names: Sequence[str]) -> None:
    """Note in sweep.json that this command has nothing left to do but these jobs."""
    record = read_record(sweep / "sweep.json")
    record |= {"command": os.environ.get(DIGEST), "jobs": list(names)}
    write_atomically(sweep / "sweep.json", (json.dumps(record, indent=1) + "\n").encode())
