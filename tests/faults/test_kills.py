"""Signals and kills: what is on disk is whole, and the run goes on bit for bit."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from test_resume import STATE, run, same

from diffusion_lab.checkpoints.format import read_checkpoint, read_newest

SCRIPT = Path(__file__).with_name("run_tiny.py")


def started(folder: Path, *arguments: Path) -> subprocess.Popen[str]:
    command = [sys.executable, str(SCRIPT), str(folder), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def hit(process: subprocess.Popen[str], number: int, step: int) -> str:
    """Send a signal once a step was reached; the process's remaining output."""
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if line.startswith("step ") and int(line.split()[1]) >= step:
            process.send_signal(number)
            break
    rest = process.communicate(timeout=60)[0]
    return "".join(seen) + rest


@pytest.mark.parametrize(
    ("number", "step", "status"),
    [(signal.SIGTERM, 7, 143), (signal.SIGINT, 20, 130)],
)
def test_signals_save_and_say_how_to_go_on(
    tmp_path: Path, number: int, step: int, status: int
) -> None:
    process = started(tmp_path / "cut")
    shown = hit(process, number, step)
    assert process.returncode == status, shown
    assert f"resume={tmp_path / 'cut'}" in shown and "Traceback" not in shown
    summary = json.loads((tmp_path / "cut" / "summary.json").read_text())
    assert summary["status"] == "interrupted" and summary["step"] in (step, step + 1)
    stored = read_checkpoint(tmp_path / "cut")
    assert stored["global_step"] == summary["step"]
    again = run(tmp_path / "cut", ckpt=tmp_path / "cut" / "checkpoints" / "last.ckpt")
    assert same(run(tmp_path / "whole"), again) == []


@pytest.mark.slow
def test_killed_again_and_again(tmp_path: Path) -> None:
    folder = tmp_path / "cut"
    for step in (4, 16, 31):
        resume = [read_newest(folder)[0]] if folder.exists() else []
        hit(started(folder, *resume), signal.SIGKILL, step)
    again = run(folder, ckpt=read_newest(folder)[0])
    assert same(run(tmp_path / "whole"), again) == []
    assert all(key in again for key in STATE)
    assert not list(folder.rglob("*.part"))
