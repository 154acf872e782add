"""How the data of a command walk through the rooms: one read, one expansion, one sampler."""

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

HERE = Path(__file__).parent
STORED = HERE.parent / "net" / "format_1.ckpt"
WORDS = [f"ckpt={STORED}", "sampler.steps=3", "device=cpu"]


def walk(*words):
    """(file in the package, function) of every call."""
    done = subprocess.run(
        [sys.executable, HERE / "walk.py", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [tuple(call) for call in json.loads(done.stdout.splitlines()[-1])]


def once(calls, name, file=""):
    return sum(function == name and place.startswith(file) for place, function in calls)


def test_sample_crosses_few_packages(tmp_path):
    out = f"out={tmp_path / 'a.png'}"
    calls = walk("sample", *WORDS, "label=7", "num_samples=4", "guidance.scale=2", out)
    packages = [Path(file).parts[0] if "/" in file else "diffusion_lab" for file, _ in calls]
    moves = [
        f"{a} -> {b} ({call})"
        for (a, b), call in zip(pairwise(packages), calls[1:], strict=True)
        if a != b
    ]
    assert len(moves) <= 45, "\n".join(moves)


@pytest.mark.parametrize("command", ["sample", "evaluate"])
def test_a_checkpoint_is_read_once_and_everything_made_once(command, tmp_path):
    out = tmp_path / ("a.npz" if command == "sample" else "scores")
    more = ["second_classifier=false"] if command == "evaluate" else []
    calls = walk(command, *WORDS, *more, "num_samples=20", "batch_size=20", f"out={out}")
    assert once(calls, "read_sealed") == 1, "the file is read and hashed"
    assert once(calls, "expand_labels") == 1
    assert once(calls, "__init__", "sampling/ancestral.py") == 1, "the sampler"
