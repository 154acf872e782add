"""A new training that starts from the weights of another: what fits, what is recorded."""

import re

import lightning.pytorch as pl
import pytest
import torch
from commands import LINES, typed
from tiny import TinyData, TinyNet, tiny_module, tiny_trainer
from torch import nn

from diffusion_lab.checkpoints import moved
from diffusion_lab.checkpoints.format import read_checkpoint, weights_of, write_checkpoint
from diffusion_lab.checkpoints.starting import WarmStart, load_start, misfits, read_start
from diffusion_lab.config.arguments import compose
from diffusion_lab.config.words import Typed
from diffusion_lab.errors import CheckpointError, ConfigError
from diffusion_lab.files import read_record, sha256
from diffusion_lab.runs import folder
from diffusion_lab.training.ema import EMA
from diffusion_lab.training.lightning_private import averaged_model


class Told(TinyNet):
    """The tiny network with a branch of two layers, told something more, added to its output."""

    def __init__(self, silent=True):
        super().__init__()
        self.told = nn.Sequential(nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 16))
        for parameter in self.told[2].parameters():
            parameter.data.mul_(0 if silent else 1)

    def forward(self, x, c_noise, label=None):
        return super().forward(x, c_noise, label) + self.told(x.flatten(1)).view_as(x)


def start_of(module):
    return WarmStart(path="parent.ckpt", sha256="0" * 64, step=7, weights=module.state_dict())


def test_a_branch_that_says_nothing_yet_may_be_new():
    parent, child = tiny_module(), tiny_module(denoiser=Told())
    with torch.no_grad():
        for parameter in parent.parameters():
            parameter.normal_()
    load_start(start_of(parent), child)
    x, label = torch.randn(5, 1, 4, 4), torch.tensor([0, 1, 2, 3, 0])
    nets = [module.eval().diffusion.denoiser for module in (parent, child)]
    assert torch.equal(*(net(x, torch.rand(5).fill_(3), label) for net in nets))


def test_a_branch_that_says_something_is_refused_by_name():
    found = misfits(tiny_module().state_dict(), tiny_module(denoiser=Told(silent=False)))
    names = [f"diffusion.denoiser.told.{k}.{kind}" for k in (0, 2) for kind in ("weight", "bias")]
    assert [line.split()[0] for line in found] == names
    assert all("is new and does not start at zero" in line for line in found)


def test_a_silent_last_layer_excuses_nothing_of_what_was_there():
    """The parent has a part of the branch, so that the branch is not new."""
    weights = tiny_module(denoiser=Told()).state_dict()
    del weights["diffusion.denoiser.told.0.weight"]
    (line,) = misfits(weights, tiny_module(denoiser=Told()))
    assert line.startswith("diffusion.denoiser.told.0.weight [8, 16] is new")


