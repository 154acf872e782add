"""From a checkpoint or a configuration to a model, and to what trains it.

`load` gives the model of a checkpoint and needs neither Hydra nor Lightning; `build_training` and
`make_trainer` give the LightningModule and the Trainer that a configuration describes.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from diffusion_lab.checkpoints.finding import find_checkpoint
from diffusion_lab.checkpoints.format import read_checkpoint, weights_of
from diffusion_lab.config.building import build, instantiate
from diffusion_lab.diffusion.model import GaussianDiffusion
from diffusion_lab.errors import ArgumentError, CheckpointError, ConfigError, UserError
from diffusion_lab.generate.generation import Drawing
from diffusion_lab.generate.multi_device import Source
from diffusion_lab.generate.trained_model import TrainedModel

if TYPE_CHECKING:
    from lightning import Trainer
    from omegaconf import DictConfig

    from diffusion_lab.training.module import DiffusionModule

_OF_MODEL = ("denoiser", "schedule", "parameterization")
_OF_DRAWING = ("sampler", "guidance", "constraint")
TRAINING_PARTS = (*_OF_MODEL, "objective", *_OF_DRAWING, "optimizer", "lr_scheduler")
"""Nodes of a configuration that become arguments of the LightningModule's constructor."""

_OF_DIFFUSION = ("data_mean", "data_std", "input_scaling", "matched_prior")


def load(
    path: str | Path,
    weights: str = "ema",
    device: str | torch.device | None = None,
    trust: Sequence[str] = (),
) -> TrainedModel:
    """A trained model, ready to sample: `load(path).sample(64, label=7)`.

    Args:
        path: A checkpoint file, a run folder, or a folder of runs (the newest).
        weights: "ema" (averaged, where the run averaged) or "raw".
        device: Where to put it; the CPU unless given.
        trust: Further packages whose classes the checkpoint's configuration may name.

    Raises:
        CheckpointError: The file is missing, damaged or foreign, or its module was built by hand.
        ConfigError: Its configuration names what may not be built.
    """
    return restored(read_checkpoint(find_checkpoint(path)), weights, device, trust)


def restored(
    checkpoint: Mapping[str, Any],
    weights: str = "ema",
    device: str | torch.device | None = None,
    trust: Sequence[str] = (),
    **parts: Any,
) -> TrainedModel:
    """The model of a checkpoint that has been read.

    Args:
        checkpoint: As `read_checkpoint` gives it.
        weights: See `load`.
        device: See `load`.
        trust: See `load`.
        parts: Objects by the name of their node, in place of the stored ones.
    """
    config = checkpoint["diffusion_lab"]["config"]
    if not config:
        raise CheckpointError(
            "the checkpoint is of a module built by hand and holds no configuration: build the "
            "module and give it weights_of(read_checkpoint(path))"
        )
    state = weights_of(checkpoint, weights)
    try:
        model = build_model(config, trust, **parts)
        model.load_weights({k: v for k, v in state.items() if k.startswith("diffusion.")})
    except Exception as error:  # of a constructor, or of weights of another network
        if isinstance(error, UserError) and not isinstance(error, ArgumentError):
            raise
        raise CheckpointError(f"the checkpoint makes no model: {_shortened(error)}") from error
    return model.to(device or "cpu").eval()


def _shortened(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:500]


def source_of(path: str | Path, weights: str, trust: Sequence[str], **parts: Any) -> Source:
    """`restored` as a function of the device, for the processes of other devices."""
    return partial(_restored_on, str(path), weights, tuple(trust), parts)


def _restored_on(
    path: str, weights: str, trust: Sequence[str], parts: Mapping[str, Any], device: str
) -> TrainedModel:
    return restored(read_checkpoint(path), weights, device, trust, **parts)


def build_model(config: Mapping[str, Any], trust: Sequence[str] = (), **parts: Any) -> TrainedModel:
    """The model that a stored configuration describes, its weights freshly initialised.

    Neither objective nor optimizer is built.

    Args:
        config: Resolved plain data with the nodes of a training.
        trust: Further packages whose classes it may name.
        parts: Objects by the name of their node, which are then not built from the configuration.

    Raises:
        ConfigError: What may not be built, or a node that is missing.
        ValueError: A value out of range, from the constructor it belongs to.
    """
    for name in (*_OF_DRAWING, *reversed(_OF_MODEL)):  # the network, the costly one, last
        if name not in parts:
            parts[name] = build(config.get(name), name, trust)
    missing = [name for name in (*_OF_MODEL, "model") if not config.get(name)]
    if missing:
        raise ConfigError(f"the configuration has no {', '.join(missing)}: it is of no model")
    model = dict(config["model"])
    shape = model.get("shape")
    if not isinstance(shape, list | tuple) or not all(type(size) is int for size in shape):
        raise ConfigError(f"model.shape={shape!r:.60} is no shape of a sample")
    diffusion = GaussianDiffusion(
        *(parts[name] for name in _OF_MODEL), **{k: model[k] for k in _OF_DIFFUSION if k in model}
    )
    drawing = Drawing(
        tuple(model["shape"]),
        model.get("num_classes"),
        **{name: parts[name] for name in _OF_DRAWING},
        clip=bool(model.get("clip_samples")),
    )
    return TrainedModel(diffusion, drawing, config)


