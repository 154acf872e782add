"""What must fit together in a config and needs no object to be built."""

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

_SHARDING = ("fsdp", "deepspeed", "modelparallel")
"""In the names of strategies that keep a part of the weights on each device."""
_STORED_MODEL = "diffusion_lab.loading.StoredModel"
"""What reads the model of another run from its `path`."""
_CLASSIFYING = (
    "diffusion_lab.diffusion.objectives.Classification",
    "diffusion_lab.denoisers.classifier.NoiseClassifier",
)
_ONE_OF_A_KIND = (
    "diffusion_lab.training.callbacks.checkpoints.Checkpoints",
    "diffusion_lab.training.ema.EMA",
)
_ENDS = ("", "_find_unused_parameters_true", "_find_unused_parameters_false")
_STRATEGIES = (
    *("auto", "single_device", "single_xla", "xla", "xla_debug"),
    *(f"ddp{start}{end}" for start in ("", "_spawn", "_fork", "_notebook") for end in _ENDS),
)


def cross(plain: dict[str, Any]) -> list[tuple[str, str]]:
    """(key path, sentence) of each fault."""
    faults: list[tuple[str, str]] = []
    trainer = plain.get("trainer") or {}
    epochs, steps = trainer.get("max_epochs"), trainer.get("max_steps", -1)
    if epochs == 0 or steps == 0:
        key = "max_epochs" if epochs == 0 else "max_steps"
        faults.append((f"trainer.{key}", f"trainer.{key}=0 would train nothing; take at least 1"))
    elif epochs == -1 and steps == -1:
        text = "trainer.max_epochs=-1 and trainer.max_steps=-1 never end; set one of them"
        faults.append(("trainer.max_epochs", text))
    faults += _faults_of_device(trainer)
    faults += _faults_of_validation(trainer)
    strategy = _fault_of_strategy(trainer.get("strategy"))
    if strategy:
        faults.append(("trainer.strategy", strategy))
    faults += _faults_of_data(plain.get("data"))
    faults += _faults_of_labels(plain)
    faults += _faults_of_classifier(plain)
    faults += _faults_of_callbacks(plain.get("callbacks") or {})
    faults += _faults_of_optimizer(plain.get("optimizer"))
    faults += _faults_of_logger(plain.get("logger"))
    excluded = _fault_of_exclude(plain.get("data") or {})
    if excluded:
        faults.append(("data.exclude", excluded))
    name = plain.get("name")
    if name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", str(name)):
        text = (
            f"name={name} must be letters, digits, dots, dashes or underscores: it names a folder"
        )
        faults.append(("name", text))
    return [*faults, *_missing_models(plain)]


