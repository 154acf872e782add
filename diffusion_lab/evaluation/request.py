"""What is evaluated: a checkpoint and settings of `evaluate`, checked, priced and named."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusion_lab.config.arguments import compose_with_checkpoint
from diffusion_lab.config.building import instantiate, validate_stored
from diffusion_lab.config.checking import check, checked_parts
from diffusion_lab.config.checkpoint_defaults import OF_A_MODEL
from diffusion_lab.config.rules import shown
from diffusion_lab.config.words import quoted
from diffusion_lab.errors import ConfigError
from diffusion_lab.files import sha256

if TYPE_CHECKING:
    from torch import Tensor

    from diffusion_lab.config.composing import DictConfig

MEASUREMENT_VERSION = 2
"""Of what is measured; cached rows of another version are not used."""
SETTINGS = (
    "weights", "num_samples", "label", "seed", "batch_size", "device", "sampler", "guidance",
    "constraint", "data", "features", "second_classifier",
)  # fmt: skip
"""Keys of `evaluate` that determine the scores of a request."""
_COMMON = (
    "weights", "num_samples", "label", "seed", "batch_size", "device", "devices",
    "second_classifier", "trust",
)  # fmt: skip


def plain(node: Any) -> Any:
    """A config node as plain data, its interpolations resolved."""
    if isinstance(node, Mapping):
        return {str(key): plain(node[key]) for key in node}
    if isinstance(node, Sequence) and not isinstance(node, str):
        return [plain(entry) for entry in node]
    return node


@dataclass(frozen=True)
class EvaluationRequest:
    """A checkpoint and how to draw from it.

    Attributes:
        cfg: A config of `conf/evaluate.yaml` with `ckpt` a file.
        name: Of the row of a study.
        overrides: As typed for it after `evaluate ckpt=...`.
        loaded: The content of the file, where it has been read already.
    """

    cfg: DictConfig
    name: str = ""
    overrides: tuple[str, ...] = field(default=())
    loaded: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)

    @cached_property
    def checkpoint(self) -> Mapping[str, Any]:
        """The content of the file, see `checkpoints.format`."""
        from diffusion_lab.checkpoints.format import read_checkpoint

        checkpoint = self.loaded or read_checkpoint(self.cfg.ckpt)
        config = checkpoint["diffusion_lab"]["config"]
        validate_stored(config, OF_A_MODEL, self.cfg.trust, self.cfg.ckpt)
        return checkpoint

    @property
    def stored(self) -> dict[str, Any]:
        """The checkpoint's description of itself, and its `step`."""
        return {"step": self.checkpoint["global_step"], **self.checkpoint["diffusion_lab"]}

    @cached_property
    def sha256(self) -> str:
        """Of the checkpoint's file."""
        return sha256(Path(self.cfg.ckpt))

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All that determines the scores, but for the checkpoint's content and the machine."""
        settings = {key: plain(self.cfg.get(key)) for key in SETTINGS}
        data = settings["data"] or {}
        return settings | {"data": {k: v for k, v in data.items() if k != "data_dir"}}

    @property
    def num_classes(self) -> int | None:
        """Classes of the model; None where it was trained without."""
        return (self.stored["config"].get("data") or {}).get("num_classes")

    @cached_property
    def labels(self) -> Tensor | None:
        """The class of each image, (num_samples,), or None.

        Raises:
            ValueError: A class that does not exist.
        """
        from diffusion_lab.generate.labels import expand_labels, typed_label

        label = typed_label(self.cfg.label, self.num_classes)
        return expand_labels(label, self.cfg.num_samples, self.num_classes)

    @cached_property
    def _checked(self) -> tuple[list[str], dict[str, Any]]:
        """Errors of the settings, and what was built to find them."""
        trained = ("schedule", "parameterization")
        config = {key: self.stored["config"].get(key) for key in trained}
        own = {key: plain(self.cfg.get(key)) for key in (*SETTINGS, "devices", "trust")}
        own.pop("label")
        return checked_parts({**{key: value for key, value in config.items() if value}, **own})

    @property
    def parts(self) -> dict[str, Any]:
        """Schedule, parameterization, sampler, guidance and constraint."""
        names = ("schedule", "parameterization", "sampler", "guidance", "constraint")
        return {name: self._checked[1].get(name) for name in names}

    def errors(self) -> list[str]:
        """Everything wrong with the settings, against the model that the checkpoint describes."""
        from diffusion_lab.metrics.intervals import FEWEST

        errors = list(self._checked[0])
        for key in ("num_samples", "batch_size"):
            if self.cfg[key] is None:
                errors.append(f"{key}=null must be an integer of at least 1")
        shape = (self.stored["config"].get("data") or {}).get("shape") or ()
        if self.cfg.get("features") and len(shape) == 1:
            errors.append(
                "features: they measure images, and this model draws points; leave it out"
            )
        count = self.cfg.num_samples
        if isinstance(count, int) and count < FEWEST:
            errors.append(f"num_samples={count}: intervals need at least {FEWEST}, better 1000")
        try:
            if type(count) is int and count > 0:  # else it is among the errors already
                _ = self.labels
        except (ValueError, TypeError, RuntimeError) as error:
            text = str(error)
            known = text.startswith(("label=", "num_samples="))
            errors.append(text if known else f"label={shown(self.cfg.label)}: {text}")
        return list(dict.fromkeys(errors))

    def key(self, machine: Mapping[str, Any]) -> str:
        """A hash of all inputs; of the machine too, since seconds are among the scores."""
        inputs = [MEASUREMENT_VERSION, self.sha256, self.settings, dict(machine)]
        text = json.dumps(inputs, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def network_calls(self) -> float:
        """Network calls per image, counted while a network that returns zero draws one number."""
        import torch

        from diffusion_lab.diffusion.conditions import Condition
        from diffusion_lab.diffusion.model import GaussianDiffusion
        from diffusion_lab.sampling.pipeline import final_state, trajectory
        from diffusion_lab.sampling.sample_noise import SampleNoise

        net, built = _zero(self.num_classes), self._checked[1]
        steps = trajectory(
            GaussianDiffusion(net, built["schedule"], built["parameterization"]),
            self.parts["sampler"],
            shape=(1,),
            num_samples=1,
            noise=SampleNoise(0, 0, 1),
            guidance=self.parts["guidance"],
            given=Condition(None if self.labels is None else torch.zeros(1, dtype=torch.long)),
        )
        final_state(steps)
        return float(net.rows)


def request_of(
    name: str, ckpt: str | Path, words: Sequence[str], overrides: Sequence[str]
) -> EvaluationRequest:
    """Compose a request as if it had been typed.

    Args:
        name: Of the request.
        ckpt: The checkpoint.
        words: Overrides of the whole study.
        overrides: Of this request; they come last and win.

    Raises:
        ConfigError: A key or a choice that does not exist; the message names the request.
    """
    try:
        typed = [quoted("ckpt", ckpt), *words, *overrides]
        cfg, checkpoint = compose_with_checkpoint("evaluate", typed)
    except ConfigError as error:
        raise ConfigError(f"row {name!r}: {error}") from None
    return EvaluationRequest(cfg, name, tuple(overrides), checkpoint)


def data_of(cfg: DictConfig, stored: Mapping[str, Any], use: str) -> Any:
    """The data module of a config, or the embedded digits if they replaced it in the training.

    Args:
        cfg: A config with `data` and `trust`.
        stored: The checkpoint's description of itself.
        use: What is done with the digits, printed where they are used.
    """
    data, source = instantiate(cfg.data, trust=cfg.trust), stored.get("data") or {}
    if source.get("fallback") and source.get("name") == "digits":
        from diffusion_lab.data.digits import Digits

        print(f"This model was trained on the embedded digits and {use}.")
        data = Digits(shape=data.shape, num_classes=data.num_classes)
    return data


def common_words(cfg: DictConfig, typed: Sequence[str] = ()) -> list[str]:
    """The overrides that every row of a study starts from.

    Args:
        cfg: The study's config, whose seed, number of images, device ... all rows share.
        typed: What was typed; its choices of sampler, guidance, constraint and data are adopted.
    """
    from diffusion_lab.config.checkpoint_defaults import OPTION
    from diffusion_lab.config.words import key_of

    groups = {"sampler", "guidance", "constraint", "data", "grid", "features"}
    words = [_word(key, plain(cfg[key])) for key in _COMMON]
    words += [_word(f"paths.{key}", plain(cfg.paths[key])) for key in cfg.paths]
    for word in typed:
        root = key_of(word).split(".")[0].split("@")[0]
        if root in groups and not word.endswith(f"={OPTION}"):
            words.append(word)
    return words


def common_errors(cfg: DictConfig) -> list[str]:
    """Errors of the settings that all rows share, known before anything is trained."""
    return check({key: plain(cfg[key]) for key in _COMMON if key != "label"})


def _word(key: str, value: Any) -> str:
    if value is None:
        return f"{key}=null"
    return f"{key}={value}" if isinstance(value, list) else quoted(key, value)


def _zero(num_classes: int | None) -> Any:
    """A network that returns zero and counts the images (`rows`)."""
    from torch import nn, zeros_like

    class Zero(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.num_classes, self.rows = num_classes, 0

        def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
            self.rows += len(x)
            return zeros_like(x)

    return Zero()