def build_training(config: Mapping[str, Any], *, trust: Sequence[str] = ()) -> DiffusionModule:
    """The LightningModule that a typed configuration describes, its weights freshly initialised.

    Args:
        config: Resolved, with the node `model` and those of `TRAINING_PARTS`.
        trust: Further packages that a `_target_` may name.

    Raises:
        ConfigError: A `_target_` outside the allow-list.
        ValueError: A value out of range, from the constructor it belongs to.
    """
    parts = {name: instantiate(config.get(name), trust=trust) for name in TRAINING_PARTS}
    module: DiffusionModule = instantiate(config["model"], trust=trust, **parts)
    return module


def make_trainer(cfg: DictConfig, folder: Path) -> Trainer:
    """Lightning's Trainer with the callbacks, the loggers and our checkpoint files."""
    from diffusion_lab.training.checkpoint_io import VerifiedCheckpoints
    from diffusion_lab.training.loggers import MetricsFile

    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated")
    warnings.filterwarnings("ignore", message=".*does not have many workers")
    warnings.filterwarnings("ignore", message=".*functional.all_gather is deprecated")
    callbacks = [_callback(name, node, cfg.trust) for name, node in (cfg.callbacks or {}).items()]
    # conf/local may hold keys of a logger that is not chosen.
    chosen = bool(cfg.logger) and "_target_" in cfg.logger
    logger = instantiate(cfg.logger, trust=cfg.trust) if chosen else None
    trainer: Trainer = instantiate(
        cfg.trainer,
        trust=cfg.trust,
        callbacks=[callback for callback in callbacks if callback is not None],
        logger=[MetricsFile(folder), *([logger] if logger is not None else [])],
        plugins=[VerifiedCheckpoints()],
    )
    return trainer


def _callback(name: str, node: Any, trust: Sequence[str]) -> Any:
    """A callback; what its constructor rejects is what somebody wrote."""
    try:
        return instantiate(node, trust=trust, path=f"callbacks.{name}")
    except UserError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(f"callbacks.{name}: {error}") from error


def settle_precision(cfg: DictConfig) -> None:
    """`trainer.precision=auto`: bfloat16 autocast where the device computes in it."""
    if cfg.trainer.get("precision") != "auto":
        return
    if torch.cuda.is_available() and cfg.trainer.get("accelerator") != "cpu":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        fast = bool(known.get("avx512_bf16") or known.get("amx_bf16"))
    cfg.trainer.precision = "bf16-mixed" if fast else "32-true"


class StoredModel:
    """A second model, for guidance or to distil from: that of another run, read when first called.

    A run that names one can be loaded without it; a configuration that is typed is rejected where
    there is nothing at `path` (`config.cross_field_checks`).

    Args:
        path: A checkpoint file or a run folder.
        weights: "ema" (averaged, where the run averaged) or "raw".
        trust: Further packages whose classes its configuration may name: always those that are
            typed, whatever a configuration says.
    """

    takes_trust = True

    def __init__(
        self, path: str, weights: Literal["ema", "raw"] = "ema", trust: Sequence[str] = ()
    ) -> None:
        self.path, self.trust = path, trust
        self.weights = weights
        self._model: GaussianDiffusion | None = None

    def __call__(self) -> GaussianDiffusion:
        """The model, in eval mode on the CPU, the same one at every call.

        Raises:
            CheckpointError: There is nothing at `path`, or what `load` says of it.
        """
        if self._model is None:
            if not Path(self.path).expanduser().exists():
                raise CheckpointError(
                    f"path={self.path} of a second model does not exist: it has moved, or is to be "
                    "left out (guidance=none)"
                )
            self._model = load(self.path, self.weights, trust=self.trust).diffusion
            self._model.requires_grad_(False)
        return self._model


def device_of(name: str) -> torch.device:
    """The torch device meant by cpu, cuda, mps or auto.

    Raises:
        ConfigError: There is no such device here.
    """
    if name != "auto":
        wanted = torch.device(name)
        if wanted.type == "cuda" and not torch.cuda.is_available():
            raise ConfigError(f"device={name}: there is no CUDA device here; use device=cpu")
        return wanted
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
