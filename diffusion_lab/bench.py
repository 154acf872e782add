"""`python -m diffusion_lab.bench`: how fast a config trains and samples on this machine.

The steps, in order: check the config, train a little with the Trainer and a bare PyTorch loop in
turns, draw samples, print a table and write it as JSON. No run folder is left.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf, open_dict

from diffusion_lab.config.building import instantiate
from diffusion_lab.config.checking import check, raise_errors
from diffusion_lab.config.main import run
from diffusion_lab.errors import ConfigError

if TYPE_CHECKING:
    from diffusion_lab.training.benchmark import Benchmark


def bench(cfg: DictConfig) -> dict[str, Any]:
    """Measure what `cfg` describes; its trainer, callbacks and `run_dir` are changed.

    Returns:
        What was written: config name, device, threads, precision, batch size, and the speeds.

    Raises:
        ConfigError: The config cannot run; the message holds every error.
    """
    raise_errors(check(cfg))
    from diffusion_lab.files import write_atomically
    from diffusion_lab.loading import settle_precision
    from diffusion_lab.training.benchmark import table

    settle_precision(cfg)
    benchmark: Benchmark = instantiate(cfg.bench, trust=cfg.trust)
    with tempfile.TemporaryDirectory() as folder:
        _shorten(cfg, folder)
        record = _benchmarked(cfg, benchmark, Path(folder))
    print(table(record))
    path = write_atomically(cfg.bench.out, (json.dumps(record, indent=2) + "\n").encode())
    print(path)
    return record


def _shorten(cfg: DictConfig, folder: str) -> None:
    """Train just long enough; validate, draw and save nothing; write into `folder`."""
    steps = cfg.bench.warmup + cfg.bench.rounds * cfg.bench.steps
    with open_dict(cfg):
        cfg.run_dir = folder
        cfg.trainer.update(max_epochs=-1, max_steps=steps, limit_val_batches=0)
        cfg.trainer.update(limit_train_batches=1.0, accumulate_grad_batches=1, devices=1)
        for name in ("samples", "checkpoints", "progress", "artefacts", "final_samples"):
            cfg.callbacks[name] = None
        cfg.trainer.update(enable_checkpointing=False, enable_progress_bar=False)
        if cfg.callbacks.get("record"):
            cfg.callbacks.record.report = False


def _benchmarked(cfg: DictConfig, benchmark: Benchmark, folder: Path) -> dict[str, Any]:
    """Train and sample; returns how fast."""
    from diffusion_lab.loading import build_training, make_trainer
    from diffusion_lab.runs.environment import hardware, versions
    from diffusion_lab.training.reproducibility import set_global_flags

    set_global_flags(cfg.seed)
    model = build_training(OmegaConf.to_container(cfg, resolve=True), trust=cfg.trust)
    if model.make_optimizer is None or model.drawing.sampler is None:
        raise ConfigError("bench needs an optimizer and a sampler in the config")
    trainer = make_trainer(cfg, folder)
    trainer.callbacks.append(benchmark)
    trainer.fit(model, instantiate(cfg.data, trust=cfg.trust))
    with trainer.precision_plugin.forward_context():
        sampling = benchmark.sampling(model)
    return {
        "name": str(cfg.name),
        "parameters": sum(p.numel() for p in model.parameters()),
        "batch_size": benchmark.batch_size,
        "precision": str(trainer.precision),
        **benchmark.training(),
        **sampling,
        "hardware": hardware(model.device),
        "versions": versions(),
    }


def main() -> None:
    """The command line."""
    run("bench", bench)


if __name__ == "__main__":
    main()
