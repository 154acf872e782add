"""Every option of `conf/` is found by its file: commented, sound, and able to train and sample."""

import re
from pathlib import Path

import pytest

from diffusion_lab.config import CONF, check, compose

FILES = sorted(CONF.rglob("*.yaml"))
TINY = [
    "experiment=quickstart", "budget=smoke", "trainer=cpu", "logger=none",
    "data.batch_size=8", "data.eval_batch_size=16", "sampler.steps=2",
    "trainer.limit_train_batches=2", "trainer.limit_val_batches=1", "trainer.precision=32-true",
    "trainer.log_every_n_steps=1", "callbacks.samples.num_samples=2",
    "callbacks.record.report=false",
]  # fmt: skip
SMALL = {
    name: ["denoiser.base_channels=8", "denoiser.heads=2"]
    for name in ("unet", "unet_pooled", "unet_plain")
}
NO_DENOISER = "classifier"
"""Of the groups denoiser, model and guidance: what `experiment=noisy_classifier` is about."""
TRAINED = (
    "schedule", "parameterization", "objective", "objective/time", "objective/weight",
    "objective/error", "objective/coupling", "denoiser", "sampler", "grid", "frame", "guidance",
    "constraint", "optimizer", "lr_scheduler", "norm", "activation", "block", "down", "up", "data",
)  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(CONF).as_posix())
def test_every_key_is_commented(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    bare = []
    for number, line in enumerate(lines):
        match = re.match(r"(\s*)([\w.@/]+):(\s|$)", line)
        if not match or match[2] in ("_target_", "_partial_", "defaults", "_recursive_"):
            continue
        indent, rest = len(match[1]), [later for later in lines[number + 1 :] if later.strip()]
        is_head = line.rstrip().endswith(":") and any(
            len(later) - len(later.lstrip()) > indent for later in rest[:1]
        )
        above = lines[number - 1].strip() if number else ""
        if not (is_head or above.startswith("#") or " #" in line):
            bare.append(line.strip())
    assert not bare, f"{path.relative_to(CONF)}: no comment on {bare}"


def options(group: str) -> list[str]:
    return [path.stem for path in sorted((CONF / group).glob("*.yaml")) if path.stem != NO_DENOISER]


def overrides(group: str, option: str) -> list[str]:
    """A tiny run with this option; other choices only where the option needs them."""
    key = {"grid": "grid@sampler.grid", "frame": "frame@sampler.frame"}.get(group, group)
    if group in ("norm", "activation", "block", "down", "up"):
        key = f"{group}@denoiser.{group}"
    net = option if group == "denoiser" else "mlp" if option == "moons" else "unet"
    words = [*TINY, f"denoiser={net}", *SMALL.get(net, []), f"{key}={option}"]
    if option in ("max_pool", "bilinear"):
        words.append("denoiser.widen_in_blocks=true")
    if option in ("eps", "bound", "edm") or (group, option) == ("frame", "ve"):
        words.append("schedule=linear")
    if group == "frame":
        words.insert(0, "sampler=heun")
    if option == "edm":  # schedule, target, weight and sampler of that name go together
        words += ["schedule=edm", "parameterization=edm", "model.input_scaling=true"]
    if option == "listed":
        words.append("sampler.steps=null")
    if option == "betas":
        words.append("sampler.steps=2")
    return words if group != "data" or option != "mnist" else [*words, "data.when_missing=digits"]


def stands_alone(group: str, option: str) -> bool:
    """Whether no value has to be given with it, as the path of a second model has."""
    return "???" not in (CONF / group / f"{option}.yaml").read_text(encoding="utf-8")


CASES = [
    (group, option) for group in TRAINED for option in options(group) if stands_alone(group, option)
]


@pytest.mark.parametrize(("group", "option"), CASES, ids=lambda value: str(value))
def test_an_option_trains_two_steps_and_samples(group, option, tmp_path):
    from diffusion_lab.train import train

    words = overrides(group, option)
    if group == "data" and option == "mnist":
        words += [f"paths.data_dir={tmp_path / 'none'}", "data.download=false"]
        words += ["data.validation_size=100"]
    cfg = compose("train", [*words, f"run_dir={tmp_path / 'run'}"])
    assert check(cfg) == []
    metrics = train(cfg)
    assert metrics["val/loss"] > 0
    run = tmp_path / "run"
    assert (run / "samples" / "epoch_001.png").stat().st_size > 0
    assert (run / "checkpoints" / "last.ckpt").is_file()


@pytest.mark.parametrize("option", options("trainer") + ["debug/" + o for o in options("debug")])
def test_other_options_compose_and_are_sound(option):
    word = f"debug={option.split('/')[1]}" if "/" in option else f"trainer={option}"
    assert check(compose("train", [word])) == []


@pytest.mark.parametrize("denoiser", options("denoiser"))
@pytest.mark.parametrize("experiment", options("experiment"))
def test_an_experiment_takes_any_denoiser(experiment, denoiser):
    if experiment == "seed_003_moons" and denoiser != "mlp":
        pytest.skip("points have no pixels")
    if experiment == "noisy_classifier":
        pytest.skip("it trains no denoiser")
    assert check(compose("train", [f"experiment={experiment}", f"denoiser={denoiser}"])) == []


def test_wheel_and_checkout_find_the_same_folder():
    assert (Path(CONF) / "train.yaml").is_file()
