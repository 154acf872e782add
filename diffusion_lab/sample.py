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
from diffusion_lab.config.checking import checked, refuse
from diffusion_lab.config.components import build, refuse_stored
from diffusion_lab.config.rules import shown
from diffusion_lab.config.running import run
from diffusion_lab.config.stored import OF_A_MODEL
from diffusion_lab.config.suggestions import nearest
from diffusion_lab.errors import ConfigError
from diffusion_lab.files import write_atomically

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from PIL.Image import Image
    from torch import Tensor

    from diffusion_lab.diffusion.conditions import Condition
    from diffusion_lab.generate.model import TrainedModel

_TRAINED = ("schedule", "parameterization", "data")
"""Nodes of the training that a request must fit."""
_PARTS = ("schedule", "parameterization", "sampler", "guidance", "constraint")
"""What is built to see whether a request is sound, and then used."""
ENDINGS = (".png", ".npz", ".gif", ".webp")
BATCH, BATCH_NUMBERS = 256, 2**16
"""Where `batch_size` is null: images at a time, and more of what has fewer numbers than that."""


def sample(cfg: DictConfig, checkpoint: dict[str, Any] | None = None) -> Path:
    """Draw what a config describes.

    Args:
        cfg: A config of `conf/sample.yaml`.
        checkpoint: What the file `cfg.ckpt` holds; read from it unless given.

    Returns:
        The file written.

    Raises:
        ConfigError: The config cannot run; the message holds every fault.
        CheckpointError: The checkpoint is damaged, or lacks these weights.
    """
    if not cfg.ckpt:
        raise ConfigError(missing_checkpoint("sample", str(cfg.paths.output_dir)))
    from diffusion_lab.checkpoints.format import read_checkpoint

    checkpoint = checkpoint or read_checkpoint(find_checkpoint(cfg.ckpt))
    stored = checkpoint["diffusion_lab"]["config"]
    refuse_stored(stored, OF_A_MODEL, cfg.trust, cfg.ckpt)
    labels, parts = validated(cfg, stored)
    import torch

    from diffusion_lab.generate.model import TrainedClassifier
    from diffusion_lab.loading import device_of, restored

    model = restored(checkpoint, cfg.weights, device_of(cfg.device), cfg.trust, **parts)
    if isinstance(model, TrainedClassifier):
        model.sample(1)  # refuses, with what to type instead
    count = _count(cfg)
    began = time.perf_counter()
    with torch.no_grad():
        try:
            given = _given(cfg, model, labels, count, stored)
            start = _start(cfg, model, given, count, stored)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        out = _write(cfg, model, given, count, start, parts)
    seconds = time.perf_counter() - began
    kind = "point" if _are_points(model) else "image"
    drawn = f"1 {kind}" if count == 1 else f"{count} {kind}s"
    print(f"{drawn} ({cfg.weights} weights, seed {cfg.seed}) in {seconds:.1f} s -> {out}")
    return out


def validated(cfg: DictConfig, stored: dict[str, Any]) -> tuple[Tensor | None, dict[str, Any]]:
    """The class of each sample, and what was built of the model, see `_PARTS`.

    Args:
        cfg: A config of `conf/sample.yaml`.
        stored: The configuration of the training that the checkpoint is of.

    Raises:
        ConfigError: Everything wrong with the request.
    """
    own: dict[str, Any] = {
        str(key): cfg._get_node(key) for key in cfg if key not in ("hydra", "ckpt", "label")
    }
    trained = {key: stored[key] for key in _TRAINED if key in stored}
    found, objects = checked(OmegaConf.create({**trained, **own}))
    data = trained.get("data") or {}
    labels = None
    try:
        labels = _labels(cfg, data.get("num_classes"))
    except (ValueError, TypeError, RuntimeError) as error:
        text = str(error)
        found.append(text if text.startswith("label=") else f"label={shown(cfg.label)}: {text}")
    found += _errors(cfg, data.get("shape"))
    found += _faults_of_given(cfg, stored.get("denoiser") or {})
    if found:
        refuse(found)
    return labels, {name: objects.get(name) for name in _PARTS}


def _labels(cfg: DictConfig, classes: int | None) -> Tensor | None:
    """The class of each sample."""
    import torch

    from diffusion_lab.generate.labels import expand_labels, typed_label

    label = typed_label(cfg.label, classes)
    if type(cfg.interpolate) is not int or not isinstance(cfg.num_samples, int | None):
        return expand_labels(label, 1, classes)  # what is wrong with these is told elsewhere
    count = max(1, _count(cfg))
    if cfg.interpolate and label == "all":  # one class a way; images bring theirs along
        rows = torch.arange(count) // cfg.interpolate % (classes or 1)
        label = None if cfg.image is not None else rows
    return expand_labels(label, count, classes)


