"""Draw samples: `python -m diffusion_lab.sample ckpt=PATH label=7 out=sevens.png`.

The checkpoint's path is enough: its sampler, guidance and constraint stand in front of what is
typed. The ending of `out` says what is written: .png a grid (or `strip=N` moments of each
trajectory), .npz the arrays, .gif or .webp an animation of the denoising. Images are laid out in
grids; points in the plane are one cloud.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from diffusion_lab.checkpoints.finding import find_checkpoint, missing_checkpoint
from diffusion_lab.config.building import build, refuse_stored
from diffusion_lab.config.checking import checked_parts, refuse
from diffusion_lab.config.checkpoint_defaults import OF_A_MODEL
from diffusion_lab.config.main import run
from diffusion_lab.errors import ConfigError, UserError
from diffusion_lab.files import write_atomically

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from PIL.Image import Image
    from torch import Tensor

    from diffusion_lab.generate.moments import Moments
    from diffusion_lab.generate.options import SampleOptions

_TRAINED = ("schedule", "data")
"""Nodes of the training that a request must fit."""
_PARTS = ("schedule", "sampler", "guidance", "constraint")
"""What is built to see whether a request is sound, and then used."""
FILMS = (".gif", ".webp")
ENDINGS = (".png", ".npz", *FILMS)
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
        ConfigError: The config cannot run; the message holds every fault.
        CheckpointError: The checkpoint is damaged, or lacks these weights.
    """
    if not cfg.ckpt:
        raise ConfigError(missing_checkpoint("sample", str(cfg.paths.output_dir)))
    if checkpoint is None:
        from diffusion_lab.checkpoints.format import read_checkpoint

        checkpoint = read_checkpoint(find_checkpoint(cfg.ckpt))
        refuse_stored(checkpoint["diffusion_lab"]["config"], OF_A_MODEL, cfg.trust, cfg.ckpt)
    stored = checkpoint["diffusion_lab"]["config"]
    options, labels, parts = validated(cfg, stored)
    import torch

    from diffusion_lab.generate.generation import refuse_classifier
    from diffusion_lab.generate.moments import moments
    from diffusion_lab.generate.multi_device import Request, draw
    from diffusion_lab.loading import device_of, restored, source_of

    source = source_of(cfg.ckpt, cfg.weights, cfg.trust, **parts)
    model = restored(checkpoint, cfg.weights, device_of(cfg.device), cfg.trust, **parts)
    refuse_classifier(model.diffusion)
    size = int(cfg.batch_size or max(BATCH, BATCH_NUMBERS // math.prod(model.drawing.shape)))
    out = Path(str(cfg.out)).expanduser()
    began = time.perf_counter()
    drawn: Tensor | Moments
    with torch.no_grad():
        try:
            data = partial(_data, cfg, stored)
            given, start = options.ready(model, labels, stored.get("denoiser") or {}, data)
            count = options.number
            request = Request(count, given, cfg.seed, size, start)
            shown = cfg.strip or (cfg.frames if out.suffix.lower() in FILMS else 0)
            if shown:
                drawn = moments(model, request, shown)
            else:
                drawn = draw(model, source, cfg.devices, request).samples
        except ValueError as error:
            raise error if isinstance(error, UserError) else ConfigError(str(error)) from None
        out.parent.mkdir(parents=True, exist_ok=True)
        _write(cfg, out, drawn, given.label, model.drawing.num_classes)
    seconds = time.perf_counter() - began
    kind = "point" if len(model.drawing.shape) == 1 else "image"
    what = f"1 {kind}" if count == 1 else f"{count} {kind}s"
    print(f"{what} ({cfg.weights} weights, seed {cfg.seed}) in {seconds:.1f} s -> {out}")
    return out


def validated(
    cfg: DictConfig, stored: dict[str, Any]
) -> tuple[SampleOptions, Tensor | None, dict[str, Any]]:
    """What is drawn, the class of each sample, and what was built of the model, see `_PARTS`.

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
    from diffusion_lab.generate.options import SampleOptions

    typed: Any = OmegaConf.to_container(OmegaConf.masked_copy(cfg, list(SampleOptions._fields)))
    options = SampleOptions(**typed)
    data = trained.get("data") or {}
    labels, errors = options.checked(data, stored.get("denoiser") or {})
    found += [*errors, *_errors(cfg, data.get("shape"))]
    if found:
        refuse(found)
    return options, labels, {name: objects.get(name) for name in _PARTS}


def _errors(cfg: DictConfig, shape: Sequence[int] | None) -> list[str]:
    """What is wrong with the file and the devices that are asked for, given a sample's shape."""
    from diffusion_lab.pixels import refuse_shape

    out, found = Path(str(cfg.out)), []
    if out.suffix.lower() not in ENDINGS:
        found.append(f"out={out} must end in one of {', '.join(ENDINGS)}")
    elif cfg.strip and out.suffix.lower() != ".png":
        found.append(f"strip={cfg.strip} makes a picture: out={out} must end in .png")
    elif shape and out.suffix.lower() != ".npz":
        try:
            refuse_shape(shape)
        except ValueError:
            found.append(f"out={out}: samples of shape {list(shape)} cannot be drawn; use .npz")
    if shape and len(shape) == 1 and cfg.columns:
        found.append(f"columns={cfg.columns}: points are one cloud and have none; leave it out")
    film = out.suffix.lower() in FILMS
    if cfg.devices != 1 and (cfg.strip or film):
        found.append(f"devices={cfg.devices} share grids and arrays; leave it out of films, strips")
    return found


def _data(cfg: DictConfig, stored: dict[str, Any]) -> Any:
    """The data module of the training, its files where they are now."""
    places = {"data_dir": cfg.paths.data_dir, "cache": None}
    node = {key: places.get(key, value) for key, value in stored["data"].items()}
    return build(node, "data", cfg.trust)


def _write(
    cfg: DictConfig, out: Path, drawn: Tensor | Moments, labels: Tensor | None, classes: int | None
) -> None:
    """Write the kind of file that the ending of `out` names."""
    from diffusion_lab.figures.animations import save_film
    from diffusion_lab.figures.grids import save_picture

    if not isinstance(drawn, tuple):
        if out.suffix.lower() == ".npz":
            save_arrays(out, drawn, labels)
        else:
            save_picture(out, _pictures(cfg, labels, classes, [drawn])(drawn))
    elif cfg.strip:
        save_picture(out, _strip(drawn, labels))
    else:
        frames = [*drawn.states, drawn.estimates[-1]]
        save_film(out, map(_pictures(cfg, labels, classes, frames), frames))


def _pictures(
    cfg: DictConfig, labels: Tensor | None, classes: int | None, frames: list[Tensor]
) -> Callable[[Tensor], Image]:
    """How a set of samples becomes a picture; points of all frames share one window."""
    if frames[0].ndim == 2:
        from diffusion_lab.figures.clouds import scatter_image, window

        return partial(scatter_image, labels=labels, limit=window(frames))
    from diffusion_lab.figures.grids import class_columns, image_grid

    count = len(frames[0])
    columns = max(1, round(math.sqrt(count)))
    if cfg.interpolate:  # one way a row
        columns = int(cfg.interpolate)
    elif cfg.label == "all" and classes:  # one class a column
        columns = min(class_columns(classes), count)
    return partial(image_grid, columns=int(cfg.columns or columns))


def _strip(drawn: Moments, labels: Tensor | None) -> Image:
    times, states, estimates = drawn
    if states[0].ndim == 2:
        from diffusion_lab.figures.clouds import moments_image

        return moments_image(states, estimates, times, labels)
    from diffusion_lab.figures.strips import strip_image

    return strip_image((states, estimates))


def save_arrays(path: Path, images: Tensor, labels: Tensor | None) -> Path:
    """Write `samples` float32 (N, *shape) and `labels` int64 (N,), -1 for no class; atomically."""
    import numpy as np

    numbers = np.full(len(images), -1)
    if labels is not None:  # of a composed label its first class, -1 where it only says "not"
        numbers = (labels if labels.ndim == 1 else labels[:, 0]).clamp_min(-1).numpy()
    buffer = io.BytesIO()
    np.savez_compressed(buffer, samples=images.float().numpy(), labels=numbers.astype(np.int64))
    return write_atomically(path, buffer.getvalue())


def main() -> None:
    """The command line."""
    run("sample", sample)


if __name__ == "__main__":
    main()
