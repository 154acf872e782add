"""Every option of `conf/` is found by its file: commented, sound, and able to train and sample."""

import ast
import hashlib
import inspect
import pickle
import re
import struct
from pathlib import Path
from pydoc import locate

import numpy as np
import pytest

from diffusion_lab.config.arguments import compose
from diffusion_lab.config.checking import check
from diffusion_lab.config.composing import CONF
from diffusion_lab.config.signatures import signature

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
FLAT = {path.stem for path in (CONF / "data").glob("*.yaml") if "shape: [2]" in path.read_text()}
"""Options of data that are points, for which there is the MLP."""
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
    net = option if group == "denoiser" else "mlp" if option in FLAT else "unet"
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
    return words


def stands_alone(group: str, option: str) -> bool:
    """Whether no value has to be given with it, as the path of a second model has."""
    return "???" not in (CONF / group / f"{option}.yaml").read_text(encoding="utf-8")


def no_files(folder, monkeypatch):
    """MNIST goes on without."""


def idx_files(folder, monkeypatch):
    """Noise in MNIST's format, for the two sets that have no stand-in."""
    from diffusion_lab.data.mnist import IdxImages

    monkeypatch.setattr(IdxImages, "counts", (80, 20))
    rng = np.random.default_rng(0)
    for name in ("FashionMNIST", "KMNIST"):
        raw = folder / name / "raw"
        raw.mkdir(parents=True)
        for prefix, count in (("train", 80), ("t10k", 20)):
            images = bytes([0, 0, 8, 3]) + struct.pack(">3i", count, 28, 28)
            images += rng.integers(0, 256, count * 784, dtype=np.uint8).tobytes()
            labels = bytes([0, 0, 8, 1]) + struct.pack(">i", count)
            labels += bytes(range(10)) * (count // 10)
            (raw / f"{prefix}-images-idx3-ubyte").write_bytes(images)
            (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(labels)


def cifar_files(folder, monkeypatch):
    """Noise in CIFAR-10's format, with its hashes as the official ones."""
    from diffusion_lab.data.cifar10 import CIFAR10

    rng, found = np.random.default_rng(0), {}
    (folder / CIFAR10.directory).mkdir(parents=True)
    for name in CIFAR10.md5:
        images = rng.integers(0, 256, (20, 3072), dtype=np.uint8)
        content = pickle.dumps({b"data": images, b"labels": [*range(10)] * 2}, protocol=2)
        (folder / CIFAR10.directory / name).write_bytes(content)
        found[name] = hashlib.md5(content).hexdigest()
    monkeypatch.setattr(CIFAR10, "md5", found)


WITH_FILES = {
    ("data", "mnist"): no_files,
    ("data", "fashion_mnist"): idx_files,
    ("data", "kmnist"): idx_files,
    ("data", "cifar10"): cifar_files,
}
"""What the options of data that read files find."""

CASES = [
    (group, option) for group in TRAINED for option in options(group) if stands_alone(group, option)
]


@pytest.mark.parametrize(("group", "option"), CASES, ids=lambda value: str(value))
def test_an_option_trains_two_steps_and_samples(group, option, tmp_path, monkeypatch):
    from diffusion_lab.train import train

    words = overrides(group, option)
    if (group, option) in WITH_FILES:
        WITH_FILES[group, option](tmp_path / "data", monkeypatch)
        words += [f"paths.data_dir={tmp_path / 'data'}", "data.download=false"]
        words += ["data.validation_size=20"]
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
    words = ["data.folder=pictures"] if experiment == "image_folder" else []
    cfg = compose("train", [f"experiment={experiment}", f"denoiser={denoiser}", *words])
    assert check(cfg) == []


@pytest.mark.parametrize("path", sorted((CONF / "data").glob("*.yaml")), ids=lambda p: p.stem)
def test_arguments_read_from_the_source_are_those_of_the_class(path):
    """Data sets inherit dataclass fields, which the checker reads without importing them."""
    target = re.search(r"^_target_: (\S+)", path.read_text(), re.M)[1]
    read, made = signature(target), inspect.signature(locate(target)).parameters
    assert {name: ast.unparse(tree) for name, tree in read.annotations.items()} == {
        name: ast.unparse(ast.parse(argument.annotation)) for name, argument in made.items()
    }
    assert set(read.required) == {name for name, a in made.items() if a.default is a.empty}


def test_wheel_and_checkout_find_the_same_folder():
    assert (Path(CONF) / "train.yaml").is_file()
