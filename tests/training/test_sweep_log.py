"""A sweep on the dashboard: one run with the leaderboard, in the group of its jobs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import wandb_file

from diffusion_lab.figures.parallel_coordinates import parallel_image, ranking
from diffusion_lab.runs.sweep_records import as_number
from diffusion_lab.training.loggers.sweep import log_sweep

ROWS = [
    {"job": "a", "optimizer.lr": "1e-4", "sampler": "ddim", "val/loss": 0.3, "seconds": "12.5"},
    {"job": "b", "optimizer.lr": "1e-2", "sampler": "euler", "val/loss": 0.1, "seconds": "13"},
    {"job": "c", "optimizer.lr": "1e-3", "sampler": "ddim", "val/loss": "", "error": "diverged"},
    {"job": "d", "optimizer.lr": "1e-3", "sampler": "euler", "val/loss": 0.2, "seconds": "12"},
]
PARAMETERS = ["optimizer.lr", "sampler"]
LOGGER = {"project": "p", "group": None, "tags": ["x"], "offline": True, "patience": 30.0}


def test_a_sweep_is_a_run_of_its_group(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    folder = tmp_path / "lr-sweep"
    folder.mkdir()
    (folder / "report.html").write_text("<p>all jobs</p>")
    log_sweep(folder, ROWS, PARAMETERS, "val/loss", "min", LOGGER)
    found = wandb_file.read(folder)
    assert (found.run.run_group, found.run.job_type) == ("lr-sweep", "sweep")
    assert found.config["sweep"] == {
        "parameters": PARAMETERS, "metric": "val/loss", "mode": "min",
    }  # fmt: skip
    (table,) = found.media("table/leaderboard_*.json")
    stored = json.loads(table.read_text())
    assert stored["columns"] == [*PARAMETERS, "val/loss", "job", "seconds", "error"]
    assert [row[3] for row in stored["data"]] == ["b", "d", "a", "c"]
    assert stored["data"][0][:3] == [0.01, "euler", 0.1] and stored["data"][3][2] is None
    assert len(found.media("images/parallel_coordinates_*.png")) == 1
    assert len(found.media("html/report_*.html")) == 1
    assert found.summary["best/val/loss"] == 0.1


def test_nothing_to_rank_is_a_table_alone(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    log_sweep(tmp_path, ROWS[2:3], PARAMETERS, "val/loss", "min", LOGGER | {"group": "g"})
    found = wandb_file.read(tmp_path)
    assert found.run.run_group == "g" and len(found.media("table/*.json")) == 1
    assert not found.media("images/*.png")


def test_rows_are_ranked_and_drawn() -> None:
    assert [row["job"] for row in ranking(ROWS, "val/loss")] == ["b", "d", "a"]
    assert [row["job"] for row in ranking(ROWS, "val/loss", "max")] == ["a", "d", "b"]
    assert as_number("nan") is None and as_number(True) is None and as_number("1e-3") == 0.001
    drawn = np.asarray(parallel_image(ROWS, PARAMETERS, "val/loss"))
    other = np.asarray(parallel_image(ROWS, PARAMETERS, "val/loss", "max"))
    assert drawn.std() > 5 and (drawn != other).any()
    with pytest.raises(ValueError, match="metric='val/fd'"):
        parallel_image(ROWS, PARAMETERS, "val/fd")
