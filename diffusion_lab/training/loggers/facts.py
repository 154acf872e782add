"""What a run's own record says of it, for the dashboards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusion_lab.files import read_record
from diffusion_lab.runs.environment import git_revision


def facts_of_run(run_dir: Path) -> dict[str, Any]:
    """Code, data and machine of a run, from its summary.json as it is now.

    Args:
        run_dir: The run's folder.

    Returns:
        "code/revision" (the commit, "+changes" where the code was edited since; None outside of a
        checkout) and, where the run keeps a record, "data/name", "data/sha256", "hardware/...",
        "versions/..." and "parameters".
    """
    record = read_record(run_dir / "summary.json")
    found: dict[str, Any] = {"code/revision": record.get("git") or git_revision()}
    data = record.get("data") or {}
    found |= {f"data/{key}": data[key] for key in ("name", "sha256") if key in data}
    for node in ("hardware", "versions"):
        found |= {f"{node}/{key}": value for key, value in (record.get(node) or {}).items()}
    if "parameters" in record:
        found["parameters"] = record["parameters"]
    return found


def outcome(run_dir: Path) -> dict[str, Any]:
    """How a run ended, from its summary.json: status, step, seconds, images_per_second."""
    record = read_record(run_dir / "summary.json")
    keys = ("status", "step", "seconds", "images_per_second")
    return {key: record[key] for key in keys if record.get(key) is not None}
