"""Several processes do what one does: the same weights, the same images, one run folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion_lab.config.arguments import compose
from diffusion_lab.config.checking import check

WORDS = [
    "experiment=quickstart", "logger=none", "denoiser.base_channels=8", "denoiser.heads=2",
    "trainer.precision=32-true", "trainer.limit_train_batches=20", "trainer.max_epochs=1",
    "trainer.check_val_every_n_epoch=1", "callbacks.samples.num_samples=5", "sampler.steps=2",
    "optimizer=sgd", "optimizer.lr=0.05", "callbacks.record.report=false",
]  # fmt: skip
ONE = ["trainer=cpu", "data.batch_size=16", "data.eval_batch_size=50", "run_dir=one"]
TWO = ["trainer=ddp", "trainer.accelerator=cpu", "data.batch_size=8", "data.eval_batch_size=25"]


def typed(command, *words, cwd):
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", f"diffusion_lab.{command}", *words],
        capture_output=True, text=True, cwd=cwd, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """20 steps by one process with 16 images a step, and by two with 8 each (gloo)."""
    folder = tmp_path_factory.mktemp("devices")
    typed("train", *WORDS, *ONE, cwd=folder)
    probe = ["trust=[rank_probe]", "+callbacks.probe._target_=rank_probe.Probe"]
    words = [*TWO, *probe, "+callbacks.probe.folder=.", "run_dir=two"]
    return folder, typed("train", *WORDS, *words, cwd=folder)


def checkpoint(run):
    from diffusion_lab.checkpoints.format import read_checkpoint

    return read_checkpoint(run)


def metrics(run):
    return json.loads((run / "summary.json").read_text())["metrics"]


def close(one, two, tolerance=1e-6):
    """Weights and averages, the validation loss (whose last batch is uneven), and the grid."""
    for name in ("state_dict", "current_model_state"):
        a, b = checkpoint(one)[name], checkpoint(two)[name]
        assert max(float((a[key] - b[key]).abs().max()) for key in a) < tolerance
    a, b = metrics(one), metrics(two)
    assert a["val/loss"] == pytest.approx(b["val/loss"], abs=tolerance)
    pictures = [np.asarray(Image.open(run / "samples" / "epoch_001.png")) for run in (one, two)]
    assert pictures[0].shape == pictures[1].shape
    assert np.abs(pictures[0].astype(int) - pictures[1]).max() <= 1


def test_two_processes_train_as_one_with_the_doubled_batch(runs):
    folder, _ = runs
    close(folder / "one", folder / "two")
    assert json.loads((folder / "two" / "summary.json").read_text())["processes"] == 2


def test_averages_are_equal_on_the_ranks(runs):
    folder, _ = runs
    first, second = (torch.load(folder / f"rank{rank}.pt") for rank in (0, 1))
    assert torch.equal(first, second)


def test_one_run_folder_told_of_once(runs):
    folder, done = runs
    assert {path.name for path in folder.iterdir()} == {"one", "two", "rank0.pt", "rank1.pt"}
    one, two = (
        {str(path.relative_to(folder / run)) for path in (folder / run).rglob("*")}
        for run in ("one", "two")
    )
    assert one == two
    assert done.stdout.count("Done: 20 steps") == 1 and done.stdout.count("run folder") == 1


def test_devices_share_the_drawing(runs):
    folder, _ = runs
    drawn = []
    for devices in (1, 2):
        out = folder / f"{devices}.npz"
        words = ["num_samples=5", "sampler=ddpm", "sampler.steps=3", "device=cpu"]
        typed("sample", "ckpt=one", *words, f"devices={devices}", f"out={out.name}", cwd=folder)
        drawn.append(np.load(out))
        out.unlink()
    assert drawn[0]["labels"].tolist() == drawn[1]["labels"].tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(drawn[0]["samples"], drawn[1]["samples"], atol=1e-4)


@pytest.mark.slow
def test_spawned_processes_do_the_same_and_say_so(runs):
    folder, _ = runs
    words = [*TWO, "trainer.strategy=ddp_spawn", "run_dir=spawned"]
    done = typed("train", *WORDS, *words, cwd=folder)
    close(folder / "one", folder / "spawned")
    assert "Done: 20 steps, 1 epoch" in done.stdout


@pytest.mark.slow
def test_a_sweep_of_distributed_jobs(runs, tmp_path):
    folder, _ = runs
    words = [word for word in [*WORDS, *TWO] if not word.startswith("optimizer.lr")]
    done = typed("train", *words, "-m", "optimizer.lr=0.02,0.05", "run_dir=sweep", cwd=tmp_path)
    jobs = sorted((tmp_path / "sweep").glob("lr-*"))
    assert len(jobs) == 2 and done.stdout.count("Done: 20 steps") == 2
    close(folder / "one", jobs[1])


@pytest.mark.parametrize("strategy", ["fsdp", "deepspeed_stage_2", "ddpp"])
def test_strategies_that_cannot_work_are_refused(strategy):
    (fault,) = check(compose("train", [f"trainer.strategy={strategy}"]), build=False)
    assert strategy in fault and ("ddp" in fault)
    assert check(compose("train", ["trainer=ddp"]), build=False) == []
