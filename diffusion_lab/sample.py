"""Draw samples: `python -m diffusion_lab.sample ckpt=PATH label=7 out=sevens.png`.

The checkpoint's path is enough: its sampler, guidance and constraint stand in front of what is
typed. The ending of `out` says what is written: .png a grid (or `strip=N` moments of each
trajectory), .npz the arrays, .gif or .webp an animation of the denoising.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from diffusion_lab.config import ConfigError, check, instantiate, refuse, run
from diffusion_lab.config.rules import shown
from diffusion_lab.config.stored import stored_config, without_checkpoint
from diffusion_lab.config.suggestions import nearest
from diffusion_lab.reporting.files import write_atomically

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from torch import Tensor

    from diffusion_lab.sampling.sampler import Step
    from diffusion_lab.training.module import DiffusionModule

ENDINGS = (".png", ".npz", ".gif", ".webp")
BATCH = 256
"""Images at a time where `batch_size` is null."""


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
    labels = expand_labels(label, count, model.num_classes)
    began = time.perf_counter()
    with torch.no_grad():
        out = _write(cfg, model, labels, count)
    seconds = time.perf_counter() - began
    images = "1 image" if count == 1 else f"{count} images"
    print(f"{images} ({cfg.weights} weights, seed {cfg.seed}) in {seconds:.1f} s -> {out}")
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
    out = Path(str(cfg.out))
    if out.suffix.lower() not in ENDINGS:
        found.append(f"out={out} must end in one of {', '.join(ENDINGS)}")
    elif cfg.strip and out.suffix.lower() != ".png":
        found.append(f"strip={cfg.strip} makes a picture: out={out} must end in .png")
    if str(cfg.device) not in ("auto", "cpu", "mps") and not str(cfg.device).startswith("cuda"):
        hint = nearest(str(cfg.device), ["auto", "cpu", "cuda", "mps"])
        found.append(f"device={cfg.device} must be auto, cpu, cuda, cuda:1 or mps{hint}")
    return found


def label_of(label: Any, num_classes: int | None) -> Any:
    """The label as `expand_labels` takes it; `all` means no class where there are none."""
    if OmegaConf.is_list(label):
        return list(label)
    if label == "all" and num_classes is None:
        return None
    return label


def _count(cfg: DictConfig) -> int:
    if cfg.num_samples is not None:
        return int(cfg.num_samples)
    return 10 if cfg.strip else 100


def loaded(cfg: DictConfig) -> DiffusionModule:
    """The checkpoint's model on its device, drawing by the config's sampler and guidance."""
    from diffusion_lab.training.checkpoint import load

    model = load(cfg.ckpt, cfg.weights, _device(cfg.device), cfg.trust)
    names = ("sampler", "guidance", "constraint")
    parts = {name: instantiate(cfg[name], trust=cfg.trust) for name in names}
    model.drawing = replace(model.drawing, **parts)
    return model


def _device(name: str) -> Any:
    import torch

    if name != "auto":
        wanted = torch.device(name)
        if wanted.type == "cuda" and not torch.cuda.is_available():
            raise ConfigError(f"device={name}: there is no CUDA device here; use device=cpu")
        return wanted
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _write(cfg: DictConfig, model: DiffusionModule, labels: Tensor | None, count: int) -> Path:
    """Draw and write the kind of file that `out` names."""
    from diffusion_lab.reporting.animations import save_animation
    from diffusion_lab.reporting.grids import save_grid, save_picture
    from diffusion_lab.reporting.strips import strip_image

    out = Path(str(cfg.out)).expanduser()
    out.parent.mkdir(parents=True, exist_ok=True)
    size = int(cfg.batch_size or BATCH)
    columns = int(cfg.columns or _columns(cfg, model, count))
    if cfg.strip:
        states = _moments(model, labels, count, cfg.seed, size, cfg.strip)
        return save_picture(out, strip_image(([s[0] for s in states], [s[1] for s in states])))
    if out.suffix.lower() in (".gif", ".webp"):
        states = _moments(model, labels, count, cfg.seed, size, cfg.frames)
        return save_animation(out, [*(s[0] for s in states), states[-1][1]], columns)
    images = model.sample(count, labels, seed=cfg.seed, batch_size=size).cpu()
    if out.suffix.lower() == ".npz":
        return save_arrays(out, images, labels)
    return save_grid(out, images, columns)


def _columns(cfg: DictConfig, model: DiffusionModule, count: int) -> int:
    """One class a column where classes cycle, else about square."""
    if cfg.label == "all" and model.num_classes:
        return min(model.num_classes, count)
    return max(1, round(count**0.5))


def _moments(
    model: DiffusionModule, labels: Tensor | None, count: int, seed: int, size: int, number: int
) -> list[tuple[Tensor, Tensor]]:
    """(x_t, x0-hat), each (count, *shape), at `number` steps spread over every trajectory."""
    import torch

    from diffusion_lab.reporting.strips import spread

    batches: list[list[tuple[Tensor, Tensor]]] = []
    for first in range(0, count, size):
        n = min(size, count - first)
        chosen = None if labels is None else labels[: first + n]
        steps = _states(model.trajectory(n, chosen, seed=seed, first=first))
        batches.append(steps)
    picked = spread(len(batches[0]), number)
    return [
        (torch.cat([b[k][0] for b in batches]), torch.cat([b[k][1] for b in batches]))
        for k in picked
    ]


def _states(steps: Iterator[Step]) -> list[tuple[Tensor, Tensor]]:
    """The state and the estimate at each evaluation, on the CPU."""
    return [(step.x_t.float().cpu(), step.x0.float().cpu()) for step in steps]


def save_arrays(path: Path, images: Tensor, labels: Tensor | None) -> Path:
    """Write `samples` float32 (N, *shape) and `labels` int64 (N,), -1 for no class; atomically."""
    import numpy as np

    numbers = np.full(len(images), -1) if labels is None else labels.numpy()
    buffer = io.BytesIO()
    np.savez_compressed(buffer, samples=images.float().numpy(), labels=numbers.astype(np.int64))
    return write_atomically(path, buffer.getvalue())


def main() -> None:
    """The command line."""
    run("sample", sample)


if __name__ == "__main__":
    main()
