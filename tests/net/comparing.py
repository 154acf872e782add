"""Start `touching.py` where bits are reproducible, and compare what it found with the record."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from words import HERE

RECORD = HERE / "net.json"

PORTABLE = {
    "OMP_NUM_THREADS": "1",
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_CBWR": "COMPATIBLE",
    "OPENBLAS_CORETYPE": "Haswell",
}
"""One thread, and the instructions that processors with AVX2 and with AVX-512 have in common."""

LOSSES, SAMPLES = 1e-3, 1e-2
"""Relative tolerances where another machine rounds otherwise."""

MISSING = "nothing"
"""Stands for a value that one side lacks."""


def measured(jobs: Sequence[str], folder: Path) -> dict[str, Any]:
    """Fingerprint and results of jobs, run in one process of their own; files go to `folder`."""
    out = folder / "found.json"
    own = {"XDG_CACHE_HOME": str(folder / "cache"), "WANDB_MODE": "offline"}
    done = subprocess.run(
        [sys.executable, str(HERE / "touching.py"), str(out), *jobs],
        env={**os.environ, **PORTABLE, **own},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"touching.py failed:\n{done.stderr[-4000:]}")
    return json.loads(out.read_text(encoding="utf-8"))


def recorded() -> dict[str, Any]:
    """The record: fingerprint and results."""
    return json.loads(RECORD.read_text(encoding="utf-8"))


def is_exact(found: dict[str, Any], record: dict[str, Any]) -> bool:
    """Whether this machine rounds as the one of the record did."""
    return found["fingerprint"] == record["fingerprint"]


def faults(job: str, found: dict[str, Any], record: dict[str, Any]) -> list[str]:
    """Every value of a job that is not the record's, by the rule that `test_net.py` tells."""
    now, exact = found["jobs"][job], is_exact(found, record)
    if "error" in now:
        return [now["error"]]
    old, new = dict(_leaves(record["jobs"][job])), dict(_leaves(now))
    lines = []
    for path in [*old, *(path for path in new if path not in old)]:
        pair = old.get(path, MISSING), new.get(path, MISSING)
        spread = old.get("samples.std", 0.0)
        if pair[0] != pair[1] and (exact or not _tolerable(path, *pair, spread)):
            lines.append(f"{path}: {pair[0]} -> {pair[1]}")
    return lines


def _tolerable(path: str, old: Any, new: Any, spread: float) -> bool:
    """Whether another machine's rounding may have made this difference; `spread`: of samples."""
    if MISSING in (old, new):
        return False
    parts = path.split(".")
    if parts[0] in ("losses", "validation"):
        return math.isclose(old, new, rel_tol=LOSSES)
    if parts[-1] in ("mean", "std"):
        return math.isclose(old, new, rel_tol=0, abs_tol=SAMPLES * spread)
    if parts[0] == "figures":  # single images decide some of them
        return parts[-1] not in ("network_calls", "num_samples")
    return parts[-1] in ("sha256", "tensors")


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(path, value) of everything in nested dicts and lists."""
    if isinstance(node, dict | list):
        items = node.items() if isinstance(node, dict) else enumerate(node)
        for key, child in items:
            yield from _leaves(child, f"{path}.{key}" if path else str(key))
    else:
        yield path, node
