"""From a multirun command to its jobs, tables and exit status."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from diffusion_lab.config.arguments import compose
from diffusion_lab.errors import ConfigError
from diffusion_lab.runs import sweeps
from diffusion_lab.runs.launching import refuse_launch
from diffusion_lab.runs.sweeps import digest, job_name

TINY = [
    "experiment=quickstart", "budget=smoke", "trainer=cpu", "logger=none",
    "denoiser.base_channels=8", "denoiser.heads=2", "data.batch_size=8",
    "data.eval_batch_size=16", "sampler.steps=2", "trainer.limit_train_batches=2",
    "trainer.limit_val_batches=1", "trainer.precision=32-true", "callbacks.samples.num_samples=2",
    "callbacks.record.report=false",
]  # fmt: skip


def typed(*words, cwd):
    return subprocess.run(
        [sys.executable, "-m", "diffusion_lab.train", *words],
        capture_output=True, text=True, cwd=cwd,
    )  # fmt: skip


def table(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def weights(run):
    from diffusion_lab.checkpoints.format import read_checkpoint

    return read_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"]


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """2 x 2 over optimizer.lr and schedule.steps of the default experiment, and what was typed."""
    folder = tmp_path_factory.mktemp("swept")
    words = [word for word in TINY if not word.startswith("experiment")]
    words += ["data.when_missing=digits", "data.download=false", "data.validation_size=100",
              "paths.data_dir=none", "-m", "optimizer.lr=1e-3,2e-3", "schedule.steps=20,40",
              "run_dir=sweep"]  # fmt: skip
    done = typed(*words, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "sweep", words, done


def test_one_folder_a_job_and_three_tables(swept):
    sweep, _, done = swept
    jobs = [path for path in sweep.iterdir() if path.is_dir()]
    assert len(jobs) == 4 and not any(c in job.name for job in jobs for c in "=,")
    rows = table(sweep / "sweep.csv")
    assert {row["status"] for row in rows} == {"finished"}
    assert {(float(r["optimizer.lr"]), r["schedule.steps"]) for r in rows} == {
        (lr, steps) for lr in (1e-3, 2e-3) for steps in ("20", "40")
    }
    best = table(sweep / "leaderboard.csv")
    losses = [float(row["val/loss"]) for row in best]
    assert losses == sorted(losses) and {row["runs"] for row in best} == {"1"}
    assert "best" in done.stdout and (sweep / "report.html").is_file()
    assert {path.name for path in sweep.parent.iterdir()} <= {"sweep", "outputs"}


def test_a_job_of_a_sweep_is_the_same_run_alone(swept, tmp_path):
    """The last of four jobs in one process, bit for bit."""
    from diffusion_lab.train import train

    sweep, words, _ = swept
    (in_sweep,) = sweep.glob("lr-0.002_steps-40_*")
    alone = [w for w in words if not w.startswith(("-m", "optimizer.lr", "schedule.st", "run_dir"))]
    alone += ["optimizer.lr=2e-3", "schedule.steps=40", f"run_dir={tmp_path / 'alone'}"]
    train(compose("train", alone))
    one, other = weights(in_sweep), weights(tmp_path / "alone")
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_typed_again_it_trains_nothing_and_then_resumes_what_broke(swept):
    sweep, words, _ = swept
    again = typed(*words, cwd=sweep.parent)
    assert again.returncode == 0, again.stderr
    assert "4 of them finished before" in again.stdout and "== job" not in again.stdout
    broken = next(path for path in sorted(sweep.iterdir()) if path.is_dir())
    (broken / "summary.json").write_text("{}")
    third = typed(*words, cwd=sweep.parent)
    assert third.returncode == 0, third.stderr
    assert third.stdout.count("finished before, skipped") == 3
    assert "Going on from step 2" in third.stdout
    assert json.loads((broken / "summary.json").read_text())["status"] == "finished"


def test_a_failing_job_is_named_at_the_end_and_the_rest_run(tmp_path):
    done = typed(*TINY, "-m", "optimizer.lr=-1,1e-3", "run_dir=sweep", cwd=tmp_path)
    assert done.returncode == 1
    rows = {row["optimizer.lr"]: row for row in table(tmp_path / "sweep" / "sweep.csv")}
    assert rows["-1"]["status"] == "refused" and "optimizer.lr" in rows["-1"]["error"]
    assert rows["0.001"]["status"] == "finished"
    assert "1 of 2 jobs did not finish" in done.stderr and rows["-1"]["job"] in done.stderr


def test_a_job_that_does_not_compose_is_refused_like_any_other(tmp_path):
    """A U-Net has no points to work on; the other job trains."""
    words = [word for word in TINY if not word.startswith("data.")]
    words += ["data.batch_size=8", "data.validation_size=20", "data=moons,digits"]
    done = typed(*words, "-m", "run_dir=sweep", cwd=tmp_path)
    assert done.returncode == 1
    rows = {row["data"]: row for row in table(tmp_path / "sweep" / "sweep.csv")}
    assert rows["moons"]["status"] == "refused" and "denoiser=mlp" in rows["moons"]["error"]
    assert rows["digits"]["status"] == "finished"


def test_a_jobs_name_hangs_on_what_is_trained_alone():
    def name(*words):
        return job_name(compose("train", [*TINY, "run_dir=x", *words]), [])

    same = ["logger=csv", "paths.data_dir=elsewhere", "paths.output_dir=there", "sweep.mode=max"]
    assert {name(word) for word in same} == {name()}
    other = ["seed=1", "optimizer.lr=0.5", "data.horizontal_flip=true", "callbacks.ema.decay=0.5"]
    assert len({name(), *(name(word) for word in other)}) == 5
    cfg = compose("train", [*TINY, "run_dir=x", "seed=1"])
    assert digest(cfg, seed=False) == digest(compose("train", [*TINY, "run_dir=x"]), seed=False)


def test_what_a_failed_job_had_reached_is_not_told(tmp_path, monkeypatch):
    """A search must not take the best value before a divergence for a result."""

    def diverges(cfg):
        metrics = {"metrics": {"val/loss": 0.1}, "status": "failed"}
        (tmp_path / "sweep").mkdir(exist_ok=True)
        (Path(cfg.run_dir) / "summary.json").write_text(json.dumps(metrics))
        raise RuntimeError("diverged")

    running = SimpleNamespace(
        overrides=SimpleNamespace(task=[]), job={"num": 0}, **vars(hydra_node())
    )
    monkeypatch.setattr(sweeps.HydraConfig, "get", lambda: running)
    cfg = compose("train", [*TINY, f"run_dir={tmp_path / 'sweep'}"])
    assert sweeps.job(cfg, diverges) is None


def test_a_mistyped_choice_is_refused_before_any_job(tmp_path):
    done = typed(*TINY, "-m", "sampler=ddim,dimm", "run_dir=sweep", cwd=tmp_path)
    assert done.returncode == 2 and "did you mean ddim" in done.stderr
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize(
    ("launcher", "plugin"),
    [("joblib", "hydra_joblib_launcher"), ("submitit", "hydra_submitit_launcher")],
)
def test_launchers_run_jobs_in_processes_of_their_own(launcher, plugin, tmp_path):
    pytest.importorskip(f"hydra_plugins.{plugin}")
    words = ["-m", f"sweep={launcher}", "optimizer.lr=-1,1e-3", "run_dir=sweep"]
    done = typed(*TINY, *words, cwd=tmp_path)
    rows = {row["optimizer.lr"]: row for row in table(tmp_path / "sweep" / "sweep.csv")}
    assert rows["0.001"]["status"] == "finished", done.stderr
    assert rows["-1"]["status"] == "refused" and done.returncode == 1


def test_a_search_gives_up_what_does_worse(tmp_path):
    """Sensible rates first, by the seed; then one that hardly learns."""
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    words = ["-m", "sweep=optuna", "hydra.sweeper.n_trials=4", "trainer.max_epochs=2",
             "callbacks.pruning.pruner.n_startup_trials=1", "run_dir=sweep",
             "optimizer.lr=tag(log, interval(1e-7, 1e-2))"]  # fmt: skip
    done = typed(*TINY, *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = table(tmp_path / "sweep" / "sweep.csv")
    finished = [float(row["optimizer.lr"]) for row in rows if row["status"] == "finished"]
    pruned = [float(row["optimizer.lr"]) for row in rows if row["status"] == "pruned"]
    assert len(finished) + len(pruned) == 4 and pruned
    assert max(finished) > max(pruned)
    again = typed(*TINY, *words, cwd=tmp_path)
    assert again.returncode == 0 and "== job" not in again.stdout


def hydra_node(sweeper="BasicSweeper", launcher="BasicLauncher", **launching):
    named = {"_target_": f"x.{launcher}", **launching}
    node = SimpleNamespace(sweeper={"_target_": f"x.{sweeper}"}, launcher=_Node(named))
    return node


class _Node(dict):
    __getattr__ = dict.__getitem__


@pytest.mark.parametrize(
    ("hydra", "trainer", "remedy"),
    [
        ({"sweeper": "OptunaSweeper"}, {"devices": 2, "strategy": "ddp"}, "ddp_spawn"),
        ({"launcher": "JoblibLauncher"}, {"devices": 2, "strategy": "ddp"}, "devices=1"),
        ({"launcher": "LocalLauncher"}, {"devices": "auto", "strategy": "auto"}, "devices=1"),
        (
            {"launcher": "SlurmLauncher", "tasks_per_node": 1, "nodes": 1},
            {"devices": 4, "strategy": "ddp"},
            "hydra.launcher.tasks_per_node=4",
        ),
    ],
)
def test_processes_that_would_not_agree_are_refused(hydra, trainer, remedy):
    with pytest.raises(ConfigError, match=remedy):
        refuse_launch(hydra_node(**hydra), trainer)


@pytest.mark.parametrize(
    ("hydra", "trainer"),
    [
        ({}, {"devices": 2, "strategy": "ddp"}),
        ({"sweeper": "OptunaSweeper"}, {"devices": [1], "strategy": "auto"}),
        ({"sweeper": "OptunaSweeper"}, {"devices": 2, "strategy": "ddp_spawn"}),
        ({"sweeper": "OptunaSweeper", "launcher": "JoblibLauncher"}, {"devices": 1}),
        (
            {"launcher": "SlurmLauncher", "tasks_per_node": 2, "nodes": 1},
            {"devices": 2, "strategy": "ddp"},
        ),
    ],
)
def test_processes_that_agree_are_not(hydra, trainer):
    refuse_launch(hydra_node(**hydra), trainer)


def test_jobs_that_end_before_a_validation_have_a_leaderboard(tmp_path):
    """max_steps ends each job within its first epoch."""
    words = [word for word in TINY if not word.startswith("trainer.limit_train_batches")]
    done = typed("-m", *words, "trainer.max_steps=3", "seed=0,1", "run_dir=sweep", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (row,) = table(tmp_path / "sweep" / "leaderboard.csv")
    assert row["runs"] == "2" and float(row["val/loss"]) > 0
    assert all(float(row["val/loss"]) > 0 for row in table(tmp_path / "sweep" / "sweep.csv"))
