"""Train a diffusion model: `python -m diffusion_lab.train experiment=cfg_guidance`.

The steps, in order: validate the config, open the run folder, build everything, fit, print where
everything is. Nothing heavy is imported before the config is valid.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusion_lab.config.building import instantiate
from diffusion_lab.config.checking import check, raise_errors
from diffusion_lab.config.composing import plain_data
from diffusion_lab.config.main import run
from diffusion_lab.errors import ConfigError
from diffusion_lab.runs.folder import is_rank_zero, open_run, typed_now
from diffusion_lab.runs.launching import SweepLaunch
from diffusion_lab.runs.sweeps import job

if TYPE_CHECKING:
    from lightning import LightningDataModule, Trainer
    from omegaconf import DictConfig

    from diffusion_lab.runs.leaderboard import Goal, Job
    from diffusion_lab.training.module import DiffusionModule


_COUNTERS = (("step", "global_step"), ("epoch", "current_epoch"))
"""Key of summary.json, attribute of the trainer."""


def train(cfg: DictConfig) -> dict[str, float]:
    """Train what a config describes.

    Args:
        cfg: A config of `conf/train.yaml`; `run_dir` and `trainer.precision` are filled in.

    Returns:
        The last value of every logged metric.

    Raises:
        ConfigError: The config cannot run, the message holds every error; or memory ran out.
        CheckpointError: `resume` names no good checkpoint, or the weights of `init_from` do not
            fit the network.
    """
    raise_errors(check(cfg))
    import torch

    from diffusion_lab.loading import build_training, make_trainer, settle_precision
    from diffusion_lab.training.reproducibility import set_global_flags

    settle_precision(cfg)
    checkpoint, step = _resumed(cfg)
    set_global_flags(cfg.seed, deterministic=bool(cfg.trainer.get("deterministic")))
    started = _started_from_weights(cfg) if checkpoint is None else None
    typed, choices = typed_now()
    folder = open_run(cfg, typed, choices)
    _say(f"{cfg.name} (budget={cfg.get('budget')}, seed={cfg.seed}) -> {folder}")
    if checkpoint is not None:
        _say(f"Going on from step {step}: {checkpoint}")
    data: LightningDataModule = instantiate(cfg.data, trust=cfg.trust, path="data")
    model = started or build_training(plain_data(cfg), trust=cfg.trust)
    if model.init_from:
        _say("Starting from the weights of {path} (step {step})".format(**model.init_from))
    model.describe_run(plain_data(cfg), choices)
    trainer = make_trainer(cfg, folder)
    try:
        trainer.fit(model, data, ckpt_path=checkpoint)
    except torch.OutOfMemoryError as error:
        size = cfg.data.get("batch_size")
        raise ConfigError(f"out of memory at data.batch_size={size}; lower it") from error
    _tell(folder, data, trainer)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def _resumed(cfg: DictConfig) -> tuple[Path | None, int]:
    """The checkpoint that a run goes on from, and its step; None and 0 for a new run.

    Raises:
        CheckpointError: There is none that is good.
        ConfigError: `init_from` is typed beside it, and is not its own.
    """
    if not cfg.resume:
        return None, 0
    from diffusion_lab.checkpoints.format import read_newest

    file, stored = read_newest(cfg.resume)
    if cfg.get("init_from") and not stored["diffusion_lab"].get("init_from"):
        raise ConfigError(
            f"resume={cfg.resume} did not start from other weights: leave out init_from, which "
            "starts a new run"
        )
    return file, int(stored["global_step"])


def _started_from_weights(cfg: DictConfig) -> DiffusionModule | None:
    """The module with the weights of `init_from`; sets the key to the file that it means.

    Raises:
        CheckpointError: There is no such checkpoint, or it does not fit the network.
    """
    if not cfg.get("init_from"):
        return None
    from diffusion_lab.checkpoints.starting import read_start
    from diffusion_lab.loading import build_training

    start = read_start(cfg.init_from, Path(str(cfg.paths.output_dir)))
    model = build_training(plain_data(cfg), trust=cfg.trust)
    model.start_from(start)
    cfg.init_from = str(start.path)
    return model


def _tell(folder: Path, data: LightningDataModule, trainer: Trainer) -> None:
    """Where everything is, and what to type next."""
    from diffusion_lab.files import read_record
    from diffusion_lab.runs.records import grids

    drawn, record = grids(folder), read_record(folder / "summary.json")
    # Spawned processes leave their trainer here as it was; the record counts them too.
    steps, epoch = (record.get(key, getattr(trainer, name)) for key, name in _COUNTERS)
    places = {
        "run folder": folder,
        "last grid": drawn[-1] if drawn else None,
        "report": folder / "report.html",
        "checkpoint": folder / "checkpoints" / "last.ckpt",
    }
    epochs = "1 epoch" if epoch == 1 else f"{epoch} epochs"
    _say(f"\nDone: {steps} steps, {epochs}.")
    for name, place in places.items():
        if place is not None and place.exists():
            _say(f"  {name:<11} {place}")
    fallback = (getattr(data, "source", None) or {}).get("fallback")
    if fallback:
        _say(f"\n!!! {fallback}")
    module: Any = trainer.lightning_module
    words = _next_words(folder, module.diffusion.denoises, module.num_classes)
    _say(f"\nNext:\n  python -m diffusion_lab.sample {words}")


def _next_words(folder: Path, denoises: bool, num_classes: int | None) -> str:
    """What may be typed after `sample` once the run in `folder` has ended."""
    if not denoises:
        return f"ckpt=RUN guidance=classifier guidance.classifier.path={folder} guidance.scale=5"
    label = min(7, (num_classes or 1) - 1)
    words = f"label={label} out=class_{label}.png" if num_classes else "out=samples.png"
    return f"ckpt={folder} num_samples=64 {words}"


def _say(text: str) -> None:
    if is_rank_zero():
        print(text, flush=True)


def _after_sweep(folder: Path, jobs: Sequence[Job], goal: Goal, logger: Mapping[str, Any]) -> None:
    """The report of a sweep, and its run at Weights & Biases where its jobs have theirs."""
    from diffusion_lab.reporting.html import write_report

    try:
        write_report(folder)
    except Exception as error:
        warnings.warn(f"{folder / 'report.html'} could not be written: {error}", stacklevel=1)
    if logger:
        from diffusion_lab.training.loggers.sweep import log_jobs

        log_jobs(folder, jobs, goal, logger)


def main() -> None:
    """The command line."""
    launch = SweepLaunch(_after_sweep)
    run("train", train, prepare=launch.start, job=job, finish=launch.finish)


if __name__ == "__main__":
    main()