def _errors(cfg: DictConfig, shape: Sequence[int] | None) -> list[str]:
    """What is wrong with the file, the start and the devices that are asked for."""
    found = _faults_of_out(cfg, shape)
    if type(cfg.interpolate) is int and isinstance(cfg.num_samples, int | None):  # else told above
        found += _faults_of_start(cfg, shape)
    film = Path(str(cfg.out)).suffix.lower() in (".gif", ".webp")
    if cfg.devices != 1 and (cfg.strip or film):
        found.append(f"devices={cfg.devices} share grids and arrays; leave it out of films, strips")
    if str(cfg.device) not in ("auto", "cpu", "mps") and not str(cfg.device).startswith("cuda"):
        hint = nearest(str(cfg.device), ["auto", "cpu", "cuda", "mps"])
        found.append(f"device={cfg.device} must be auto, cpu, cuda, cuda:1 or mps{hint}")
    return found


def _faults_of_out(cfg: DictConfig, shape: Sequence[int] | None) -> list[str]:
    """What is wrong with the file asked for, given the shape of a sample."""
    from diffusion_lab.reporting.pictures import refuse_shape

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
    return found


def _faults_of_start(cfg: DictConfig, shape: Sequence[int] | None) -> list[str]:
    """What is wrong with the images to start from."""
    found = []
    images = 0 if cfg.image is None else len(cfg.image) if OmegaConf.is_list(cfg.image) else 1
    for name in ("start", "known"):
        if cfg[name] is not None and not images:
            found.append(f"{name}={cfg[name]} needs an image: image=FILE or image=test:7")
        if cfg[name] is not None and cfg.interpolate:
            found.append(f"{name}={cfg[name]} and interpolate={cfg.interpolate} exclude each other")
    if images and not cfg.interpolate and cfg.start is None and cfg.known is None:
        found.append(
            f"image={cfg.image}: say what is to be done with it: start=0.6 (go on from it), "
            "known=left (paint the rest), or interpolate=8 with two images"
        )
    if cfg.interpolate and (cfg.interpolate < 2 or images not in (0, 2)):
        found.append(
            f"interpolate={cfg.interpolate} must be 0 or at least 2, without image or with two"
        )
    if cfg.interpolate > 1 and not images and _count(cfg) % cfg.interpolate:
        found.append(
            f"num_samples={_count(cfg)} must be a multiple of interpolate={cfg.interpolate}"
        )
    if (images or cfg.interpolate) and cfg.strip:
        found.append(f"strip={cfg.strip} shows ways from noise: leave image and interpolate out")
    if images and shape and len(shape) != 3:
        found.append(f"image={cfg.image}: this model's samples are points; leave it out")
    return found


def _faults_of_given(cfg: DictConfig, denoiser: dict[str, Any]) -> list[str]:
    """What is wrong with the conditions beside the class, given the network's stored node."""
    from diffusion_lab.generate.given import taken, typed_vector

    found, takes = [], taken(denoiser)
    for key, part in (("vector", 0), ("condition_image", 1)):
        if cfg[key] is not None and takes is not None and not takes[part]:
            found.append(f"{key}={cfg[key]}: this model was trained without one; leave it out")
    if cfg.vector is not None and not found:
        try:
            typed_vector(_plain(cfg.vector), takes[0] if takes else None)
        except ValueError as error:
            found.append(str(error))
    return found


def _given(
    cfg: DictConfig,
    model: TrainedModel,
    labels: Tensor | None,
    count: int,
    stored: dict[str, Any],
) -> Condition:
    """The conditions of each sample."""
    from diffusion_lab.diffusion.conditions import Condition
    from diffusion_lab.generate.given import expand_given, held_out_condition, taken, typed_vector

    vector = None if cfg.vector is None else typed_vector(_plain(cfg.vector))
    image = None
    if cfg.condition_image is not None:
        from diffusion_lab.generate.image_inputs import typed_images

        takes = taken(stored["denoiser"])
        channels = takes[1] if takes else model.shape[0]
        names = _names(cfg.condition_image)
        image = typed_images(
            names, (channels, *model.shape[1:]), lambda: _data(cfg, stored),
            "condition_image", held_out_condition,
        )  # fmt: skip
    told = expand_given(None, Condition(vector=vector, image=image), count, model.num_classes)
    return told._replace(label=labels)


