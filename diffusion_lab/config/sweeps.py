"""The books of a sweep: each job in its own folder, done ones skipped, broken ones resumed.

A job's folder is named by what varies and by a hash of its resolved config, so that the same
command finds its jobs again. A failing job is recorded and the rest run; the table and the exit
status come once, after the last.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from diffusion_lab.config.arguments import Typed, value_of
from diffusion_lab.config.building import ConfigError
from diffusion_lab.config.composing import key_of
from diffusion_lab.config.runs import (
    FINISHED,
    has_checkpoint,
    is_rank_zero,
    prepare,
    status_of,
    summary_of,
)
from diffusion_lab.reporting.files import read_record, write_atomically

_COMMAND = "DIFFUSION_LAB_SWEEP"
"""Environment variable that marks the jobs of one command, also in a parallel launcher."""

_BY_PLACE = ("run_dir", "resume", "paths", "hydra")


def start(typed: Typed) -> list[str]:
    """`runs.prepare`, and a mark for the jobs of this command if it is a sweep."""
    if typed.multirun:
        os.environ[_COMMAND] = f"{os.getpid()}-{time.time_ns()}"
        os.environ[f"{_COMMAND}_TYPED"] = json.dumps(typed.overrides)
    overrides = prepare(typed)
    if typed.multirun:
        os.environ[f"{_COMMAND}_DIR"] = str(value_of("run_dir", overrides))
    return overrides


def job(cfg: DictConfig, task: Callable[[DictConfig], Any]) -> float | None:
    """Run one job of a sweep, in its own folder.

    Args:
        cfg: Its config; `run_dir` is the sweep's folder and becomes the job's.
        task: Trains and returns its metrics.

    Returns:
        val/loss, which an optimising sweeper minimises; None where there is none.
    """
    _refuse_disagreeing_ranks(cfg)
    sweep = Path(str(cfg.run_dir))
    words = _varied(list(HydraConfig.get().overrides.task))
    folder = sweep / job_name(cfg, words)
    record: dict[str, Any] = {"job": folder.name, "varied": dict(map(_split, words))}
    record["sweep"] = os.environ.get(_COMMAND)
    began = time.time()
    if status_of(folder) == FINISHED:
        print(f"{folder.name}: finished before, skipped")
        record |= {"status": FINISHED, "skipped": True}
    else:
        _open_job(cfg, folder)
        record |= _run_job(cfg, task)
        record["seconds"] = round(time.time() - began, 1)
    metrics = final_metrics(folder)
    if is_rank_zero():
        text = json.dumps(record, indent=1, default=str)
        write_atomically(folder / "job.json", text.encode())
        write_table(sweep)
    return metrics.get("val/loss")


def _run_job(cfg: DictConfig, task: Callable[[DictConfig], Any]) -> dict[str, Any]:
    try:
        task(cfg)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return {"status": "refused", "error": str(error)}
    except Exception as error:
        if type(error).__module__.startswith("diffusion_lab."):
            print(f"error: {error}", file=sys.stderr)
        else:
            traceback.print_exc()
        return {"status": "failed", "error": f"{type(error).__name__}: {error}"}
    return {"status": FINISHED}


def _open_job(cfg: DictConfig, folder: Path) -> None:
    """Point the config at the job's folder; go on with what is there."""
    cfg.run_dir = str(folder)
    cfg.resume = str(folder) if has_checkpoint(folder) else None
    if cfg.resume is None and is_rank_zero():
        for name in ("config.yaml", "metrics.csv"):
            (folder / name).unlink(missing_ok=True)


def job_name(cfg: DictConfig, words: Sequence[str]) -> str:
    """A readable, stable folder name: what varies, and a hash of the resolved config."""
    copy = OmegaConf.merge(cfg, {"run_dir": "", "resume": None})
    values: dict[Any, Any] = OmegaConf.to_container(copy, resolve=True)  # type: ignore[assignment]
    kept = {str(key): value for key, value in values.items() if key not in _BY_PLACE}
    if isinstance(kept.get("data"), dict):
        kept["data"] = {k: v for k, v in kept["data"].items() if k != "data_dir"}
    digest = hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()[:8]
    parts = []
    for word in words:
        key, value = _split(word)
        short = key.rsplit(".", 1)[-1].rsplit("/", 1)[-1]
        parts.append(re.sub(r"[^A-Za-z0-9.+-]+", "-", f"{short}-{value}").strip("-."))
    return "_".join([*parts, digest])[-120:].lstrip("-._")