def test_what_differs_is_one_error():
    child = tiny_module(denoiser=TinyNet(width=6))
    weights = start_of(tiny_module(denoiser=Told()))
    before = {name: value.clone() for name, value in child.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_start(weights, child)
    text = str(caught.value)
    assert "init_from=parent.ckpt" in text
    assert "diffusion.denoiser.table.weight is [4, 8] there and [4, 6] here" in text
    assert "diffusion.denoiser.told.0.weight [8, 16] has no place here" in text
    assert all(torch.equal(value, before[name]) for name, value in child.state_dict().items())


def test_other_classes_do_not_fit():
    child = tiny_module(denoiser=TinyNet(num_classes=None), num_classes=None, guidance=None)
    assert len(misfits(tiny_module().state_dict(), child)) == 1


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parent")
    tiny_trainer(folder, max_epochs=1).fit(tiny_module(), TinyData())
    return folder / "checkpoints" / "last.ckpt"


class AtStart(pl.Callback):
    """Keeps what a training starts with."""

    def on_train_start(self, trainer, pl_module):
        self.raw = {name: value.clone() for name, value in pl_module.state_dict().items()}
        (ema,) = (callback for callback in trainer.callbacks if isinstance(callback, EMA))
        self.average = {k: v.clone() for k, v in averaged_model(ema).module.state_dict().items()}
        self.step, self.state = trainer.global_step, trainer.optimizers[0].state_dict()["state"]


def test_weights_and_average_start_there_and_the_rest_from_nothing(parent, tmp_path):
    start, seen = read_start(parent.parents[1]), AtStart()
    assert start.step == read_checkpoint(parent)["global_step"] > 0
    child = tiny_module()
    child.start_from(start)
    tiny_trainer(tmp_path, seen, max_epochs=1).fit(child, TinyData())
    averaged = weights_of(read_checkpoint(parent))
    raw = weights_of(read_checkpoint(parent), "raw")
    assert any(not torch.equal(averaged[name], raw[name]) for name in raw)
    for name, value in averaged.items():
        assert torch.equal(seen.raw[name], value) and torch.equal(seen.average[name], value), name
    assert seen.step == 0 and not seen.state
    own = read_checkpoint(tmp_path)
    assert own["diffusion_lab"]["init_from"] == start.record
    assert own["global_step"] == start.step


def test_raw_weights_of_a_run_without_averaging(parent, tmp_path):
    checkpoint = read_checkpoint(parent)
    checkpoint["state_dict"] = checkpoint.pop("current_model_state")
    checkpoint["diffusion_lab"]["weights"] = {"state_dict": "raw"}
    write_checkpoint(checkpoint, tmp_path / "raw.ckpt")
    with pytest.warns(UserWarning, match="no averaged weights"):
        start = read_start(tmp_path / "raw.ckpt")
    assert torch.equal(
        start.weights["diffusion.denoiser.inner.weight"],
        checkpoint["state_dict"]["diffusion.denoiser.inner.weight"],
    )


def test_old_names_are_read(parent, tmp_path, monkeypatch):
    """And a class that nobody knows needs no trust: its configuration is not used."""
    checkpoint = read_checkpoint(parent)
    state = checkpoint["state_dict"]
    checkpoint["state_dict"] = {k.replace(".inner.", ".first."): v for k, v in state.items()}
    checkpoint["diffusion_lab"]["config"] = {"denoiser": {"_target_": "ours.Net"}}
    write_checkpoint(checkpoint, tmp_path / "old.ckpt")
    old = "diffusion.denoiser.first"
    assert len(misfits(read_start(tmp_path / "old.ckpt").weights, tiny_module())) == 4
    monkeypatch.setitem(moved.MOVED_WEIGHTS, old, "diffusion.denoiser.inner")
    assert misfits(read_start(tmp_path / "old.ckpt").weights, tiny_module()) == []


SMALL = [
    "experiment=quickstart", "budget=smoke", "trainer=cpu", "logger=none", "data.batch_size=8",
    "denoiser.base_channels=8", "denoiser.heads=2", "sampler.steps=2",
    "trainer.limit_train_batches=2", "trainer.limit_val_batches=1", "trainer.precision=32-true",
    "callbacks.samples.num_samples=2",
]  # fmt: skip


def prepared(*words):
    return folder.prepare(Typed.of(["paths.output_dir=outputs", *words]))


def test_the_path_is_settled_before_composing(parent, tmp_path, monkeypatch):
    """Auto means the newest run now, for all processes; not in a sweep, whose jobs are newer."""
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "outputs" / "a = b" / "checkpoints"
    run.mkdir(parents=True)
    (run / "last.ckpt").write_bytes(parent.read_bytes())
    found = "init_from='outputs/a = b/checkpoints/last.ckpt'"
    for given in ("auto", "outputs/a = b", "outputs"):
        assert found in prepared(f"init_from={given}")
    cfg = compose("train", prepared("init_from=auto"))
    assert cfg.init_from == "outputs/a = b/checkpoints/last.ckpt"
    with pytest.raises(ConfigError, match="name the run"):
        prepared("-m", "seed=0,1", "init_from=auto")
    with pytest.raises(ConfigError, match="leave one of them out"):
        prepared("resume=auto", "init_from=auto")
    assert "init_from=outputs" in prepared("-m", "seed=0,1", "init_from=outputs")


def test_a_run_that_began_by_itself_has_no_start_to_be_typed(parent, tmp_path):
    from diffusion_lab.train import train as run

    words = [*SMALL, f"resume={parent}", f"init_from={parent}", f"run_dir={tmp_path / 'run'}"]
    with pytest.raises(ConfigError, match="leave out init_from"):
        run(compose("train", words))
    assert not (tmp_path / "run").exists()


def test_the_command_and_its_resumption_without_the_parent(tmp_path, monkeypatch):
    """The command of the README; what cannot be is refused before a folder is made."""
    monkeypatch.chdir(tmp_path)
    quick = "callbacks.record.report=false"
    status, told = typed("train", *SMALL, quick, "run_dir=parent")
    assert status == 0, told
    for words, text in (
        (["denoiser.base_channels=16"], r"do not fit(.*\n)+.*diffusion\.denoiser\.\S+ is \["),
        (["init_from=nowhere"], "nowhere does not exist"),
        (["resume=parent"], "leave one of them out"),
    ):
        status, told = typed("train", *SMALL, "init_from=parent", "run_dir=other", *words)
        assert status == 2 and "Traceback" not in told
        assert re.search(text, told), told
        assert not (tmp_path / "other").exists()

    file = tmp_path / "parent" / "checkpoints" / "last.ckpt"
    assert "python -m diffusion_lab.train init_from=RUN optimizer.lr=1e-4" in LINES
    words = ["init_from=parent", "optimizer.lr=1e-4", "run_dir=child"]
    status, told = typed("train", *SMALL, *words)
    assert status == 0, told
    record = {"path": "parent/checkpoints/last.ckpt", "sha256": sha256(file), "step": 2}
    child = tmp_path / "child"
    assert read_record(child / "summary.json")["init_from"] == record
    assert read_record(child / "summary.json")["step"] == 2
    page = (child / "report.html").read_text()
    assert "started from the weights of" in page and record["sha256"] in page

    (tmp_path / "parent").rename(tmp_path / "gone")
    status, told = typed("train", "resume=child", "trainer.max_epochs=2", quick)
    assert status == 0, told
    stored = read_checkpoint(child)["diffusion_lab"]
    assert stored["init_from"] == record == read_record(child / "summary.json")["init_from"]
    assert stored["config"]["init_from"] == record["path"]
    assert read_record(child / "summary.json")["step"] == 4