def _plain(typed: Any) -> Any:
    """A value as typed, lists of a configuration as plain ones."""
    return OmegaConf.to_container(typed) if OmegaConf.is_list(typed) else typed


def _names(typed: Any) -> list[str]:
    """One name or a list of them, as typed."""
    return [str(name) for name in (typed if OmegaConf.is_list(typed) else [typed])]


def _data(cfg: DictConfig, stored: dict[str, Any]) -> Any:
    """The data module of the training, its files where they are now."""
    places = {"data_dir": cfg.paths.data_dir, "cache": None}
    node = {key: places.get(key, value) for key, value in stored["data"].items()}
    return build(node, "data", cfg.trust)


def _start(
    cfg: DictConfig,
    model: TrainedModel,
    given: Condition,
    count: int,
    stored: dict[str, Any],
) -> Any:
    """Where sampling starts, see `generate.image_inputs`; None for noise."""
    if cfg.image is None and not cfg.interpolate:
        return None
    from diffusion_lab.generate.image_inputs import typed_images, typed_start

    images = None
    if cfg.image is not None:
        images = typed_images(_names(cfg.image), model.shape, lambda: _data(cfg, stored))
    return typed_start(
        model, count, given, cfg.seed,
        images=images, time=cfg.start, known=cfg.known, interpolate=cfg.interpolate,
    )  # fmt: skip


def _count(cfg: DictConfig) -> int:
    if cfg.interpolate and cfg.image is not None:
        return int(cfg.interpolate)
    if cfg.num_samples is not None:
        return int(cfg.num_samples)
    return 10 if cfg.strip else 100


def _are_points(model: TrainedModel) -> bool:
    return len(model.drawing.shape) == 1


def _write(
    cfg: DictConfig,
    model: TrainedModel,
    given: Condition,
    count: int,
    start: Any,
    parts: dict[str, Any],
) -> Path:
    """Draw and write the kind of file that `out` names."""
    from diffusion_lab.generate.multi_device import Request, draw
    from diffusion_lab.loading import source_of
    from diffusion_lab.reporting.animations import save_film
    from diffusion_lab.reporting.grids import save_picture

    out, labels = Path(str(cfg.out)).expanduser(), given.label
    out.parent.mkdir(parents=True, exist_ok=True)
    size = int(cfg.batch_size or max(BATCH, BATCH_NUMBERS // math.prod(model.drawing.shape)))
    if cfg.strip:
        return save_picture(out, _strip(model, given, count, cfg.seed, size, cfg.strip))
    if out.suffix.lower() in (".gif", ".webp"):
        from diffusion_lab.generate.moments import moments

        _, states, estimates = moments(model, given, count, cfg.seed, size, cfg.frames, start)
        frames = [*states, estimates[-1]]
        return save_film(out, map(_pictures(cfg, model, labels, frames), frames))
    source = source_of(cfg.ckpt, cfg.weights, cfg.trust, **parts)
    request = Request(count, given, cfg.seed, size, start)
    samples = draw(model, source, cfg.devices, request).samples
    if out.suffix.lower() == ".npz":
        return save_arrays(out, samples, labels)
    return save_picture(out, _pictures(cfg, model, labels, [samples])(samples))


def _pictures(
    cfg: DictConfig, model: TrainedModel, labels: Tensor | None, frames: list[Tensor]
) -> Callable[[Tensor], Image]:
    """How a set of samples becomes a picture; points of all frames share one window."""
    if _are_points(model):
        from diffusion_lab.reporting.points import scatter_image, window

        return partial(scatter_image, labels=labels, limit=window(frames))
    from diffusion_lab.reporting.grids import image_grid

    return partial(image_grid, columns=int(cfg.columns or _columns(cfg, model, len(frames[0]))))


def _columns(cfg: DictConfig, model: TrainedModel, count: int) -> int:
    """One class a column where classes cycle, one way a row, else about square."""
    if cfg.interpolate:
        return int(cfg.interpolate)
    if cfg.label == "all" and model.drawing.num_classes:
        from diffusion_lab.reporting.grids import class_columns

        return min(class_columns(model.drawing.num_classes), count)
    return max(1, round(math.sqrt(count)))


def _strip(
    model: TrainedModel, given: Condition, count: int, seed: int, size: int, number: int
) -> Image:
    from diffusion_lab.generate.moments import moments

    times, states, estimates = moments(model, given, count, seed, size, number)
    if _are_points(model):
        from diffusion_lab.reporting.points import moments_image

        return moments_image(states, estimates, times, given.label)
    from diffusion_lab.reporting.strips import strip_image

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
