"""Every command on colour images of other sizes: a folder with classes, and one without."""

import json

import numpy as np
import pytest
from PIL import Image, ImageDraw

from diffusion_lab.bench import bench
from diffusion_lab.config.arguments import compose
from diffusion_lab.config.checking import check
from diffusion_lab.errors import ConfigError
from diffusion_lab.evaluate import evaluate
from diffusion_lab.likelihood import likelihood
from diffusion_lab.metrics import features
from diffusion_lab.metrics.small_classifier import Recipe
from diffusion_lab.report import report
from diffusion_lab.sample import sample
from diffusion_lab.train import train

CLASSES = ("disc", "square", "triangle")
TINY = [
    "budget=smoke", "trainer=cpu", "logger=none", "trainer.max_steps=3",
    "trainer.precision=32-true", "trainer.limit_val_batches=1", "trainer.log_every_n_steps=1",
    "sampler.steps=2", "denoiser.base_channels=8", "data.batch_size=16", "data.eval_batch_size=16",
]  # fmt: skip
MODEST = ["device=cpu", "num_samples=12"]


def shape_of(kind, rng, width=32, height=32):
    """A light shape on a dark ground."""
    picture = Image.new("RGB", (width, height), tuple(rng.integers(0, 80, 3).tolist()))
    ink, r = tuple(rng.integers(130, 256, 3).tolist()), rng.uniform(6, 10)
    x, y = rng.uniform(12, min(width, height) - 12, 2)
    draw, box = ImageDraw.Draw(picture), (x - r, y - r, x + r, y + r)
    if kind == "disc":
        draw.ellipse(box, fill=ink)
    elif kind == "square":
        draw.rectangle(box, fill=ink)
    else:
        draw.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill=ink)
    return picture


@pytest.fixture(scope="module", autouse=True)
def quick_classifiers():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "recipe_for", lambda n: Recipe(steps=25, batch_size=24))
        yield


@pytest.fixture(scope="module")
def classed(tmp_path_factory):
    """A run of the CIFAR-10 recipe on three classes of 40 shapes."""
    root, rng = tmp_path_factory.mktemp("classed"), np.random.default_rng(0)
    for kind in CLASSES:
        (root / "shapes" / kind).mkdir(parents=True)
        for k in range(40):
            shape_of(kind, rng).save(root / "shapes" / kind / f"{k}.png")
    words = ["experiment=cifar10", "data=image_folder", f"data.folder={root / 'shapes'}"]
    words += ["data.shape=[3,32,32]", "data.num_classes=3", "data.test_share=0.3"]
    words += ["data.mean=-0.4", "data.std=0.55", f"data.cache={root}", f"paths.data_dir={root}"]
    train(compose("train", [*words, *TINY, f"run_dir={root / 'run'}"]))
    return root / "run"


@pytest.fixture(scope="module")
def flat(tmp_path_factory):
    """A run of the main recipe on 60 oblong pictures without classes."""
    root, rng = tmp_path_factory.mktemp("flat"), np.random.default_rng(1)
    (root / "shapes").mkdir()
    for k in range(60):
        shape_of("triangle", rng, 48, 32).save(root / "shapes" / f"{k}.jpg")
    words = ["data=image_folder", f"data.folder={root / 'shapes'}", "data.shape=[3,16,24]"]
    words += ["data.test_share=0.4", f"data.cache={root}", f"paths.data_dir={root}"]
    train(compose("train", [*words, *TINY, "data.std=0.6", f"run_dir={root / 'run'}"]))
    return root / "run"


def drawn(run, out, *words):
    overrides = [f"ckpt={run}", *MODEST, f"out={run / out}", *words]
    return Image.open(sample(compose("sample", overrides)))


def is_coloured(picture):
    pixels = np.asarray(picture.convert("RGB")).astype(int)
    return np.abs(pixels[..., 0] - pixels[..., 2]).max() > 30


def test_training_leaves_a_coloured_grid_and_a_report(classed, capsys):
    grid = Image.open(next((classed / "samples").glob("epoch_*.png")))
    assert grid.mode == "RGB" and is_coloured(grid)
    summary = json.loads((classed / "summary.json").read_text())
    assert summary["data"]["sizes"] == {"train": 76, "validation": 8, "test": 36}
    assert summary["data"]["name"] == "shapes"
    page = report(compose("report", [f"run={classed}"]))
    assert page.stat().st_size > 10_000


