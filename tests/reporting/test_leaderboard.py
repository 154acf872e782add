"""Which setting of a sweep is best: means over seeds, intervals, order."""

import csv
import json
from dataclasses import replace

import pytest
from scipy import stats

from diffusion_lab.runs.leaderboard import Goal, Job, jobs_of, settings, write_tables
from diffusion_lab.runs.sweep_table import show_sweep


def job(folder, loss, status="finished", **varied):
    metrics = {} if loss is None else {"val/loss": loss}
    return Job(folder / "-".join([*varied.values(), status]), status, varied, metrics, 1.0)


def test_seeds_are_pooled_with_students_interval(tmp_path):
    losses = [0.5, 0.7, 0.9]
    jobs = [job(tmp_path, x, lr="1", seed=str(k)) for k, x in enumerate(losses)]
    (one,) = settings(jobs, Goal())
    mean, low, high = one.estimate("val/loss")
    wanted = stats.t.interval(0.95, 2, loc=0.7, scale=stats.sem(losses))
    assert (mean, low, high) == pytest.approx((0.7, *wanted))
    assert settings(jobs[:1], Goal())[0].estimate("val/loss") == (0.5, None, None)


@pytest.mark.parametrize(("mode", "order"), [("min", ["2", "1", "3"]), ("max", ["1", "2", "3"])])
def test_the_best_mean_comes_first_and_what_has_none_last(tmp_path, mode, order):
    losses = {"1": 0.9, "2": 0.3, "3": None}
    jobs = [job(tmp_path, loss, lr=lr) for lr, loss in losses.items()]
    jobs.append(job(tmp_path, 0.01, "pruned", lr="4"))
    found = settings(jobs, Goal("val/loss", mode))
    assert [setting.varied["lr"] for setting in found] == order


def test_jobs_of_other_configs_are_no_seeds_of_this_one(tmp_path):
    """Two commands in one folder, each with a rate of its own that did not vary."""
    jobs = [job(tmp_path, 0.1 + k, seed=str(k % 2)) for k in range(4)]
    jobs = [replace(one, setting=f"config{k // 2}") for k, one in enumerate(jobs)]
    found = settings(jobs, Goal())
    assert [len(setting.jobs) for setting in found] == [2, 2]
    assert found[0].estimate("val/loss").mean == pytest.approx(0.6)


def test_tables_of_what_lies_in_the_folders(tmp_path):
    for seed, loss in enumerate((0.25, 0.75)):
        folder = tmp_path / f"job{seed}"
        folder.mkdir()
        record = {"status": "finished", "varied": {"lr": "1e-3", "seed": str(seed)}, "sweep": "x"}
        (folder / "job.json").write_text(json.dumps(record))
        metrics = {"val/loss": loss, "val/loss_by_level/00-10": loss, "note": None}
        (folder / "summary.json").write_text(json.dumps({"metrics": metrics, "seconds": 2}))
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "job.json").write_text("{")
    write_tables(tmp_path, Goal())
    with (tmp_path / "leaderboard.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row["lr"] == "1e-3" and row["runs"] == "2" and float(row["val/loss"]) == 0.5
    assert float(row["val/loss_low"]) < 0.5 < float(row["val/loss_high"])
    assert not any("by_level" in name for name in row)
    assert json.loads((tmp_path / "sweep.json").read_text())["parameters"] == ["lr", "seed"]
    assert [found.name for found in jobs_of(tmp_path)] == ["job0", "job1"]


def test_the_terminal_names_best_failed_and_unlogged(tmp_path, capsys):
    jobs = [job(tmp_path, 0.2, lr="1"), job(tmp_path, 0.1, lr="[2]")]
    show_sweep([*jobs, job(tmp_path, None, "failed", lr="3")], Goal())
    shown = capsys.readouterr().out
    assert "best" in shown.splitlines()[4] and "[2]" in shown.splitlines()[4]
    assert "failed" in shown
    show_sweep(jobs, Goal("val/agreement", "max"))
    assert "they logged val/loss" in capsys.readouterr().out
