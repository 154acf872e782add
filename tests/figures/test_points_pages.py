"""The moons from the command line to pictures: trained, drawn, animated, scored."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion_lab.config.arguments import compose
from diffusion_lab.data.toy import Moons
from diffusion_lab.errors import ConfigError
from diffusion_lab.figures.point_figures import PointsFigure, TrajectoryFigure, VectorFieldFigure
from diffusion_lab.loading import load
from diffusion_lab.metrics.points import score_points
from diffusion_lab.sample import sample
from diffusion_lab.sampling.ancestral import DDIM
from diffusion_lab.train import train

SMALL = [
    "data.train_size=2000", "data.test_size=1000", "data.validation_size=200", "logger=none",
    "callbacks.samples.num_samples=50",
]  # fmt: skip


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "moons"
    words = ["experiment=seed_003_moons", "budget=smoke", *SMALL, f"run_dir={folder}"]
    train(compose("train", [*words, "data.batch_size=64"]))
    return folder


@pytest.fixture
def model(run_dir):
    """The trained model, as a trainer with its data holds it."""
    model = load(run_dir)
    model.trainer = SimpleNamespace(datamodule=Moons(train_size=2000, test_size=1000))
    return model


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def test_a_run_leaves_grids_and_pages(run_dir):
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["status"] == "finished" and summary["data"]["name"] == "moons"
    pages = ["samples.png", "vector_field.png", "trajectories.png", "trajectories_ddim.png"]
    for name in ["samples/epoch_001.png", *pages]:
        drawn = pixels(run_dir / name)
        assert (drawn.max(-1) - drawn.min(-1) > 60).mean() > 1e-4, f"{name} is empty"
    assert (run_dir / "report.html").is_file()


@pytest.mark.parametrize("ending", ["png", "gif", "npz", "strip"])
def test_sample_draws_points_in_every_form(run_dir, tmp_path, ending, capsys):
    strip = ["strip=3"] if ending == "strip" else []
    out = tmp_path / f"points.{'png' if strip else ending}"
    words = [f"ckpt={run_dir}", "num_samples=40", "device=cpu", "frames=4", f"out={out}"]
    sample(compose("sample", [*words, *strip]))
    assert "40 points" in capsys.readouterr().out
    if ending == "npz":
        arrays = np.load(out)
        assert arrays["samples"].shape == (40, 2) and (arrays["labels"] == -1).all()
        with torch.no_grad():
            expected = load(run_dir).sample(40, seed=0)
        assert np.array_equal(arrays["samples"], expected.numpy())
        return
    with Image.open(out) as picture:
        assert getattr(picture, "n_frames", 1) == (5 if ending == "gif" else 1)
        shades = np.asarray(picture.convert("L"))
        assert shades.min() < 200 < shades.max()
        assert (picture.width > 1.2 * picture.height) == bool(strip)


def test_a_strip_keeps_the_same_moments_whatever_the_batch(run_dir, tmp_path):
    words = [f"ckpt={run_dir}", "num_samples=20", "device=cpu", "strip=3"]
    for size in (20, 7):
        sample(compose("sample", [*words, f"batch_size={size}", f"out={tmp_path}/{size}.png"]))
    assert (pixels(tmp_path / "20.png") == pixels(tmp_path / "7.png")).all()


def test_points_have_no_columns(run_dir, tmp_path):
    words = [f"ckpt={run_dir}", "device=cpu", "columns=5", f"out={tmp_path / 'a.png'}"]
    with pytest.raises(ConfigError, match="columns=5"):
        sample(compose("sample", words))


def test_every_page_is_written_where_it_says(model, tmp_path):
    pages = [
        PointsFigure(num_points=30),
        VectorFieldFigure(times=(1.0, 0.3), arrows=6, num_points=50),
        TrajectoryFigure(file="deep/ways.png", num_points=12, sampler=DDIM(4)),
    ]
    with torch.no_grad():
        for page in pages:
            page.check(model)
            path = page.write(model, tmp_path)
            assert path == tmp_path / page.file and pixels(path).min() < 200
    assert pixels(tmp_path / "pages/vector_field.png").shape[1] > 500


def test_pages_of_a_model_with_classes_colour_them(tmp_path):
    words = ["experiment=seed_003_moons", "budget=smoke", *SMALL, f"run_dir={tmp_path / 'two'}"]
    words += ["data.num_classes=2", "guidance=cfg", "callbacks.artefacts.pages.samples.label=all"]
    train(compose("train", [*words, "trainer.limit_train_batches=2"]))
    drawn = pixels(tmp_path / "two" / "samples.png")
    orange = (drawn[..., 0] > drawn[..., 2] + 60).any(0).nonzero()[0]
    assert orange.min() < drawn.shape[1] / 2 < orange.max(), "both moons' colours, on both sides"


def test_pages_refuse_what_they_cannot_draw(model):
    with pytest.raises(ValueError, match="2000"):
        TrajectoryFigure(sampler=DDIM(2000)).check(model)
    with pytest.raises(ValueError, match="label=1"):
        PointsFigure(label=1).check(model)
    with pytest.raises(ValueError, match=r"shape=\[1, 28, 28\]"):
        VectorFieldFigure().check(SimpleNamespace(shape=(1, 28, 28)))
    model.trainer = SimpleNamespace(datamodule=None)
    with pytest.raises(ValueError, match="data=moons"), torch.no_grad():
        VectorFieldFigure().write(model, None)


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: PointsFigure(num_points=0), "num_points=0"),
        (lambda: TrajectoryFigure(num_points=0), "num_points=0"),
        (lambda: VectorFieldFigure(times=()), r"times=\[\]"),
        (lambda: VectorFieldFigure(times=(0.0,)), r"times="),
        (lambda: VectorFieldFigure(half=0), "half=0"),
        (lambda: VectorFieldFigure(arrows=0), "arrows=0"),
        (lambda: PointsFigure(file="../out.png"), "file='../out.png'"),
    ],
)
def test_bad_numbers_are_refused_by_name(build, named):
    with pytest.raises(ValueError, match=named):
        build()


@pytest.mark.slow
def test_the_moons_are_learnt(tmp_path):
    """The preset's own budget: 20,000 samples nearly as close to the data as fresh moons are."""
    train(compose("train", ["experiment=seed_003_moons", "budget=cpu", "logger=none",
                            f"run_dir={tmp_path / 'run'}"]))  # fmt: skip
    points = Moons().splits
    drawn = load(tmp_path / "run").sample(20_000, seed=1, batch_size=20_000)
    assert score_points(drawn, points.train, points.test)["sw_ratio"] <= 1.3
