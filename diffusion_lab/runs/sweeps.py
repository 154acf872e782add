"""The books of a sweep: each job in its own folder, done ones skipped, broken ones resumed.

A job's folder is named by what varies and by a hash of its resolved config, so that the same
command finds its jobs again. A failing job is recorded and the rest run (see `launching` for what
comes before the first and after the last).
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from diffusion_lab.config.words import key_of
from diffusion_lab.errors import ConfigError, UserError
from diffusion_lab.files import read_record, write_atomically
from diffusion_lab.runs.folder import forget_unsaved, has_checkpoint, is_rank_zero, status_of
from diffusion_lab.runs.launching import refuse_launch
from diffusion_lab.runs.leaderboard import DONE, FINISHED, PRUNED, Goal, write_tables

_BESIDE = ("run_dir", "resume", "paths", "hydra", "sweep", "logger")
"""Nodes of a config that do not change what is trained."""


def job(cfg: DictConfig, task: Callable[[DictConfig], Any]) -> float | None:
    """Run one job of a sweep, in its own folder.

    Args:
        cfg: Its config; `run_dir` is the sweep's folder and becomes the job's.
        task: Trains and returns its metrics.

    Returns:
        The sweep's metric, by which an optimising sweeper goes; None where there is none.
    """
    sweep, goal = Path(str(cfg.run_dir)), Goal.of(cfg.get("sweep") or {})
    words = _varied(cfg, list(HydraConfig.get().overrides.task))
    folder = sweep / job_name(cfg, words)
    if folder.is_symlink():
        raise ConfigError(f"{folder} is a link: a job of a sweep has a folder of its own")
    record: dict[str, Any] = {
        "varied": dict(map(_split, words)),
        "setting": digest(cfg, seed=False),
        "sweep": cfg.sweep.command,
    }
    before = status_of(folder)
    if before in DONE:
        _announce(f"{before} before, skipped", words)
        record |= {"status": before, "skipped": True}
    else:
        _announce("", words)
        _write(folder, record | {"status": "running"})
        _open_job(cfg, folder)
        record |= _run_job(cfg, task, record)
    _write(folder, record)
    if is_rank_zero():
        write_tables(sweep, goal)
    metrics = read_record(folder / "summary.json").get("metrics") or {}
    value = metrics.get(goal.metric)
    # What a failed job had reached says nothing of its values.
    return float(value) if record["status"] in DONE and value is not None else None


def _announce(what: str, words: Sequence[str]) -> None:
    """The line that a job begins with: its number and what varies."""
    if is_rank_zero():
        job: Any = HydraConfig.get().job
        number = job.get("num", 0)
        varied = " ".join(words) or "(nothing varies)"
        print(f"\n== job {number + 1}: {varied} {what}".rstrip(), flush=True)


def _write(folder: Path, record: dict[str, Any]) -> None:
    if is_rank_zero():
        text = json.dumps(record, indent=1, default=str)
        write_atomically(folder / "job.json", text.encode())


def _run_job(
    cfg: DictConfig, task: Callable[[DictConfig], Any], record: dict[str, Any]
) -> dict[str, Any]:
    """Run it; how it ended. What stops it from outside stops the sweep, and is recorded."""
    try:
        refuse_launch(HydraConfig.get(), cfg.get("trainer") or {})
        task(cfg)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return {"status": "refused", "error": str(error)}
    except Exception as error:
        if status_of(Path(str(cfg.run_dir))) == PRUNED:
            print(error)
            return {"status": PRUNED, "error": str(error)}
        if isinstance(error, UserError):
            print(f"error: {error}", file=sys.stderr)
        else:
            traceback.print_exc()
        return {"status": "failed", "error": f"{type(error).__name__}: {error}"}
    except BaseException as error:
        _write(Path(str(cfg.run_dir)), record | {"status": "interrupted", "error": str(error)})
        print("the sweep stops here; the same command goes on with it", file=sys.stderr)
        raise
    return {"status": FINISHED}


def _open_job(cfg: DictConfig, folder: Path) -> None:
    """Point the config at the job's folder; go on with what is there."""
    cfg.run_dir = str(folder)
    cfg.resume = str(folder) if has_checkpoint(folder) else None
    logger = cfg.get("logger")
    if logger is not None and "group" in logger and logger.group is None:
        logger.group = folder.parent.name
    if cfg.resume is None:
        forget_unsaved(folder)


def job_name(cfg: DictConfig, words: Sequence[str]) -> str:
    """A readable, stable folder name: what varies, and a hash of the resolved config."""
    parts = []
    for word in words:
        key, value = _split(word)
        short = key.rsplit(".", 1)[-1].rsplit("/", 1)[-1]
        parts.append(re.sub(r"[^A-Za-z0-9.+-]+", "-", f"{short}-{value}").strip("-."))
    return "_".join([*parts, digest(cfg)])[-120:].lstrip("-._")


def digest(cfg: DictConfig, *, seed: bool = True) -> str:
    """A hash of all of a config that changes what is trained; `seed`: the seed included."""
    blank: dict[str, Any] = {"run_dir": "", "resume": None, "paths": dict.fromkeys(cfg.paths, "")}
    copy = OmegaConf.merge(cfg, blank if seed else blank | {"seed": 0})
    try:
        values: Any = OmegaConf.to_container(copy, resolve=True)
    except OmegaConfBaseException:  # which `check` will explain
        values = OmegaConf.to_container(copy, resolve=False)
    kept = {str(key): value for key, value in values.items() if key not in _BESIDE}
    if isinstance(kept.get("data"), dict):
        kept["data"] = {k: v for k, v in kept["data"].items() if k != "data_dir"}
    return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()[:8]


def _varied(cfg: DictConfig, task: list[str]) -> list[str]:
    """The overrides of this job whose keys the command did not give one value."""
    fixed = {"run_dir", "resume", *str(cfg.sweep.fixed or "").split()}
    words = [word for word in task if key_of(word) not in fixed]
    return [word for word in words if not key_of(word).startswith("sweep.")]


def _split(word: str) -> tuple[str, str]:
    return key_of(word), word.partition("=")[2]
