"""The evaluate command on a run of two steps, trained on the stand-in for missing MNIST files."""

import json

import pytest

from diffusion_lab.config.arguments import compose
from diffusion_lab.errors import ConfigError
from diffusion_lab.evaluate import evaluate
from diffusion_lab.metrics import features
from diffusion_lab.metrics.classifier import Recipe
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
