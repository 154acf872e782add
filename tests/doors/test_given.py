"""A vector and an image as conditions: trained, guided and drawn by the ordinary commands."""

import re
import sys

import numpy as np
import pytest
import torch
from commands import LINES
from PIL import Image
from running import IMAGES, LONG, POINTS, TINY, drawn, trained

from diffusion_lab import load
from diffusion_lab.config.arguments import compose
from diffusion_lab.config.checking import check
from diffusion_lab.diffusion.conditions import Condition
from diffusion_lab.errors import ConfigError


@pytest.fixture(scope="module")
def points(tmp_path_factory):
    words = ["conditions@denoiser.conditions=vector", "denoiser.conditions.vector_dim=3"]
    return trained(
        tmp_path_factory.mktemp("points") / "run", *POINTS, *LONG, *words, "model.label_dropout=0.3"
    )


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    words = ["conditions@denoiser.conditions=image"]
    return trained(tmp_path_factory.mktemp("images") / "run", *IMAGES, *LONG, *words)


def mean_under(run, out, vector, scale):
    words = [f"vector={vector}", f"guidance.scale={scale}", "num_samples=200"]
    return drawn(run, out, *words).mean(0)


def test_samples_follow_the_vector_and_guidance_pushes_further(points, tmp_path):
    for vector, sign in (("[1,-1,1]", (1, -1)), ("[-1,1,1]", (-1, 1))):
        plain = mean_under(points, tmp_path / "a.npz", vector, 1) * sign
        pushed = mean_under(points, tmp_path / "b.npz", vector, 3) * sign
        assert (plain > 0.6).all() and (plain < 1.4).all(), plain
        assert (pushed > plain + 0.1).all(), (plain, pushed)
    none = drawn(points, tmp_path / "c.npz", "num_samples=200")
    assert (abs(none.mean(0)) < 0.3).all() and (none.std(0) > 0.4).all(), "the null condition"


def test_vectors_of_a_list_take_turns(points, tmp_path):
    words = ["vector=[[2,0,1],[-2,0,1]]", "num_samples=40", "guidance.scale=2"]
    x = drawn(points, tmp_path / "a.npz", *words)[:, 0]
    assert (x[0::2] > 0).mean() > 0.9 and (x[1::2] < 0).mean() > 0.9
    shared = drawn(points, tmp_path / "b.npz", *words, "batch_size=7")
    assert np.allclose(x, shared[:, 0], atol=1e-5), "image k has the vector of image k"
    for out in ("a.gif", "a.png"):
        assert drawn(points, tmp_path / out, *words, "frames=2").stat().st_size > 0
    assert drawn(points, tmp_path / "s.png", *words, "strip=2").stat().st_size > 0


def test_from_python_too(points):
    model = load(points, trust=["toy_data"])
    given = Condition(vector=torch.tensor([[2.0, 0.0, 1.0], [-2.0, 0.0, 1.0]]))
    x = model.sample(20, given=given)
    assert x[0::2, 0].mean() > 1 and x[1::2, 0].mean() < -1
    last = list(model.trajectory(20, given=given))[-1]
    assert torch.allclose(last.x, x, atol=1e-5)
    assert torch.equal(model.sample(3, given=given, first=1), model.sample(4, given=given)[1:])
    noisy = model.denoise(torch.zeros(2, 2), 1.0, given=given)
    assert noisy[0, 0] > 1 > -1 > noisy[1, 0]
    with pytest.raises(ValueError, match="at least one row"):
        model.sample(2, given=Condition(vector=torch.zeros(0, 2)))


def test_points_are_evaluated_under_the_null_condition(points, tmp_path):
    from diffusion_lab.evaluate import evaluate

    words = [f"ckpt={points}", "num_samples=60", "device=cpu", "trust=[toy_data]"]
    figures = evaluate(compose("evaluate", [*words, f"out={tmp_path / 'metrics.json'}"]))
    assert figures["num_samples"] == 60


def contrast(samples):
    """Light on the right over light on the left."""
    return (samples[..., 2:].mean() - samples[..., :2].mean()).item()


def test_samples_follow_the_image_and_guidance_pushes_further(images, tmp_path):
    words = ["num_samples=40", "guidance.scale=1"]
    right = drawn(images, tmp_path / "a.npz", "condition_image=test:0", *words)
    left = drawn(images, tmp_path / "b.npz", "condition_image=test:1", *words)
    assert contrast(right) > 0.5 and contrast(left) < -0.5
    file = tmp_path / "right.png"
    Image.fromarray(np.tile(np.uint8([20, 20, 230, 230]), (4, 1))).save(file)
    from_file = [f"condition_image={file}", "num_samples=40"]
    plain = drawn(images, tmp_path / "c.npz", *from_file, "guidance.scale=1")
    pushed = drawn(images, tmp_path / "d.npz", *from_file, "guidance.scale=3")
    assert contrast(plain) > 0.5 and contrast(pushed) > contrast(plain) + 0.1
    both = [f"condition_image=[{file},test:1]", "num_samples=4", "guidance.scale=1"]
    turns = drawn(images, tmp_path / "e.npz", *both)
    assert contrast(turns[0::2]) > 0.3 and contrast(turns[1::2]) < -0.3


def test_training_draws_grids_and_validates(points, images):
    for run in (points, images):
        assert list((run / "samples").rglob("*.png"))
        header, *rows = (run / "metrics.csv").read_text().splitlines()
        assert "val/loss" in header and "val/loss_by_level/00-10" in header and rows


WRONG = {
    "vector=[1,2]": "must be a list of 3 numbers",
    "vector=[1,two]": "two is not a number",
    "vector=[]": "must be a list of 3 numbers",
    "vector=[[1,2,3],[3]]": "must be a list of 3 numbers",
    "condition_image=test:1": "trained without one",
}


@pytest.mark.parametrize(("typed", "wanted"), WRONG.items())
def test_bad_input_is_one_message_and_status_2(points, typed, wanted, monkeypatch, capsys):
    from diffusion_lab.sample import main

    words = ["sample", f"ckpt={points}", "trust=[toy_data]", "device=cpu", typed]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as caught:
        main()
    told = capsys.readouterr().err
    assert caught.value.code == 2 and wanted in told and told.count(typed.split("=")[0]) == 1


def test_images_that_cannot_be_had_are_told(images, tmp_path):
    file = tmp_path / "large.png"
    Image.new("L", (5, 5)).save(file)
    for typed, wanted in {
        f"condition_image={tmp_path / 'none.png'}": "condition_image=.*there is no such file",
        f"condition_image={file}": "condition_image=.*5 x 5 pixels",
        "condition_image=test:99": r"condition_image=test:99: .* 0 \.\. 19",
        "vector=[1,2]": "vector=.*trained without one",
    }.items():
        with pytest.raises(ConfigError, match=wanted):
            drawn(images, tmp_path / "x.npz", typed)


def test_the_length_of_a_vector_has_to_be_given():
    words = [*TINY, *POINTS, "conditions@denoiser.conditions=vector"]
    (fault,) = check(compose("train", words))
    assert fault.startswith("denoiser.conditions.vector_dim has no value: give")


def test_the_commands_of_the_readme(points, images, tmp_path):
    shown = "\n".join(LINES)
    found = re.findall(r"sample ckpt=RUN ((?:vector|condition_image)=.*) out=", shown)
    assert len(found) == 2
    for run, line in zip((points, images), found, strict=True):
        assert len(drawn(run, tmp_path / "a.npz", *line.split())) == 16