def _varied(task: list[str]) -> list[str]:
    """The overrides of this job whose keys the command did not give one value."""
    words = json.loads(os.environ.get(f"{_COMMAND}_TYPED", "[]"))
    parsed = OverridesParser.create().parse_overrides(words)
    fixed = {key_of(w) for w, o in zip(words, parsed, strict=True) if not o.is_sweep_override()}
    fixed |= {"run_dir", "resume"} | (set() if _sweeps_budget(words) else {"budget"})
    return [word for word in task if key_of(word) not in fixed]


def _sweeps_budget(words: list[str]) -> bool:
    return any(key_of(word) == "budget" and "," in word for word in words)


def _split(word: str) -> tuple[str, str]:
    return key_of(word), word.partition("=")[2]


def final_metrics(folder: Path) -> dict[str, float]:
    """The numbers that a run recorded as its last, by name."""
    found = summary_of(folder).get("metrics")
    if not isinstance(found, dict):
        return {}
    return {str(k): float(v) for k, v in found.items() if isinstance(v, int | float)}


def records(sweep: Path) -> list[dict[str, Any]]:
    """What is known of every job in a sweep's folder, in the order of their names."""
    found = []
    for file in sorted(sweep.glob("*/job.json")):
        record = read_record(file)
        if record:
            found.append(record | {"folder": file.parent, "metrics": final_metrics(file.parent)})
    return found


def write_table(sweep: Path) -> Path:
    """Write sweep.csv: a row a job, with what varied, its last metrics and how it ended."""
    rows = records(sweep)
    varied = list(dict.fromkeys(key for row in rows for key in row["varied"]))
    metrics = sorted({key for row in rows for key in row["metrics"]})
    lines = [["job", "status", *varied, *metrics, "seconds", "error"]]
    for row in rows:
        seconds = row.get("seconds") or summary_of(row["folder"]).get("seconds", "")
        lines.append(
            [row["job"], row["status"]]
            + [row["varied"].get(key, "") for key in varied]
            + [row["metrics"].get(key, "") for key in metrics]
            + [seconds, _short(row.get("error"))]
        )
    text = io.StringIO(newline="")
    csv.writer(text).writerows(lines)
    return write_atomically(sweep / "sweep.csv", text.getvalue().encode())


def finish(returned: Sequence[Any]) -> int:
    """After the last job: report, table, exit status (1 if any job of this command failed)."""
    sweep = Path(os.environ.get(f"{_COMMAND}_DIR", "."))
    if not is_rank_zero():
        return 0
    mine = [row for row in records(sweep) if row.get("sweep") == os.environ.get(_COMMAND)]
    if not mine:
        return 0
    _print_table(mine)
    try:
        from diffusion_lab.reporting.report import write_report

        print(f"\nreport   {write_report(sweep)}")
    except ImportError:
        pass
    print(f"table    {sweep / 'sweep.csv'}")
    failed = [row for row in mine if row["status"] != FINISHED]
    if failed:
        print(
            f"{len(failed)} of {len(mine)} jobs did not finish; the same command again skips the "
            "finished ones and goes on with these",
            file=sys.stderr,
        )
    return 1 if failed else 0


def _short(error: object) -> str:
    """The faults of a message in one line, without its heading."""
    lines = [line.strip(" -") for line in str(error or "").splitlines() if line.strip()]
    return "; ".join(lines[1:] or lines)


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{len(rows)} jobs")
    for title in ("job", "status", "val/loss", "error"):
        table.add_column(title, overflow="fold")
    for row in rows:
        status = row["status"] + (" (before)" if row.get("skipped") else "")
        loss = row["metrics"].get("val/loss")
        shown = "" if loss is None else f"{loss:.5f}"
        table.add_row(row["job"], status, shown, _short(row.get("error")))
    Console().print(table)


def _refuse_disagreeing_ranks(cfg: DictConfig) -> None:
    """Refuse an optimising sweeper with script-launched processes: each would draw its own job."""
    sweeper = str(HydraConfig.get().sweeper.get("_target_", ""))
    trainer = cfg.get("trainer") or {}
    strategy, devices = str(trainer.get("strategy", "auto")), trainer.get("devices", 1)
    if "BasicSweeper" in sweeper or devices in (1, "1") or "spawn" in strategy:
        return
    raise ConfigError(
        f"{sweeper.rsplit('.')[-1]} with trainer.devices={devices}: every process would draw its "
        "own values; use trainer.strategy=ddp_spawn, or trainer.devices=1 hydra/launcher=joblib"
    )
