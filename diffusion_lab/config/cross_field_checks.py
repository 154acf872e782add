"""Which values of a config do not fit each other, as far as no object has to be built for it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from diffusion_lab.checkpoints.finding import find_checkpoint
from diffusion_lab.config.arguments import has_accelerator
from diffusion_lab.config.messages import nearest
from diffusion_lab.config.signatures import constant
from diffusion_lab.errors import CheckpointError

KeyedError = tuple[str, str]
"""(key path, sentence)."""
_SHARDING = ("fsdp", "deepspeed", "modelparallel")
"""In the names of strategies that keep a part of the weights on each device."""
_STORED_MODEL = "diffusion_lab.loading.StoredModel"
"""What reads the model of another run from its `path`."""
_CLASSIFYING = (
    "diffusion_lab.diffusion.objectives.Classification",
    "diffusion_lab.denoisers.classifier.NoiseClassifier",
)
_AVERAGING = "diffusion_lab.training.ema.EMA"
_ONE_OF_A_KIND = ("diffusion_lab.training.callbacks.checkpoints.Checkpoints", _AVERAGING)
"""Callbacks whose state stands in the checkpoint by the name of their class."""
_ENDS = ("", "_find_unused_parameters_true", "_find_unused_parameters_false")
_STRATEGIES = (
    *("auto", "single_device", "single_xla", "xla", "xla_debug"),
    *(f"ddp{start}{end}" for start in ("", "_spawn", "_fork", "_notebook") for end in _ENDS),
)


def cross_field_errors(plain: dict[str, Any]) -> Iterator[KeyedError]:
    """Everything that does not fit, of a config as plain data."""
    nodes: dict[str, dict[str, Any]] = {
        name: node if isinstance(node := plain.get(name), dict) else {}
        for name in ("trainer", "data", "objective", "denoiser", "callbacks", "optimizer", "logger")
    }
    yield from _in_trainer(nodes["trainer"])
    yield from _in_data(nodes["data"])
    yield from _in_callbacks(nodes["callbacks"], nodes["data"].get("num_classes"))
    yield from _in_classifier(nodes["objective"], nodes["denoiser"])
    optimizer = nodes["optimizer"]
    if optimizer.get("nesterov") is True and optimizer.get("momentum", 0) == 0:
        text = "optimizer.momentum=0 has nothing to look ahead along: optimizer.nesterov=false"
        yield "optimizer.momentum", text
    logger = str(nodes["logger"].get("_target_"))
    if logger.endswith(".TensorBoardRun") and find_spec("tensorboard") is None:
        text = "logger=tensorboard needs the package tensorboard: pip install tensorboard"
        yield "logger._target_", text
    name = plain.get("name")
    if name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", str(name)):
        text = "must be letters, digits, dots, dashes or underscores: it names a folder"
        yield "name", f"name={name} {text}"
    yield from _missing_models(plain)


def _in_trainer(trainer: dict[str, Any]) -> Iterator[KeyedError]:
    """A length that is none or endless, and what the processor or Lightning cannot do."""
    epochs, steps = trainer.get("max_epochs"), trainer.get("max_steps", -1)
    if epochs == 0 or steps == 0:
        key = "trainer.max_epochs" if epochs == 0 else "trainer.max_steps"
        yield key, f"{key}=0 would train nothing; take at least 1"
    elif epochs == -1 and steps == -1:
        text = "trainer.max_epochs=-1 and trainer.max_steps=-1 never end; set one of them"
        yield "trainer.max_epochs", text
    accelerator, devices = trainer.get("accelerator", "auto"), trainer.get("devices", "auto")
    cpu = accelerator == "cpu" or (accelerator == "auto" and not has_accelerator())
    if cpu and (devices in (-1, "-1") or isinstance(devices, list) or "," in str(devices)):
        text = f"trainer.devices={devices} names accelerators, and this runs on the processor"
        yield "trainer.devices", f"{text}: give a number of processes, at least 1"
    elif cpu and trainer.get("precision") == "16-mixed":
        text = "trainer.precision=16-mixed needs an accelerator, and this runs on the processor"
        yield "trainer.precision", f"{text}: take bf16-mixed, or auto"
    interval, every = trainer.get("val_check_interval"), "trainer.check_val_every_n_epoch"
    if trainer.get("check_val_every_n_epoch", 1) is None and isinstance(interval, float):
        text = f"counts batches through all epochs: trainer.val_check_interval={interval}"
        yield every, f"{every}=null {text} must be an integer"
    if strategy := _wrong_strategy(trainer.get("strategy")):
        yield "trainer.strategy", strategy


def _wrong_strategy(strategy: Any) -> str | None:
    """What is wrong with how processes share the work, or None."""
    if isinstance(strategy, dict):
        strategy = str(strategy.get("_target_", "")).rsplit(".", 1)[-1]
    name = str(strategy or "auto")
    if any(part in name.lower() for part in _SHARDING):
        return (
            f"trainer.strategy={name} splits the weights over the devices, which the averaged "
            "weights (callbacks.ema) and the checkpoints cannot follow; use trainer=ddp: models "
            "of this size fit on each device"
        )
    if isinstance(strategy, str) and strategy not in _STRATEGIES:
        return f"trainer.strategy={name} is not known{nearest(name, _STRATEGIES)}"
    return None


def _in_data(data: dict[str, Any]) -> Iterator[KeyedError]:
    """A shape or classes that a data set of this package does not have."""
    shape, target, count = data.get("shape"), str(data.get("_target_", "")), data.get("num_classes")
    if text := _wrong_exclude(data.get("exclude"), count):
        yield "data.exclude", f"data.exclude={data['exclude']}{text}"
    if shape is None:
        return
    if not (isinstance(shape, list) and shape and all(type(n) is int and n > 0 for n in shape)):
        yield "data.shape", f"data.shape={shape} must be positive integers, e.g. [1,28,28]"
        return
    if not target.startswith("diffusion_lab.data."):
        return
    name, own = target.rsplit(".")[-1], constant(target, "original")
    if own is None and (len(shape) != 3 or shape[0] not in (1, 3)):
        text = "must be [1,H,W] for grey or [3,H,W] for colour images"
        yield "data.shape", f"data.shape={shape} {text}"
    elif own is not None and (
        len(shape) != len(own)
        or shape[0] != own[0]
        or any(n < least for n, least in zip(shape, own, strict=True))
    ):
        text = f"data.shape={shape}: {name} has samples of {list(own)}"
        more = "; images can be padded to a larger height and width only" if len(own) == 3 else ""
        yield "data.shape", text + more
    known = constant(target, "class_names")
    if known is not None and count not in (None, len(known)):
        text = f"data.num_classes={count}: {name} has {len(known)}; give that or null"
        yield "data.num_classes", text


def _wrong_exclude(exclude: Any, count: Any) -> str | None:
    """What is wrong with the classes left out, where the number of classes is stated, or None."""
    if not isinstance(exclude, list) or not isinstance(count, int):
        return None
    unknown = [label for label in exclude if isinstance(label, int) and label >= count]
    if unknown:
        return f": there is no class {unknown[0]}; there are 0 to {count - 1}"
    all_of_them = set(range(count)) <= set(exclude)
    return " leaves out all classes; keep at least one" if all_of_them else None


def _in_callbacks(callbacks: dict[str, Any], classes: Any) -> Iterator[KeyedError]:
    """A second callback where there can be one, and pages of classes that the data do not have."""
    seen: dict[str, str] = {}
    for name, node in callbacks.items():
        target = node.get("_target_") if isinstance(node, dict) else None
        if target in _ONE_OF_A_KIND and (other := seen.setdefault(target, name)) != name:
            text = f"callbacks.{name} is a second {target.rpartition('.')[2]} beside"
            text = f"{text} callbacks.{other}; a run has one, so leave one out"
            yield f"callbacks.{name}", text
        if target == _AVERAGING:
            yield from _in_averaging(f"callbacks.{name}", node)
    pages = (callbacks.get("artefacts") or {}).get("pages")
    for name, page in (pages if isinstance(pages, dict) else {}).items():
        label = page.get("label") if isinstance(page, dict) else None
        entries = label if isinstance(label, list) else [label]
        if not all(e is None or isinstance(e, str) or _is_class(e, classes) for e in entries):
            path = f"callbacks.artefacts.pages.{name}.label"
            rule = f"below {classes}" if type(classes) is int else "of a model with classes"
            yield path, f"{path}={label} must be a class, an integer of at least 0 and {rule}"


def _in_averaging(path: str, node: dict[str, Any]) -> Iterator[KeyedError]:
    """How long the average remembers is stated in one unit."""
    decay, images = node.get("decay", 0.999), node.get("half_life_images")
    if decay is not None and images is not None:
        text = f"{path}.half_life_images={images} and {path}.decay={decay} both state how long"
        text = f"{text} the average remembers: leave one out, as {path}.decay=null does"
        yield f"{path}.half_life_images", text
    elif decay is None and images is None:
        text = f"{path}.decay=null needs {path}.half_life_images, e.g. 500000"
        yield f"{path}.half_life_images", text


def _is_class(label: Any, classes: Any) -> bool:
    return type(label) is int and type(classes) is int and 0 <= label < classes


def _in_classifier(objective: dict[str, Any], denoiser: dict[str, Any]) -> Iterator[KeyedError]:
    """A network that classifies, and the objective that trains one, go together."""
    targets = [node.get("_target_") for node in (objective, denoiser)]
    classifies = [target in _CLASSIFYING for target in targets]
    ours = str(targets[1]).startswith("diffusion_lab.")
    if all(targets) and ours and classifies[0] != classifies[1]:
        text = (
            "objective=classifier trains denoiser=classifier, and nothing else does: take both, as "
            "experiment=noisy_classifier does, or neither"
        )
        yield "objective._target_", text


def _missing_models(node: Any, where: str = "") -> Iterator[KeyedError]:
    """Every second model that cannot be read."""
    if not isinstance(node, dict):
        return
    path = node.get("path") if node.get("_target_") == _STORED_MODEL else None
    if isinstance(path, str) and path != "???" and (text := _wrong_checkpoint(path)):
        yield f"{where}.path", f"{where}.path={path} {text}"
    for key, value in node.items():
        yield from _missing_models(value, f"{where}.{key}" if where else str(key))


def _wrong_checkpoint(path: str) -> str | None:
    """What is wrong with a path that is to be of a model, or None."""
    if not Path(path).expanduser().exists():
        return "does not exist; name a checkpoint or a run folder"
    from diffusion_lab.checkpoints.format import read_checkpoint  # needs torch

    try:
        read_checkpoint(find_checkpoint(path))
    except CheckpointError as error:
        return f"cannot be used: {error}"
    return None
