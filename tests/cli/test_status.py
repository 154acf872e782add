"""Exit statuses: what was typed is 2 in every command, and a reader that stops is no error."""

import json
import pickle
import subprocess
import sys
import zipfile

import pytest
import torch
from commands import READMES, typed
from test_ranges import TINY

from diffusion_lab.config.arguments import compose

COMMANDS = ["train", "sample", "evaluate", "likelihood", "report", "bench"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    from diffusion_lab.train import train

    folder = tmp_path_factory.mktemp("status") / "run"
    train(compose("train", [*TINY, f"run_dir={folder}"]))
    return folder


class Foreign:
    """Something that a pickle of another program holds."""


def truncated(path, run):
    path.write_bytes((run / "checkpoints" / "last.ckpt").read_bytes()[:-1000])


def archive(path, run):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("notes.txt", "no checkpoint")


NO_CHECKPOINTS = {
    "text": lambda path, run: path.write_text("# A README\n"),
    "folder": lambda path, run: path.mkdir(),
    "empty": lambda path, run: path.write_bytes(b""),
    "zip": archive,
    "truncated": truncated,
    "pickle": lambda path, run: path.write_bytes(pickle.dumps({"state_dict": Foreign()})),
    "foreign": lambda path, run: torch.save({"state_dict": {"w": torch.zeros(2)}}, path),
    "list": lambda path, run: torch.save([1, 2], path),
    "missing": lambda path, run: None,
}
TAKES_ONE = {
    "sample": ["ckpt={}"],
    "evaluate": ["ckpt={}"],
    "evaluate study=compare": ["ckpt={run}", "study.rows.ckpt={}"],
    "likelihood": ["ckpt={}"],
    "train": ["resume={}", *TINY],
    "train guidance=auto": ["guidance=auto", "guidance.weak.path={}", "experiment=quickstart"],
    "sample guidance=auto": ["guidance=auto", "guidance.weak.path={}", "ckpt={run}"],
    "report": ["run={}"],
}
"""Command -> how a checkpoint is named in it."""


@pytest.mark.parametrize("kind", NO_CHECKPOINTS)
@pytest.mark.parametrize("command", TAKES_ONE)
def test_what_is_no_checkpoint(command, kind, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "given"
    NO_CHECKPOINTS[kind](path, run)
    before = sorted(tmp_path.rglob("*"))
    words = [
        word.replace("{}", str(path)).replace("{run}", str(run)) for word in TAKES_ONE[command]
    ]
    status, told = typed(*command.split(), *words)
    assert status == 2, told
    assert told.count("error:") == 1 and "Traceback" not in told and "given" in told
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("command", COMMANDS)
def test_a_mistyped_key(command):
    status, told = typed(command, "nonsense=1")
    assert status == 2 and told.count("error:") == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_ctrl_c(command, monkeypatch):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("diffusion_lab.config.main._through_hydra", stopped)
    status, told = typed(command)
    assert status == 130 and told == "error: stopped by Ctrl-C\n"


def test_a_diverged_run_is_1(tmp_path):
    words = [*TINY, "optimizer.lr=1e30", "trainer.max_epochs=3", f"run_dir={tmp_path / 'run'}"]
    words += ["trainer.limit_train_batches=3", "trainer.gradient_clip_val=null"]
    status, told = typed("train", *words)
    assert status == 1 and "diverged" in told and "Traceback" not in told


# ------------------------------------------------------------------ a reader that stops


def unread(*words, cwd):
    """A command whose output nobody reads."""
    process = subprocess.Popen(
        [sys.executable, "-m", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=cwd
    )
    process.stdout.close()
    told = process.stderr.read().decode()
    return process.wait(), told


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("words", [["--help"], ["list=sampler"], ["--cfg", "job"]], ids=str)
def test_answers_into_a_closed_pipe(command, words, tmp_path):
    words = [*words, "run=x"] if command == "report" and "--cfg" in words else words
    status, told = unread(f"diffusion_lab.{command}", *words, cwd=tmp_path)
    assert (status, told) == (0, "")


def test_a_training_goes_on_without_its_terminal(tmp_path):
    words = [*TINY, f"run_dir={tmp_path / 'run'}", "trainer.max_epochs=2"]
    status, told = unread("diffusion_lab.train", *words, cwd=tmp_path)
    assert status == 0 and "Error" not in told, told
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "finished"


def test_a_sweep_goes_on_without_its_terminal(tmp_path):
    words = ["-m", *TINY, "seed=0,1", f"run_dir={tmp_path / 'sweep'}"]
    status, told = unread("diffusion_lab.train", *words, cwd=tmp_path)
    assert status == 0 and "Error" not in told, told
    assert len((tmp_path / "sweep" / "sweep.csv").read_text().splitlines()) == 3


def test_a_table_of_the_statuses_stands_in_the_readme():
    readme = READMES["conf/README.md"]
    for status in ("0", "1", "2", "130", "143"):
        assert f"\n| {status} |" in readme
