"""Sampling that composes classes, starts from images, or asks a second model."""

import numpy as np
import pytest
from PIL import Image

from diffusion_lab.config.arguments import compose
from diffusion_lab.errors import ConfigError

SMALL = [
    "budget=smoke", "trainer=cpu", "logger=none", "data=digits", "data.batch_size=8",
    "data.eval_batch_size=16", "trainer.limit_train_batches=2", "trainer.limit_val_batches=1",
    "trainer.precision=32-true", "callbacks.record.report=false",
]  # fmt: skip
NET = ["denoiser.base_channels=8", "denoiser.heads=2", "sampler.steps=2"]


def trained(folder, *words):
    from diffusion_lab.train import train

    train(compose("train", [*words, f"run_dir={folder}"]))
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    words = [*SMALL, *NET, "callbacks.samples=null", "callbacks.checkpoints.keep_every_n_steps=1"]
    return trained(tmp_path_factory.mktemp("run") / "run", "experiment=quickstart", *words)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    words = ["experiment=noisy_classifier", *SMALL, "denoiser.base_channels=8"]
    return trained(tmp_path_factory.mktemp("classifier") / "run", *words)


def drawn(run, out, *words):
    from diffusion_lab.sample import sample

    sample(compose("sample", [f"ckpt={run}", f"out={out}", "device=cpu", *words]))
    return np.load(out)["samples"] if str(out).endswith("npz") else Image.open(out)


def refused(run, *words):
    with pytest.raises(ConfigError) as caught:
        drawn(run, "x.npz", *words)
    return str(caught.value)


def test_a_prompt_composes_classes(run, tmp_path):
    words = ["num_samples=4", "guidance.scale=3"]
    out = tmp_path / "p.npz"
    both = drawn(run, out, *words, "label=3 or 8, not 4")
    assert np.load(out)["labels"].tolist() == [3, 8, 3, 8]
    plain = drawn(run, tmp_path / "q.npz", *words, "label=[3,8]")
    assert both.shape == plain.shape and not np.allclose(both, plain)
    assert np.allclose(drawn(run, tmp_path / "r.npz", *words, "label=3 or 8"), plain)
    assert "not 4" in refused(run, "label=3 nor 4")


def test_images_are_gone_on_from(run, tmp_path):
    near = drawn(run, tmp_path / "a.npz", "image=test:3", "start=0.02", "num_samples=3")
    held = drawn(
        run, tmp_path / "b.npz", "image=test:3", "start=0.02", "num_samples=3", "label=null"
    )
    assert near.shape == (3, 1, 28, 28)
    far = drawn(run, tmp_path / "c.npz", "image=test:3", "start=1.0", "num_samples=3")
    spread = [x.std(0).mean() for x in (held, far)]
    assert spread[0] < 0.2 * spread[1]


def test_the_known_part_stays(run, tmp_path):
    picture = tmp_path / "half.png"
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)
    Image.fromarray(pixels).save(picture)
    words = [f"image={picture}", "num_samples=3", "sampler=ddpm", "sampler.steps=4"]
    left = drawn(run, tmp_path / "a.npz", *words, "known=left")
    expected = pixels.astype(np.float32) * 2 / 255 - 1
    assert np.allclose(left[:, 0, :, :14], expected[:, :14], atol=1e-5)
    assert not np.allclose(left[:, 0, :, 14:], expected[:, 14:], atol=0.1)
    again = drawn(
        run, tmp_path / "b.npz", *words, "known=left", "grid@sampler.grid=repaint",
        "sampler.grid.jump=2",
    )  # fmt: skip
    assert np.allclose(again[:, 0, :, :14], expected[:, :14], atol=1e-5)
    mask = tmp_path / "mask.png"
    Image.fromarray(np.triu(np.full((28, 28), 255, np.uint8))).save(mask)
    masked = drawn(run, tmp_path / "c.npz", *words, f"known={mask}")
    assert np.allclose(masked[0, 0][np.triu_indices(28)], expected[np.triu_indices(28)], atol=1e-5)


def test_ways_between_noises_and_images(run, tmp_path):
    ways = drawn(run, tmp_path / "a.npz", "interpolate=5", "num_samples=10", "seed=4")
    plain = drawn(run, tmp_path / "b.npz", "num_samples=2", "seed=4", "label=0")
    assert ways.shape == (10, 1, 28, 28)
    assert np.allclose(ways[0], plain[0], atol=1e-4) and np.allclose(ways[4], plain[1], atol=1e-4)
    page = drawn(run, tmp_path / "a.png", "interpolate=4", "image=[test:1,test:2]")
    assert page.size[0] > 2 * page.size[1]