def _missing_models(node: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """(key path, sentence) of every second model that cannot be read."""
    if not isinstance(node, dict):
        return
    path = node.get("path") if node.get("_target_") == _STORED_MODEL else None
    if isinstance(path, str) and path != "???" and (fault := _fault_of_checkpoint(path)):
        yield f"{where}.path", f"{where}.path={path} {fault}"
    for key, value in node.items():
        yield from _missing_models(value, f"{where}.{key}" if where else str(key))


def _faults_of_device(trainer: dict[str, Any]) -> list[tuple[str, str]]:
    """Devices that a processor does not have, and a precision that it does not know."""
    accelerator, devices = trainer.get("accelerator", "auto"), trainer.get("devices", "auto")
    cpu = accelerator == "cpu" or (accelerator == "auto" and not has_accelerator())
    if cpu and (devices in (-1, "-1") or isinstance(devices, list) or "," in str(devices)):
        text = f"trainer.devices={devices} names accelerators, and this runs on the processor"
        return [("trainer.devices", f"{text}: give a number of processes, at least 1")]
    if cpu and trainer.get("precision") == "16-mixed":
        text = "trainer.precision=16-mixed needs an accelerator, and this runs on the processor"
        return [("trainer.precision", f"{text}: take bf16-mixed, or auto")]
    return []


def _faults_of_validation(trainer: dict[str, Any]) -> list[tuple[str, str]]:
    """A period of validations that Lightning cannot count."""
    every, interval = trainer.get("check_val_every_n_epoch", 1), trainer.get("val_check_interval")
    if "check_val_every_n_epoch" in trainer and every is None and isinstance(interval, float):
        text = f"counts batches through all epochs: trainer.val_check_interval={interval} must be "
        text = f"trainer.check_val_every_n_epoch=null {text}an integer"
        return [("trainer.check_val_every_n_epoch", text)]
    return []


def _fault_of_exclude(data: dict[str, Any]) -> str | None:
    """What is wrong with the classes left out, where the number of classes is stated, or None."""
    exclude, count = data.get("exclude"), data.get("num_classes")
    if not isinstance(exclude, list) or not isinstance(count, int):
        return None
    unknown = [label for label in exclude if isinstance(label, int) and label >= count]
    if unknown:
        return f"data.exclude={exclude}: there is no class {unknown[0]}; there are 0 to {count - 1}"
    if set(range(count)) <= set(exclude):
        return f"data.exclude={exclude} leaves out all classes; keep at least one"
    return None


def _fault_of_checkpoint(path: str) -> str | None:
    """What is wrong with a path that is to be of a model."""
    if not Path(path).expanduser().exists():
        return "does not exist; name a checkpoint or a run folder"
    from diffusion_lab.checkpoints.format import read_checkpoint  # needs torch

    try:
        read_checkpoint(find_checkpoint(path))
    except CheckpointError as error:
        return f"cannot be used: {error}"
    return None


def _fault_of_strategy(strategy: Any) -> str | None:
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


def _faults_of_data(data: Any) -> list[tuple[str, str]]:
    """A shape or a number of classes that a data set of this package does not have."""
    if not isinstance(data, dict):
        return []
    shape, target = data.get("shape"), str(data.get("_target_", ""))
    if shape is None:
        return []
    if not (isinstance(shape, list) and shape and all(type(n) is int and n > 0 for n in shape)):
        text = f"data.shape={shape} must be positive integers, e.g. [1,28,28]"
        return [("data.shape", text)]
    if not target.startswith("diffusion_lab.data."):
        return []
    name, own = target.rsplit(".")[-1], constant(target, "original")
    faults = []
    if own is None and (len(shape) != 3 or shape[0] not in (1, 3)):
        text = "must be [1,H,W] for grey or [3,H,W] for colour images"
        faults.append(("data.shape", f"data.shape={shape} {text}"))
    elif own is not None and (
        len(shape) != len(own)
        or shape[0] != own[0]
        or any(n < least for n, least in zip(shape, own, strict=True))
    ):
        text = f"data.shape={shape}: {name} has samples of {list(own)}"
        more = "; images can be padded to a larger height and width only" if len(own) == 3 else ""
        faults.append(("data.shape", text + more))
    known, classes = constant(target, "class_names"), data.get("num_classes")
    if known is not None and classes not in (None, len(known)):
        text = f"data.num_classes={classes}: {name} has {len(known)}; give that or null"
        faults.append(("data.num_classes", text))
    return faults


def _faults_of_classifier(plain: dict[str, Any]) -> list[tuple[str, str]]:
    """A network that classifies, and the objective that trains one, go together."""
    targets = [(plain.get(node) or {}).get("_target_") for node in ("objective", "denoiser")]
    classifies = [target in _CLASSIFYING for target in targets]
    ours = str(targets[1]).startswith("diffusion_lab.")
    if not all(targets) or not ours or classifies[0] == classifies[1]:
        return []
    text = (
        "objective=classifier trains denoiser=classifier, and nothing else does: take both, as "
        "experiment=noisy_classifier does, or neither"
    )
    return [("objective._target_", text)]


def _faults_of_callbacks(callbacks: dict[str, Any]) -> list[tuple[str, str]]:
    """Callbacks whose state stands in the checkpoint by the name of their class: one of each."""
    faults: list[tuple[str, str]] = []
    seen: dict[str, str] = {}
    for name, node in callbacks.items():
        target = node.get("_target_") if isinstance(node, dict) else None
        if target in _ONE_OF_A_KIND:
            if target in seen:
                kind = target.rpartition(".")[2]
                text = f"callbacks.{name} is a second {kind} beside callbacks.{seen[target]}"
                faults.append((f"callbacks.{name}", f"{text}; a run has one, so leave one out"))
            seen[target] = name
    return faults


def _faults_of_labels(plain: dict[str, Any]) -> list[tuple[str, str]]:
    """Classes asked for by pages that the data does not have."""
    callbacks = plain.get("callbacks")
    pages = ((callbacks if isinstance(callbacks, dict) else {}).get("artefacts") or {}).get("pages")
    classes = (plain.get("data") or {}).get("num_classes")
    faults = []
    for name, page in (pages if isinstance(pages, dict) else {}).items():
        label = page.get("label") if isinstance(page, dict) else None
        entries = label if isinstance(label, list) else [label]
        wrong = [
            e for e in entries if not (e is None or isinstance(e, str) or _is_class(e, classes))
        ]
        if wrong:
            path = f"callbacks.artefacts.pages.{name}.label"
            rule = f"below {classes}" if type(classes) is int else "of a model with classes"
            text = f"{path}={label} must be a class, an integer of at least 0 and {rule}"
            faults.append((path, text))
    return faults


def _is_class(label: Any, classes: Any) -> bool:
    return type(label) is int and type(classes) is int and 0 <= label < classes


def _faults_of_logger(logger: Any) -> list[tuple[str, str]]:
    """A dashboard whose package is not installed."""
    target = str((logger if isinstance(logger, dict) else {}).get("_target_"))
    if not target.endswith(".TensorBoardRun") or find_spec("tensorboard") is not None:
        return []
    text = "logger=tensorboard needs the package tensorboard: pip install tensorboard"
    return [("logger._target_", text)]


def _faults_of_optimizer(optimizer: Any) -> list[tuple[str, str]]:
    """What torch refuses only when the optimizer is made, after the run has begun."""
    node = optimizer if isinstance(optimizer, dict) else {}
    if node.get("nesterov") is True and node.get("momentum", 0) == 0:
        text = "optimizer.momentum=0 has nothing to look ahead along: optimizer.nesterov=false"
        return [("optimizer.momentum", text)]
    return []