def test_samples_in_every_form(classed):
    assert drawn(classed, "grid.png").size == (9 * 66 + 2, 2 * 66 + 2), "three times three classes"
    assert is_coloured(drawn(classed, "two.png", "label=2", "num_samples=2"))
    film = drawn(classed, "film.gif", "frames=2")
    assert film.n_frames == 3 and is_coloured(film)
    assert drawn(classed, "strip.png", "strip=2", "num_samples=2").mode == "RGB"
    words = ["image=test:0", "start=0.3", "label=null"]
    assert is_coloured(drawn(classed, "from.png", *words))
    words = ["image=test:0", "known=left", "label=null", "num_samples=2", "columns=2"]
    kept = np.asarray(drawn(classed, "painted.png", *words))
    assert (kept[2:66, 2:34] == kept[2:66, 68:100]).all(), "both keep the left half"
    assert (kept[2:66, 34:66] != kept[2:66, 100:132]).any()
    with pytest.raises(ConfigError, match=r"label=7: classes are 0 \.\. 2"):
        drawn(classed, "seven.png", "label=7")


def test_evaluation_predicts_classes_and_names_them(classed, capsys):
    figures = evaluate(compose("evaluate", [f"ckpt={classed}", *MODEST]))
    assert figures["num_samples"] == 12 and len(figures["per_class"]) == 3
    assert 0 <= figures["agreement2"] <= 1 and figures["fd"] > figures["fd_test"]
    assert "test accuracy (classes)" in capsys.readouterr().out
    assert Image.open(classed / "metrics_nearest.png").mode == "RGB"
    assert (classed / "metrics_confusion.png").is_file()


def test_a_frontier_of_two_samplers(classed):
    typed = [f"ckpt={classed}", *MODEST, "second_classifier=false"]
    lists = "study.rows.over=['sampler=euler,heun','sampler.steps=2']"
    found = evaluate(compose("evaluate", [*typed, "study=frontier", lists]), typed)
    assert [row["figures"]["network_calls"] for row in found["rows"]] == [4, 6]
    page = Image.open(classed / "studies" / "frontier" / "samples.png")
    assert page.mode == "RGB" and is_coloured(page)


def test_likelihood_and_classes_by_it(classed, tmp_path):
    words = [f"ckpt={classed}", "device=cpu", "num_images=4", "steps=3", "classify=true"]
    found = likelihood(compose("likelihood", [*words, f"out={tmp_path / 'x.json'}"]))
    assert found["classifier"] and (tmp_path / "x.json").is_file()
    with pytest.raises(ConfigError, match=r"against=digits.*\[1, 28, 28\].*\[3, 32, 32\]"):
        likelihood(compose("likelihood", [*words, "against=digits"]))
    with pytest.raises(ConfigError, match=r"against=image_folder needs data\.folder"):
        likelihood(compose("likelihood", [*words, "against=image_folder"]))


def test_speed_is_measured(classed, tmp_path):
    words = ["experiment=cifar10", "data=image_folder", f"data.folder={classed.parent / 'shapes'}"]
    words += ["data.shape=[3,32,32]", f"data.cache={classed.parent}", "data.batch_size=8"]
    words += ["bench.steps=1", "bench.rounds=1", "bench.warmup=1", "bench.num_samples=2"]
    words += ["bench.sample_rounds=1", "sampler.steps=2", "trainer=cpu", "denoiser.base_channels=8"]
    record = bench(compose("bench", [*words, f"bench.out={tmp_path / 'bench.json'}"]))
    assert record["trainer_images_per_second"] > 0


def test_oblong_pictures_without_classes(flat, capsys):
    assert drawn(flat, "grid.png", "columns=4").size == (4 * 50 + 2, 3 * 34 + 2)
    figures = evaluate(compose("evaluate", [f"ckpt={flat}", *MODEST]))
    shown = capsys.readouterr().out
    assert "test accuracy (rotations)" in shown
    assert figures["agreement"] is None and "class_entropy" not in figures
    assert figures["fd"] > figures["fd_test"] > 0 and figures["vendi"] > 1
    assert not (flat / "metrics_confusion.png").exists()
    with pytest.raises(ConfigError, match="label=1: this model was trained without classes"):
        drawn(flat, "one.png", "label=1")


def test_data_that_a_network_cannot_read_is_told_before_anything_runs():
    (fault,) = check(compose("train", ["data=circles"]))
    assert fault == "denoiser: reads images, data.shape=[2] is of points; take denoiser=mlp"
    assert check(compose("train", ["data=circles", "denoiser=mlp"])) == []
    (fault,) = check(compose("train", ["data=image_folder"]))
    assert "give data.folder=" in fault
    (fault,) = check(compose("train", ["data=cifar10", "denoiser.attention=[7]"]))
    assert "attention=7" in fault and "there are 16, 8, and smallest" in fault
    assert check(compose("train", ["data=cifar10"])) == []