def test_faults_of_a_start_are_told(run):
    assert "needs an image" in refused(run, "start=0.5")
    assert "say what is to be done" in refused(run, "image=test:1")
    assert "start=1.5" in refused(run, "image=test:1", "start=1.5")
    assert refused(run, "image=test:1", "start=1.5").count("start=1.5") == 1
    assert "interpolate=many must be" in refused(run, "interpolate=many")
    assert "multiple of interpolate" in refused(run, "interpolate=3", "num_samples=10")
    assert "exclude each other" in refused(run, "interpolate=2", "image=[test:1,test:2]", "start=1")


def test_what_cannot_be_drawn_is_told(run, tmp_path):
    small = tmp_path / "small.png"
    Image.new("L", (5, 5)).save(small)
    for words, wanted in (
        (["image=missing.png", "start=0.5"], "no such file"),
        (["image=test:99999", "start=0.5"], "test set has images"),
        ([f"image={run}/config.yaml", "start=0.5"], "no picture"),
        (["image=test:1", "known=middle"], "left, right"),
        ([f"image={run}", "start=0.5"], "no picture"),
        (["image=[]", "start=0.5"], "at least one"),
        (["image=test:1", f"known={small}"], r"^known=.*5 x 5 pixels"),
    ):
        with pytest.raises(ConfigError, match=wanted):
            drawn(run, tmp_path / "new" / "x.npz", *words)
    assert not (tmp_path / "new").exists()


def test_a_weaker_model_guides(run, tmp_path):
    weak = run / "checkpoints" / "step_000001.ckpt"
    common = ["num_samples=2", "label=[1,2]"]
    plain = drawn(run, tmp_path / "a.npz", *common, "guidance=none")
    words = ["guidance=auto", f"guidance.weak.path={weak}"]
    assert np.allclose(drawn(run, tmp_path / "b.npz", *common, *words, "guidance.scale=1"), plain)
    assert drawn(run, tmp_path / "c.npz", *common, *words).shape == plain.shape
    assert "guidance.weak.path" in refused(run, "guidance=auto")
    assert "does not exist" in refused(run, "guidance=auto", "guidance.weak.path=nowhere")


def test_a_classifier_draws_nothing_and_says_so(classifier, tmp_path):
    from diffusion_lab.errors import CheckpointError

    with pytest.raises(CheckpointError, match=r"guidance\.classifier\.path"):
        drawn(classifier, tmp_path / "x.npz", "num_samples=1")


def test_a_classifier_guides(run, classifier, tmp_path):
    words = ["guidance=classifier", f"guidance.classifier.path={classifier}"]
    common = ["num_samples=2", "label=[1,2]"]
    strong = drawn(run, tmp_path / "a.npz", *common, *words, "guidance.scale=50")
    none = drawn(run, tmp_path / "b.npz", *common, *words, "guidance.scale=0")
    unconditional = drawn(run, tmp_path / "c.npz", "num_samples=2", "label=null")
    assert np.allclose(none, unconditional, atol=1e-5)
    assert not np.allclose(strong, none, atol=1e-3)


def test_a_second_model_of_the_wrong_kind_is_told(run, classifier, tmp_path):
    for words, wanted in (
        (["guidance=classifier", f"guidance.classifier.path={run}"], "is no classifier"),
        (["guidance=auto", f"guidance.weak.path={classifier}"], "weak: .*is a classifier"),
    ):
        with pytest.raises(ConfigError, match=wanted):
            drawn(run, tmp_path / "x.npz", "num_samples=1", "label=1", *words)


def test_a_classifier_has_no_likelihood_and_no_scores(classifier):
    from diffusion_lab.errors import CheckpointError
    from diffusion_lab.evaluate import evaluate
    from diffusion_lab.likelihood import likelihood

    words = [f"ckpt={classifier}", "device=cpu"]
    for task, name in ((likelihood, "likelihood"), (evaluate, "evaluate")):
        with pytest.raises((CheckpointError, ConfigError), match="trained a classifier"):
            task(compose(name, [*words, *(["num_samples=20"] if name == "evaluate" else [])]))


@pytest.mark.parametrize("command", ["sample", "evaluate", "likelihood"])
def test_a_device_that_is_none_is_told_by_every_command(run, command):
    from importlib import import_module

    task = getattr(import_module(f"diffusion_lab.{command}"), command)
    with pytest.raises(ConfigError, match=r"device=cuba must be auto, cpu, cuda.*cuda"):
        task(compose(command, [f"ckpt={run}", "device=cuba"]))
