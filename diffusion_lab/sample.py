"""Draw samples: `python -m diffusion_lab.sample ckpt=PATH label=7 out=sevens.png`.

The checkpoint's path is enough: its sampler, guidance and constraint stand in front of what is
typed. The ending of `out` says what is written: .png a grid (or `strip=N` moments of each
trajectory), .npz the arrays, .gif or .webp an animation of the denoising. Images are laid out in
grids; points in the plane are one cloud.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from diffusion_lab.config import check, instantiate, refuse, run
from diffusion_lab.config.rules import shown
from diffusion_lab.config.stored import stored_config, without_checkpoint
from diffusion_lab.config.suggestions import nearest
from diffusion_lab.errors import ConfigError
from diffusion_lab.reporting.files import write_atomically

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from PIL.Image import Image
    from torch import Tensor

    from diffusion_lab.training.module import DiffusionModule

ENDINGS = (".png", ".npz", ".gif", ".webp")
BATCH, BATCH_NUMBERS = 256, 2**16
"""Where `batch_size` is null: images at a time, and more of what has fewer numbers than that."""


def sample(cfg: DictConfig) -> Path:
    """Draw what a config describes.

    Args:
        cfg: A config of `conf/sample.yaml`.

    Returns:
        The file written.

    Raises:
        ConfigError: The config cannot run; the message holds every fault.
        CheckpointError: The checkpoint is damaged, or lacks these weights.
    """
    if not cfg.ckpt:
        raise ConfigError(without_checkpoint("sample", str(cfg.paths.output_dir)))
    refuse(faults(cfg))
    import torch

    from diffusion_lab.training.labels import expand_labels

    model = loaded(cfg)
    count, label = _count(cfg), label_of(cfg.label, model.num_classes)
    if cfg.interpolate and label == "all":  # one class a way; images bring theirs along
        rows = torch.arange(count) // cfg.interpolate % (model.num_classes or 1)
        label = None if cfg.image is not None else rows
    labels = expand_labels(label, count, model.num_classes)
    began = time.perf_counter()
    with torch.no_grad():
        out = _write(cfg, model, labels, count, _start(cfg, model, labels, count))
    seconds = time.perf_counter() - began
    kind = "point" if _are_points(model) else "image"
    drawn = f"1 {kind}" if count == 1 else f"{count} {kind}s"
    print(f"{drawn} ({cfg.weights} weights, seed {cfg.seed}) in {seconds:.1f} s -> {out}")
    return out


def faults(cfg: DictConfig) -> list[str]:
    """Everything wrong with a request, against the model that the checkpoint describes."""
    own: dict[str, Any] = {
        key: cfg._get_node(key) for key in cfg if key not in ("hydra", "ckpt", "label")
    }
    trained = {
        key: value
        for key, value in stored_config().items()
        if key in ("schedule", "parameterization", "denoiser", "data")
    }
    found = check(OmegaConf.create({**trained, **own}))
    classes = (trained.get("data") or {}).get("num_classes")
    from diffusion_lab.training.labels import expand_labels

    try:
        expand_labels(label_of(cfg.label, classes), 1, classes)
    except (ValueError, TypeError, RuntimeError) as error:
        text = str(error)
        found.append(text if text.startswith("label=") else f"label={shown(cfg.label)}: {text}")
    found += _faults_of_out(cfg, (trained.get("data") or {}).get("shape"))
    if type(cfg.interpolate) is int and isinstance(cfg.num_samples, int | None):  # else told above
        found += _faults_of_start(cfg, (trained.get("data") or {}).get("shape"))
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


def _start(cfg: DictConfig, model: DiffusionModule, labels: Tensor | None, count: int) -> Any:
    """Where sampling starts, see `training.given_images`; None for noise."""
    from diffusion_lab.training.given_images import typed_images, typed_start

    images = None
    if cfg.image is not None:
        names = list(cfg.image) if OmegaConf.is_list(cfg.image) else str(cfg.image)
        stored = stored_config()["data"]
        images = typed_images(names, model.shape, lambda: instantiate(stored, trust=cfg.trust))
    return typed_start(
        model, count, labels, cfg.seed,
        images=images, time=cfg.start, known=cfg.known, interpolate=cfg.interpolate,
    )  # fmt: skip


def label_of(label: Any, num_classes: int | None) -> Any:
    """The label as `expand_labels` takes it; `all` means no class where there are none."""
    if OmegaConf.is_list(label):
        return list(label)
    if label == "all" and num_classes is None:
        return None
    return label


def _count(cfg: DictConfig) -> int:
    if cfg.interpolate and cfg.image is not None:
        return int(cfg.interpolate)
    if cfg.num_samples is not None:
        return int(cfg.num_samples)
    return 10 if cfg.strip else 100


def loaded(cfg: DictConfig) -> DiffusionModule:
    """The checkpoint's model on its device, drawing by the config's sampler and guidance."""
    from diffusion_lab.training.checkpoint import load

    model = load(cfg.ckpt, cfg.weights, device_of(cfg.device), cfg.trust)
    names = ("sampler", "guidance", "constraint")
    parts = {name: instantiate(cfg[name], trust=cfg.trust) for name in names}
    model.drawing = replace(model.drawing, **parts)
    return model


def source_of(cfg: DictConfig) -> Callable[[str], DiffusionModule]:
    """`loaded`, for the processes of other devices."""
    return partial(_loaded_on, OmegaConf.to_container(cfg, resolve=True))


def _loaded_on(plain: dict[str, Any], device: str) -> DiffusionModule:
    return loaded(OmegaConf.create({**plain, "device": device}))


def device_of(name: str) -> Any:
    """The torch device meant by cpu, cuda, mps or auto.

    Raises:
        ConfigError: There is no such device here.
    """
    import torch

    if name != "auto":
        wanted = torch.device(name)
        if wanted.type == "cuda" and not torch.cuda.is_available():
            raise ConfigError(f"device={name}: there is no CUDA device here; use device=cpu")
        return wanted
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _are_points(model: DiffusionModule) -> bool:
    return len(model.shape) == 1


def _write(
    cfg: DictConfig, model: DiffusionModule, labels: Tensor | None, count: int, start: Any
) -> Path:
    """Draw and write the kind of file that `out` names."""
    from diffusion_lab.reporting.animations import save_film
    from diffusion_lab.reporting.grids import save_picture
    from diffusion_lab.training.sharing import Request, draw

    out = Path(str(cfg.out)).expanduser()
    out.parent.mkdir(parents=True, exist_ok=True)
    size = int(cfg.batch_size or max(BATCH, BATCH_NUMBERS // prod(model.shape)))
    if cfg.strip:
        return save_picture(out, _strip(model, labels, count, cfg.seed, size, cfg.strip))
    if out.suffix.lower() in (".gif", ".webp"):
        _, states, estimates = _moments(model, labels, count, cfg.seed, size, cfg.frames, start)
        frames = [*states, estimates[-1]]
        draw = _pictures(cfg, model, labels, frames)
        return save_film(out, map(draw, frames))
    request = Request(count, labels, cfg.seed, size, start)
    samples = draw(model, source_of(cfg), cfg.devices, request).samples
    if out.suffix.lower() == ".npz":
        return save_arrays(out, samples, labels)
    return save_picture(out, _pictures(cfg, model, labels, [samples])(samples))


def _pictures(
    cfg: DictConfig, model: DiffusionModule, labels: Tensor | None, frames: list[Tensor]
) -> Callable[[Tensor], Image]:
    """How a set of samples becomes a picture; points of all frames share one window."""
    if _are_points(model):
        from diffusion_lab.reporting.points import scatter_image, window

        return partial(scatter_image, labels=labels, limit=window(frames))
    from diffusion_lab.reporting.grids import image_grid

    return partial(image_grid, columns=int(cfg.columns or _columns(cfg, model, len(frames[0]))))


def _columns(cfg: DictConfig, model: DiffusionModule, count: int) -> int:
    """One class a column where classes cycle, one way a row, else about square."""
    if cfg.interpolate:
        return int(cfg.interpolate)
    if cfg.label == "all" and model.num_classes:
        from diffusion_lab.reporting.grids import class_columns

        return min(class_columns(model.num_classes), count)
    return max(1, round(count**0.5))


def _strip(
    model: DiffusionModule, labels: Tensor | None, count: int, seed: int, size: int, number: int
) -> Image:
    times, states, estimates = _moments(model, labels, count, seed, size, number)
    if _are_points(model):
        from diffusion_lab.reporting.points import moments_image

        return moments_image(states, estimates, times, labels)
    from diffusion_lab.reporting.strips import strip_image

    return strip_image((states, estimates))


def _moments(
    model: DiffusionModule,
    labels: Tensor | None,
    count: int,
    seed: int,
    size: int,
    number: int,
    start: Any = None,
) -> tuple[list[float], list[Tensor], list[Tensor]]:
    """t, x_t and x0-hat, each (count, *shape), at `number` steps spread over every trajectory."""
    import torch

    from diffusion_lab.reporting.spread import spread

    sampler = model.drawing.sampler
    assert sampler is not None, "`loaded` gives the model one"
    begin = None if start is None else start.time
    times = sampler.times(model.diffusion.schedule, begin)
    # Only what is shown is kept: all of 1,000 steps of 100 images would be 600 MB. A pair of times
    # that rises is forward noise and yields no step.
    picked = spread(int((times[1:] < times[:-1]).sum()), number)
    moments: list[float] = []
    states: list[list[Tensor]] = [[] for _ in picked]
    estimates: list[list[Tensor]] = [[] for _ in picked]
    for first in range(0, count, size):
        n = min(size, count - first)
        chosen = None if labels is None else labels[: first + n]
        moments = []
        for k, step in enumerate(model.trajectory(n, chosen, seed=seed, first=first, start=start)):
            if k in picked:
                states[len(moments)].append(step.x_t.float().cpu())
                estimates[len(moments)].append(step.x0.float().cpu())
                moments.append(float(step.t.t.mean()))
    return moments, [torch.cat(parts) for parts in states], [torch.cat(p) for p in estimates]


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
