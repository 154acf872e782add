"""Score samples of a trained model: `python -m diffusion_lab.evaluate ckpt=PATH`.

The steps, in order: refuse what cannot run, load the model and the data it was trained on, get
the yardstick (a classifier of that data, trained once and kept), draw, score, write.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from diffusion_lab.config import ConfigError, check, instantiate, refuse, run
from diffusion_lab.config.stored import stored_config, without_checkpoint

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from diffusion_lab.data.module import ImageDataModule
    from diffusion_lab.metrics.features import Yardstick


def evaluate(cfg: DictConfig) -> dict[str, Any]:
    """Score what a config describes, print the figures and write them.

    Args:
        cfg: A config of `conf/evaluate.yaml`.

    Returns:
        The figures of `metrics.scores.score`, and `seconds` that drawing took.

    Raises:
        ConfigError: The config cannot run; the message holds every fault.
    """
    if not cfg.ckpt:
        raise ConfigError(without_checkpoint("evaluate", str(cfg.paths.output_dir)))
    refuse(_faults(cfg))
    from diffusion_lab.metrics.scores import score
    from diffusion_lab.sample import label_of, loaded
    from diffusion_lab.training.labels import expand_labels

    try:
        module = loaded(cfg)
        labels = expand_labels(
            label_of(cfg.label, module.num_classes), cfg.num_samples, module.num_classes
        )
        measure = _yardstick(_data(cfg), cfg)
        start = time.perf_counter()
        samples = module.sample(
            cfg.num_samples, labels, seed=cfg.seed, batch_size=cfg.batch_size
        ).cpu()
        seconds = time.perf_counter() - start
        figures = score(measure, samples, labels) | {"seconds": round(seconds, 2)}
    except ValueError as error:
        raise ConfigError(str(error)) from None
    path = _write(figures, cfg)
    print(f"{_table(figures)}\n\n{path}")
    return figures


def _faults(cfg: DictConfig) -> list[str]:
    """Everything wrong with a request, against the model that the checkpoint describes."""
    own = {key: cfg._get_node(key) for key in cfg if key not in ("hydra", "ckpt", "label")}
    trained = {
        key: value
        for key, value in stored_config().items()
        if key in ("schedule", "parameterization", "denoiser")
    }
    found: list[str] = check(OmegaConf.create({**trained, **own}))
    if isinstance(cfg.num_samples, int) and cfg.num_samples < 2:
        found.append(f"num_samples={cfg.num_samples}: a distance needs at least 2, better 1000")
    return found


def _data(cfg: DictConfig) -> ImageDataModule:
    """The data a model was trained on: its stand-in where that is what it was trained on."""
    from diffusion_lab.data.digits import Digits
    from diffusion_lab.training.checkpoint import read_checkpoint

    data: ImageDataModule = instantiate(cfg.data, trust=cfg.trust)
    source = read_checkpoint(cfg.ckpt)["diffusion_lab"].get("data") or {}
    if source.get("fallback") and source["name"] == "digits":
        print("This model was trained on the embedded digits and is compared with those.")
        data = Digits(shape=data.shape, num_classes=data.num_classes)
    data.prepare_data()
    return data


def _yardstick(data: ImageDataModule, cfg: DictConfig) -> Yardstick:
    from rich.progress import Progress

    from diffusion_lab.data.files import user_cache_dir
    from diffusion_lab.metrics.features import RealImages, yardstick

    images = data.images
    real = RealImages(*images[:4], num_classes=len(data.class_names))
    beside = Path(cfg.paths.data_dir).expanduser()
    # A folder marked read-only is left alone, also by a user who could write to it.
    writable = beside.is_dir() and beside.stat().st_mode & 0o222
    folders = [beside, user_cache_dir()] if writable else [user_cache_dir()]
    with Progress(transient=True) as bar:
        task = bar.add_task(f"training a classifier of {images.name}, once", visible=False)

        def show(step: int, steps: int, loss: float) -> None:
            bar.update(task, completed=step, total=steps, visible=True)

        return yardstick(real, folders, progress=show)


def _write(figures: dict[str, Any], cfg: DictConfig) -> Path:
    from diffusion_lab.reporting.files import write_atomically

    folder = Path(cfg.ckpt).parent
    folder = folder.parent if folder.name == "checkpoints" else folder
    path = Path(cfg.out).expanduser() if cfg.out else folder / "metrics.json"
    keys = ("ckpt", "weights", "label", "seed", "sampler", "guidance", "constraint")
    how = OmegaConf.to_container(OmegaConf.masked_copy(cfg, keys), resolve=True)
    return write_atomically(path, json.dumps({**figures, "settings": how}, indent=2).encode())


def _table(figures: dict[str, Any]) -> str:
    """The figures as lines: name, value, meaning."""
    count, agreement = figures["fd_count"], figures["agreement"]
    rows = [
        (
            "class agreement",
            "-" if agreement is None else f"{agreement:.2%}",
            f"read as asked; the classifier reads {figures['classifier_test_accuracy']:.2%} "
            "of the test set",
        ),
        ("Fréchet distance", f"{figures['fd']:.3f}", "to the training set, in its features"),
        ("... of real images", f"{figures['fd_test']:.3f}", f"the first {count} test images"),
        ("ratio of the two", f"{figures['fd_ratio']:.2f}", f"of {count} images each; 1 is ideal"),
        ("seconds", f"{figures['seconds']:.1f}", f"to draw {figures['num_samples']}"),
    ]
    return "\n".join(f"{name:<20}{value:>9}   {meaning}" for name, value, meaning in rows)


def main() -> None:
    """The command line."""
    run("evaluate", evaluate)


if __name__ == "__main__":
    sys.exit(main())
