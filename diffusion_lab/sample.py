"""Draw samples: `python -m diffusion_lab.sample ckpt=PATH label=7 out=sevens.png`.

The checkpoint's path is enough: its sampler, guidance and constraint stand in front of what is
typed. The ending of `out` says what is written: .png a grid (or `strip=N` moments of each
trajectory), .npz the arrays, .gif or .webp an animation of the denoising. Images are laid out in
grids; points in the plane are one cloud.
"""

from __future__ import annotations

import math
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from diffusion_lab.checkpoints.finding import find_checkpoint, missing_checkpoint
from diffusion_lab.config.building import build, validate_stored
from diffusion_lab.config.checking import checked_parts, raise_errors
from diffusion_lab.config.checkpoint_defaults import OF_A_MODEL
from diffusion_lab.config.main import run
from diffusion_lab.errors import ConfigError, UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from torch import Tensor

    from diffusion_lab.figures.sample_file import SampleFile
    from diffusion_lab.generate.generation import Moments
    from diffusion_lab.generate.options import SampleOptions

_TRAINED = ("schedule", "data")
"""Nodes of the training that a request must fit."""
_PARTS = ("schedule", "sampler", "guidance", "constraint")
"""What is built to validate a request, and then used."""
BATCH, BATCH_NUMBERS = 256, 2**16
"""Where `batch_size` is null: images at a time, and more of what has fewer numbers than that."""


def sample(cfg: DictConfig, checkpoint: dict[str, Any] | None = None) -> Path:
    """Draw what a config describes.

    Args:
        cfg: A config of `conf/sample.yaml`.
        checkpoint: What the file `cfg.ckpt` holds, its configuration checked; read from it unless
            given.

    Returns:
        The file written.

    Raises:
        ConfigError: The config cannot run; the message holds every error.
        CheckpointError: The checkpoint is damaged, or lacks these weights.
    """
    if not cfg.ckpt:
        raise ConfigError(missing_checkpoint("sample", str(cfg.paths.output_dir)))
    if checkpoint is None:
        from diffusion_lab.checkpoints.format import read_checkpoint

        checkpoint = read_checkpoint(find_checkpoint(cfg.ckpt))
        validate_stored(checkpoint["diffusion_lab"]["config"], OF_A_MODEL, cfg.trust, cfg.ckpt)
    stored = checkpoint["diffusion_lab"]["config"]
    file, options, labels, parts = validated(cfg, stored)
    import torch

    from diffusion_lab.generate.generation import Request, refuse_classifier
    from diffusion_lab.generate.multi_device import draw
    from diffusion_lab.loading import device_of, restored, source_of

    source = source_of(cfg.ckpt, cfg.weights, cfg.trust, **parts)
    model = restored(checkpoint, cfg.weights, device_of(cfg.device), cfg.trust, **parts)
    refuse_classifier(model.diffusion)
    size = int(cfg.batch_size or max(BATCH, BATCH_NUMBERS // math.prod(model.drawing.shape)))
    began = time.perf_counter()
    drawn: Tensor | Moments
    with torch.no_grad():
        try:
            data = partial(_data, cfg, stored)
            given, start = options.ready(model, labels, stored.get("denoiser") or {}, data)
            count = options.number
            request = Request(count, given, cfg.seed, size, start)
            if file.moments:
                drawn = model.drawing.moments(model.diffusion, request, file.moments)
            else:
                drawn = draw(model, source, cfg.devices, request).samples
        except ValueError as error:
            raise error if isinstance(error, UserError) else ConfigError(str(error)) from None
        out = file.write(drawn, given.label, model.drawing.num_classes)
    seconds = time.perf_counter() - began
    kind = "point" if len(model.drawing.shape) == 1 else "image"
    what = f"1 {kind}" if count == 1 else f"{count} {kind}s"
    print(f"{what} ({cfg.weights} weights, seed {cfg.seed}) in {seconds:.1f} s -> {out}")
    return out


def validated(
    cfg: DictConfig, stored: dict[str, Any]
) -> tuple[SampleFile, SampleOptions, Tensor | None, dict[str, Any]]:
    """What is written and drawn, the class of each sample, and the built parts, see `_PARTS`.

    Args:
        cfg: A config of `conf/sample.yaml`.
        stored: The configuration of the training that the checkpoint is of.

    Raises:
        ConfigError: Everything wrong with the request.
    """
    own: Any = OmegaConf.to_container(cfg, resolve=False)
    own = {key: value for key, value in own.items() if key not in ("hydra", "ckpt", "label")}
    trained = {key: stored[key] for key in _TRAINED if key in stored}
    found, objects = checked_parts(OmegaConf.create({**trained, **own}))
    from diffusion_lab.figures.sample_file import SampleFile
    from diffusion_lab.generate.options import SampleOptions

    typed: Any = OmegaConf.to_container(OmegaConf.masked_copy(cfg, list(SampleOptions._fields)))
    options = SampleOptions(**typed)
    data = trained.get("data") or {}
    labels, errors = options.checked(data, stored.get("denoiser") or {})
    keys = ("strip", "frames", "columns", "interpolate", "label", "devices")
    file = SampleFile(Path(str(cfg.out)), *(cfg[key] for key in keys))
    found += [*errors, *file.errors(data.get("shape"))]
    if found:
        raise_errors(found)
    return file, options, labels, {name: objects.get(name) for name in _PARTS}


def _data(cfg: DictConfig, stored: dict[str, Any]) -> Any:
    """The data module of the training, its files where they are now."""
    places = {"data_dir": cfg.paths.data_dir, "cache": None}
    node = {key: places.get(key, value) for key, value in stored["data"].items()}
    return build(node, "data", cfg.trust)


def main() -> None:
    """The command line."""
    run("sample", sample)


if __name__ == "__main__":
    main()
