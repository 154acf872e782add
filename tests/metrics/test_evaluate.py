"""The evaluate command on a run of two steps, trained on the stand-in for missing MNIST files."""

import json
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest
import torch
from torch import nn

from diffusion_lab.config.arguments import compose
from diffusion_lab.errors import ConfigError
from diffusion_lab.evaluate import evaluate, main
from diffusion_lab.metrics import features
from diffusion_lab.metrics.small_classifier import Recipe
from diffusion_lab.train import train


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "tiny"
    words = ["experiment=quickstart", "budget=smoke", "data=mnist", "logger=none"]
    words += [
        f"run_dir={folder}",
        f"paths.data_dir={folder.parent / 'none'}",
        "data.download=false",
    ]
    words += ["data.batch_size=8", "trainer.max_steps=2", "sampler.steps=2"]
    train(compose("train", words))
    return folder


def test_scores_a_run_against_the_data_it_was_trained_on(run_dir, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(run_dir / "cache"))
    monkeypatch.setattr(features, "recipe_for", lambda n: Recipe(steps=40, batch_size=32))
    words = [f"ckpt={run_dir}", "num_samples=20", "device=cpu"]
    figures = evaluate(compose("evaluate", words))
    shown = capsys.readouterr().out
    written = json.loads((run_dir / "metrics.json").read_text())
    assert written["num_samples"] == 20 and written["settings"]["sampler"]["steps"] == 2
    assert 0 <= figures["agreement"] <= 1 and figures["fd_ratio"] > 1
    assert figures["network_calls"] == 4, "two steps, each with and without the class"
    assert figures["remaining_variance"] > 0 and figures["pairwise_distance_test"] > 5
    assert "embedded digits" in shown and "class agreement" in shown
    assert not (run_dir.parent / "none").exists(), "the classifier is kept in the user's cache"
    again = evaluate(compose("evaluate", [*words, "batch_size=7", "label=[3,8]"]))
    assert [share is None for share in again["per_class"]] == [k not in (3, 8) for k in range(10)]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["num_samples=1", "sampler.steps=0"], r"(?s)sampler\.steps=0.*num_samples=1"),
        (["label=12"], "label=12"),
    ],
)
def test_what_cannot_run_is_refused(run_dir, words, named):
    with pytest.raises(ConfigError, match=named):
        evaluate(compose("evaluate", [f"ckpt={run_dir}", "device=cpu", *words]))


def test_a_checkpoint_is_needed():
    with pytest.raises(ConfigError, match="evaluate needs ckpt=PATH"):
        evaluate(compose("evaluate"))


class SmallInception(nn.Module):
    """In the place of the network whose weights are loaded: 64 features of a few pixels."""

    def __init__(self, name, features_list, feature_extractor_weights_path=None, antialias=True):
        super().__init__()
        assert features_list == ["64"]
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("matrix", torch.randn(3 * 28 * 28, 64, generator=generator) / 500)

    def forward(self, x):
        assert x.dtype == torch.uint8 and x.shape[1] == 3
        return x.flatten(1).float() @ self.matrix


def test_inception_from_the_command_line(run_dir, monkeypatch, capsys):
    from torchmetrics.image import fid, kid

    fidelity = ModuleType("torch_fidelity")
    fidelity.__spec__ = ModuleSpec("torch_fidelity", None)
    monkeypatch.setitem(sys.modules, "torch_fidelity", fidelity)
    for module in (fid, kid):
        monkeypatch.setattr(module, "_TORCH_FIDELITY_AVAILABLE", True)
        monkeypatch.setattr(module, "NoTrainInceptionV3", SmallInception)
    monkeypatch.setenv("XDG_CACHE_HOME", str(run_dir / "cache"))
    monkeypatch.setattr(features, "recipe_for", lambda n: Recipe(steps=40, batch_size=32))
    words = ["features=inception", "features.feature=64", "num_samples=40", "device=cpu"]
    words += ["second_classifier=false", "features.real_images=300"]
    monkeypatch.setattr(sys, "argv", ["evaluate", f"ckpt={run_dir}", *words])
    main()
    shown = capsys.readouterr().out
    written = json.loads((run_dir / "metrics.json").read_text())
    assert written["fid"] > written["fid_real"] > 0 and written["kid"] > written["kid_real"]
    assert written["settings"]["features"]["real_images"] == 300
    lines = {line.split()[0]: line for line in shown.splitlines() if line.strip()}
    assert f"{written['fid']:,.3f}" in lines["FID"] and f"{written['kid']:.5f}" in lines["KID"]


def test_inception_needs_its_library_before_anything_is_drawn(run_dir, monkeypatch, capsys):
    monkeypatch.setattr("diffusion_lab.metrics.inception.find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["evaluate", f"ckpt={run_dir}", "features=inception"])
    with pytest.raises(SystemExit) as left:
        main()
    told = capsys.readouterr()
    assert left.value.code == 2 and "pip install torch-fidelity" in told.err and not told.out
