"""Train a diffusion model: `python -m diffusion_lab.train experiment=cfg_guidance`.

The steps, in order: refuse what cannot run, open the run folder, build everything, fit, tell where
everything is. Nothing heavy is imported before the config has been found sound.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from diffusion_lab.config.building import instantiate
from diffusion_lab.config.checking import check, refuse
from diffusion_lab.config.main import run
from diffusion_lab.errors import ConfigError, UserError
from diffusion_lab.runs.folder import is_rank_zero, open_run, typed_now
from diffusion_lab.runs.launching import SweepLaunch
from diffusion_lab.runs.sweeps import job

if TYPE_CHECKING:
    from lightning import LightningDataModule, Trainer
    from omegaconf import DictConfig

    from diffusion_lab.checkpoints.starting import WarmStart
    from diffusion_lab.runs.leaderboard import Goal, Job


_COUNTERS = (("step", "global_step"), ("epoch", "current_epoch"))
"""Key of summary.json, attribute of the trainer."""


def train(cfg: DictConfig) -> dict[str, float]:
    """Train what a config describes.

    Args:
        cfg: A config of `conf/train.yaml`; `run_dir` and `trainer.precision` are filled in.

    Returns:
        The last value of every logged metric.

    Raises:
        ConfigError: The config cannot run, the message holds every fault; or memory ran out.
        CheckpointError: `resume` names no good checkpoint, or the weights of `init_from` do not
            fit the network.
    """
    refuse(check(cfg))
    typed, choices = typed_now()
    settle_precision(cfg)
    checkpoint, step = _resumed(cfg)
    start = _start(cfg) if checkpoint is None else None
    folder = open_run(cfg, typed, choices)
    _say(f"{cfg.name} (budget={cfg.get('budget')}, seed={cfg.seed}) -> {folder}")

    import torch

    from diffusion_lab.loading import build_training
    from diffusion_lab.training.reproducibility import set_global_flags

    set_global_flags(cfg.seed, deterministic=bool(cfg.trainer.get("deterministic")))
    if checkpoint is not None:
        _say(f"Going on from step {step}: {checkpoint}")
    plain: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    data: LightningDataModule = instantiate(cfg.data, trust=cfg.trust, path="data")
    model = build_training(plain, trust=cfg.trust)
    if start is not None:
        model.start_from(start)
        _say(f"Starting from the weights of {start.path} (step {start.step})")
    model.describe_run(plain, choices)
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


def _start(cfg: DictConfig) -> WarmStart | None:
    """The weights of `init_from`, found to fit; sets the key to the file that it means.

    Raises:
        CheckpointError: There is no such checkpoint, or it does not fit the network.
    """
    if not cfg.get("init_from"):
        return None
    from diffusion_lab.checkpoints.starting import load_start, read_start
    from diffusion_lab.loading import build_training

    start = read_start(cfg.init_from, Path(str(cfg.paths.output_dir)))
    plain: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    load_start(start, build_training(plain, trust=cfg.trust))
    cfg.init_from = str(start.path)
    return start


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
    """A callback; what its constructor refuses is what somebody wrote."""
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
    import torch

    if torch.cuda.is_available() and cfg.trainer.get("accelerator") != "cpu":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        fast = bool(known.get("avx512_bf16") or known.get("amx_bf16"))
    cfg.trainer.precision = "bf16-mixed" if fast else "32-true"


def _tell(folder: Path, data: LightningDataModule, trainer: Trainer) -> None:
    """Where everything is, and what to type next."""
    from diffusion_lab.files import read_record
    from diffusion_lab.runs.records import grids

    drawn, record = grids(folder), read_record(folder / "summary.json")
    # Spawned processes leave their trainer here as it was; the record tells of them too.
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
    _say(f"\nNext:\n  python -m diffusion_lab.sample {module.next_words(folder)}")


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
