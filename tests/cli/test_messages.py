"""What is mistyped gets the nearest right name; all faults come in one message."""

import subprocess
import sys

import pytest

from diffusion_lab.config.arguments import compose
from diffusion_lab.config.checking import check
from diffusion_lab.config.messages import mistakes
from diffusion_lab.errors import ConfigError


def refused(*overrides, command="train"):
    with pytest.raises(ConfigError) as caught:
        compose(command, list(overrides))
    return str(caught.value)


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        ("optimizer.lrr=1", "optimizer.lr"),
        ("trainer.max_epoch=3", "trainer.max_epochs"),
        ("schedule.stepz=3", "schedule.steps"),
        ("denoiser.base_chanels=3", "denoiser.base_channels"),
        ("experiment=cfg_guidence", "cfg_guidance"),
        ("denoiser=unett", "did you mean unet"),
        ("budget=smoek", "smoke"),
        ("optimzer=adam", "optimizer"),
        ("seeed=1", "seed"),
        ("seed=1,2", "-m"),
        ("seed", "seed=1"),
        ("grid=karras", "write grid@sampler.grid="),
        ("frame@sampler.nonsense=ve", "does not use the group frame@sampler.nonsense"),
        ("~callbacks.samplez", "callbacks.samples"),
    ],
)
def test_a_typo_gets_the_nearest_name(typed, wanted):
    assert wanted in refused(typed)


def test_all_that_is_mistyped_is_told_at_once():
    wanted = {
        "optimizer.lrr=1": "optimizer.lr",
        "denoiser=unett": "did you mean unet",
        "seed": "seed=1",
        "optimzer=adam": "unknown key optimzer",
        "trainer.devices=1,2": "trainer.devices=[1,2]",
        "+lrr=1": "unknown key lrr",
        "grid=karras": "grid@sampler.grid",
    }
    lines = refused(*wanted).splitlines()
    assert len(lines) == len(wanted)
    assert all(text in line for text, line in zip(wanted.values(), lines, strict=True))


def test_a_plugin_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert mistakes("train", ["sweep=joblib"]) == [
        "sweep=joblib needs a plugin of Hydra's: pip install 'diffusion_lab[joblib]'"
    ]


def test_an_argument_that_the_constructor_takes_may_be_added():
    assert "+trainer.limit_test_batches" in refused("trainer.limit_test_batches=3")
    assert compose("train", ["+trainer.limit_test_batches=3"]).trainer.limit_test_batches == 3


BAD = {
    "schedule.steps=0": "schedule.steps",
    "optimizer.lr=-1": "optimizer.lr",
    "optimizer.betas=[0.9,1.5]": "optimizer.betas",
    "data.shape=[1,27,27]": "data.shape",
    "denoiser.heads=5": "denoiser.heads",
    "sampler.steps=0": "sampler.steps",
    "trainer.max_epochs=two": "trainer.max_epochs",
    "trainer.gradient_clip_val=-1": "trainer.gradient_clip_val",
    "trainer.precision=17": "trainer.precision",
    "data.batch_size=0": "data.batch_size",
    "guidance.scale=abc": "guidance.scale",
    "callbacks.ema.decay=2": "callbacks.ema.decay",
    "callbacks.samples.num_samples=0": "callbacks.samples.num_samples",
    "model.label_dropout=1.5": "model.label_dropout",
    "name=../escape": "name",
    "seed=-1": "seed",
}


def test_all_faults_come_in_one_message():
    faults = check(compose("train", [*BAD, "schedule=linear"]))
    for typed, key in BAD.items():
        assert any(fault.startswith(key) for fault in faults), (typed, faults)


@pytest.mark.parametrize("typed", BAD)
def test_each_fault_is_found_alone(typed):
    faults = check(compose("train", ["schedule=linear", typed]))
    assert len(faults) == 1 and BAD[typed] in faults[0]


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        ("optimizer.lr=abc", "number"),
        ("optimizer.lr=inf", "number"),
        ("schedule.steps=1.5", "integer"),
        ("parameterization=eps", "alpha"),
        ("trainer.max_epochs=0", "at least 1"),
        ("objective=classifier", "trains denoiser=classifier"),
        ("denoiser=classifier", "trains denoiser=classifier"),
    ],
)
def test_types_and_pairs(typed, wanted):
    (fault,) = check(compose("train", [typed]))
    assert wanted in fault


def test_more_steps_than_the_schedule_has():
    (fault,) = check(compose("train", ["schedule.steps=100", "sampler.steps=2000"]))
    assert "sampler.steps=2000" in fault and "100" in fault


def test_a_foreign_target_is_refused_unless_trusted():
    fault = check(compose("train", ["optimizer._target_=os.system"]))[0]
    assert "trust=[os]" in fault


@pytest.mark.parametrize("experiment", ["cfg_guidance", "quickstart"])
@pytest.mark.parametrize("budget", ["smoke", "cpu", "full"])
def test_experiments_are_sound(experiment, budget):
    cfg = compose("train", [f"experiment={experiment}", f"budget={budget}"])
    assert cfg.budget == budget and cfg.name == experiment
    assert check(cfg) == []


def test_what_is_typed_wins_over_the_budget():
    assert compose("train", ["budget=smoke", "trainer.max_epochs=7"]).trainer.max_epochs == 7


def test_the_default_experiment_is_cfg_guidance():
    assert compose("train").name == "cfg_guidance"


def command(*words):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", *words], capture_output=True, text=True
    )
    loaded = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines() if "|" in line}
    return done, loaded


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("diffusion_lab.train", "--help"), 0, "list=GROUP"),
        (("diffusion_lab.train", "--cfg", "job"), 0, "schedule:"),
        (("diffusion_lab.train", "list=sampler"), 0, "ddim"),
        (("diffusion_lab.train", "optimizer.lrr=1"), 2, "optimizer.lr"),
        (("diffusion_lab.train", "+lrr=1"), 2, "unknown key lrr"),
        (("diffusion_lab.train", "++schedule.stepz=3"), 2, "schedule.steps"),
        (("diffusion_lab.train", "denoiser=unett"), 2, "unet"),
        (("diffusion_lab.train", "trust=[a=b,c]"), 2, """'trust=["a=b","c"]'"""),
        (("diffusion_lab.train", "resume=nowhere"), 2, "no such file"),
        (("diffusion_lab.sample", "--help"), 0, "ckpt=auto"),
        (("diffusion_lab.sample",), 2, "ckpt=PATH"),
        (("diffusion_lab.sample", "ckpt=nowhere"), 2, "nowhere"),
    ],
)
def test_the_command_line_answers_without_heavy_imports(words, status, said):
    done, loaded = command(*words)
    assert done.returncode == status
    assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    heavy = {"lightning", "torchvision", "torchmetrics"}
    if "ckpt=nowhere" not in words:
        heavy |= {"torch"}
    assert not heavy & loaded
