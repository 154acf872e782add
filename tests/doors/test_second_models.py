"""A teacher and guidance by a second model; runs that name one go on without its file."""

import shutil

import pytest
import torch
from running import IMAGES, POINTS, TINY, drawn, trained

from diffusion_lab import load
from diffusion_lab.config.arguments import compose
from diffusion_lab.config.checking import check
from diffusion_lab.errors import CheckpointError, ConfigError

FIVE = ["trainer.limit_train_batches=5", "callbacks.samples=null"]


def teacher_words(run):
    return ["model=distilled", f"model.teacher.path={run}"]


def objective(name):
    """An objective of one's own, with nothing but the timestep distribution of the others."""
    words = ["objective=bound", "objective/time=uniform", f"objective._target_=toy_data.{name}"]
    return [*words, "~objective.coupling", "~objective.variance_fraction"]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    words = [*POINTS, "data._target_=diffusion_lab.data.toy.Moons", *FIVE]
    return trained(tmp_path_factory.mktemp("teacher") / "run", *words)


def test_a_student_goes_on_without_its_teacher(teacher, tmp_path):
    moved = shutil.copytree(teacher, tmp_path / "moved")
    words = [*POINTS, "data._target_=diffusion_lab.data.toy.Moons", *FIVE, *teacher_words(moved)]
    words += [*objective("Distillation"), "denoiser.width=16"]
    run = trained(tmp_path / "run", *words)
    shutil.rmtree(moved)
    student = load(run, trust=["toy_data"])
    assert student.sample(3).shape == (3, 2)
    assert drawn(run, tmp_path / "a.npz", "num_samples=3").shape == (3, 2)
    state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert not [name for name in state["state_dict"] if "teacher" in name]
    own = sum(part.numel() for part in student.diffusion.state_dict().values())
    assert sum(part.numel() for part in state["state_dict"].values()) == own
    faults = check(compose("train", [*TINY, *words]))
    assert faults == [
        f"model.teacher.path={moved} does not exist; name a checkpoint or a run folder"
    ]


@pytest.mark.parametrize("kind", ["auto", "classifier"])
def test_a_run_goes_on_without_the_model_that_guided_it(teacher, kind, tmp_path):
    second = shutil.copytree(teacher, tmp_path / "second")
    path = "guidance.weak.path" if kind == "auto" else "guidance.classifier.path"
    words = [*POINTS, "data._target_=diffusion_lab.data.toy.Moons", *FIVE]
    run = trained(tmp_path / "run", *words, f"guidance={kind}", f"{path}={second}")
    shutil.rmtree(second)
    model = load(run)
    with pytest.raises(CheckpointError, match=f"path={second} of a second model does not exist"):
        model.sample(2)
    assert model.denoise(torch.zeros(2, 2), 0.5).shape == (2, 2)
    plain = drawn(run, tmp_path / "a.npz", "guidance=none", "num_samples=2")
    assert plain.shape == (2, 2)
    with pytest.raises(ConfigError, match=f"{path}={second} does not exist"):
        drawn(run, tmp_path / "b.npz", "num_samples=2")


@pytest.mark.parametrize("net", [POINTS, IMAGES], ids=["points", "images"])
def test_two_times_train_and_draw(net, tmp_path):
    words = ["denoiser.conditions.two_times=true", "trainer.limit_train_batches=2"]
    words += objective("TwoTimes")
    kinds = ["denoiser.conditions.vector_dim=3"] if net is POINTS else []
    kinds += [] if net is POINTS else ["denoiser.conditions.image_channels=1"]
    run = trained(tmp_path / "run", *net, *words, *kinds)
    assert load(run, trust=["toy_data"]).diffusion.denoiser.two_times
    assert len(drawn(run, tmp_path / "a.npz", "sampler=ddim", "num_samples=2")) == 2
