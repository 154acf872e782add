"""Every command of the READMEs is typed: here, with a small network and few samples, or elsewhere.

A command that is new to a README is typed by this test without another line.
"""

import json
import re
import shlex
import shutil
import sys

import numpy as np
import pytest
from commands import LINES, ROOT, typed
from PIL import Image
from test_conf import cifar_files, idx_files

from diffusion_lab.metrics import features
from diffusion_lab.metrics.small_classifier import Recipe

ELSEWHERE = {
    'eval "$(diffusion-lab-train -sc install=bash)"': "tests/cli/test_readme_commands.py::"
    "test_completion_prints_a_script",
    "sweep=joblib": "tests/cli/test_sweeps.py::test_launchers_run_jobs_in_processes_of_their_own",
    "sweep=slurm": "tests/cli/test_sweeps.py::test_launchers_run_jobs_in_processes_of_their_own",
    "trainer=ddp": "tests/cli/test_devices.py::"
    "test_two_processes_train_as_one_with_the_doubled_batch",
    "devices=4": "tests/cli/test_devices.py::test_devices_share_the_drawing",
    "vector=": "tests/doors/test_given.py::test_the_commands_of_the_readme",
    "condition_image=": "tests/doors/test_given.py::test_the_commands_of_the_readme",
    "logger.offline=false": "tests/training/test_loggers.py::"
    "test_wandb_without_a_server_goes_on_offline",
}
"""Part of a line -> the test that types it: it needs processes, a cluster or a server."""

SHORT = {
    "train": [
        "trainer.accelerator=cpu", "trainer.precision=32-true", "data.batch_size=8",
        "data.eval_batch_size=16", "trainer.limit_train_batches=4", "trainer.limit_val_batches=1",
        "trainer.max_steps=1", "callbacks.samples=null", "callbacks.artefacts=null",
        "data.validation_size=20",
    ],
    "sample": ["device=cpu"],
    "evaluate": ["device=cpu", "num_samples=20", "batch_size=20", "second_classifier=false"],
    "likelihood": ["device=cpu", "num_images=4", "steps=5"],
    "report": [],
    "bench": [
        "bench.steps=1", "bench.rounds=1", "bench.warmup=1", "bench.num_samples=2",
        "bench.sample_rounds=1", "budget=smoke", "trainer.accelerator=cpu",
        "trainer.precision=32-true", "data.batch_size=8", "data.download=false",
    ],
}  # fmt: skip
"""What is typed after a command to make it short."""


NETWORK = ["denoiser.base_channels=8", "denoiser.heads=2"]
"""Of the run that the lines name."""


def elsewhere(line):
    return next((test for part, test in ELSEWHERE.items() if part in line), None)


HERE = [line for line in LINES if not elsewhere(line)]


def typed_short(line, more=()):
    """Type a line of a README in this process, made short; (exit status, what is told)."""
    name, text = re.search(r"-m diffusion_lab\.(\w+)(.*)", line).groups()
    words = shlex.split(text)
    more = [*SHORT[name], *more]
    if name == "train":
        budget = [] if any(word.startswith("budget=") for word in words) else ["budget=smoke"]
        own = any(part in text for part in ("image_folder", "spirals", "quickstart", "resume=RUN"))
        more = [*budget, *more, *([] if own else ["data.download=false"])]
        more += ["hydra.sweeper.n_trials=2"] if "sweep=optuna" in words else []
    return typed(name, *words, *more)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run that every command takes: classes, discrete time, averaged weights, kept states."""
    folder = tmp_path_factory.mktemp("readme") / "run"
    words = [
        "experiment=quickstart", "schedule=linear", "schedule.steps=100", "parameterization=eps",
        "sampler=ddim", "sampler.steps=4", *NETWORK,
        "logger=none", "callbacks.checkpoints.keep_every_n_steps=2", "trainer.max_steps=4",
        f"run_dir={folder}",
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        line = f"python -m diffusion_lab.train {shlex.join(words)}"
        short = [word for word in SHORT["train"] if word != "trainer.max_steps=1"]
        patch.setitem(SHORT, "train", short)
        assert typed_short(line)[0] == 0
    return folder


@pytest.fixture
def place(trained, tmp_path, monkeypatch):
    """A folder with all that the lines name: RUN, OTHER, PATH and the files of data sets."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DIFFUSION_LAB_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(trained.parent / "cache"))
    monkeypatch.setattr(features, "recipe_for", lambda n: Recipe(steps=20, batch_size=32))
    for name in ("RUN", "OTHER"):
        shutil.copytree(trained, tmp_path / name)
    rng = np.random.default_rng(0)
    for k in range(60):
        picture = Image.fromarray(rng.integers(0, 256, (32, 32), dtype=np.uint8))
        file = tmp_path / "PATH" / "abc"[k % 3] / f"{k}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        picture.save(file)
    return tmp_path


@pytest.mark.parametrize("line", HERE)
def test_a_command_of_the_readme(line, place, monkeypatch):
    if "fashion_mnist" in line:
        idx_files(place / "data", monkeypatch)
    if "experiment=cifar10" in line:
        cifar_files(place / "data", monkeypatch)
    if "resume=auto" in line:
        unfinished = place / "outputs" / "cfg_guidance" / "stopped"
        assert typed_short(f"-m diffusion_lab.train run_dir={unfinished}")[0] == 0
        summary = unfinished / "summary.json"
        summary.write_text(summary.read_text().replace('"finished"', '"interrupted"'))
    small = ["budget=smoke", "data.download=false", "denoiser.base_channels=8"]
    training = json.dumps([*small, *SHORT["train"]])
    more = [f"study.training={training}"] if "study=schedule" in line else []
    more += NETWORK if "init_from=RUN" in line else []
    status, told = typed_short(line, more)
    assert status == 0, told


def test_what_is_typed_elsewhere_is():
    for line in LINES:
        if test := elsewhere(line):
            file, name = test.split("::")
            assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8"), line
    assert all(any(part in line for line in LINES) for part in ELSEWHERE), "a line that is gone"
    assert len(HERE) > 30


def test_completion_prints_a_script(monkeypatch, capfd):
    monkeypatch.setattr(sys, "argv", ["diffusion-lab-train", "-sc", "install=bash"])
    from diffusion_lab.train import main

    main()
    assert "complete" in capfd.readouterr().out
