"""``python -m diffusion_lab.bench``: how fast a config trains and samples on this machine.

The steps, in order: refuse what cannot run, train a little with the Trainer and a bare PyTorch
loop taking turns, draw samples, print a table and write it as JSON. No run folder is left.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf, open_dict

from diffusion_lab.config.building import instantiate
from diffusion_lab.config.checking import check, raise_errors
from diffusion_lab.config.main import run
from diffusion_lab.errors import ConfigError

if TYPE_CHECKING:
    from diffusion_lab.training.benchmark import TakingTurns


def bench(cfg: DictConfig) -> dict[str, Any]:
    """Measure what ``cfg`` describes.

    Args:
        cfg: a config of ``conf/bench.yaml``; its trainer, callbacks and ``run_dir`` are changed.

    Returns:
        What was written: config name, device, threads, precision, batch size, and the speeds.

    Raises:
        ConfigError: the config cannot run; the message holds every fault.
    """
    raise_errors(bench_faults(cfg))
    from diffusion_lab.files import write_atomically
    from diffusion_lab.loading import settle_precision
    from diffusion_lab.training.benchmark import TakingTurns

    turns = TakingTurns(cfg.bench.steps, cfg.bench.warmup)
    settle_precision(cfg)
    with tempfile.TemporaryDirectory() as folder:
        _shorten(cfg, folder)
        record = _measured(cfg, turns, Path(folder))
    print(_table(record))
    path = write_atomically(cfg.bench.out, (json.dumps(record, indent=2) + "\n").encode())
    print(path)
    return record


def bench_faults(cfg: DictConfig) -> list[str]:
    """Every fault of the config, those of the node ``bench`` included."""
    return check(cfg)


def _shorten(cfg: DictConfig, folder: str) -> None:
    """Train just long enough, validate, draw and save nothing, write into ``folder``."""
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


def _measured(cfg: DictConfig, turns: TakingTurns, folder: Path) -> dict[str, Any]:
    """Train and sample, and say how fast."""
    from diffusion_lab.loading import build_training, make_trainer
    from diffusion_lab.runs.environment import hardware, versions
    from diffusion_lab.training.benchmark import sampling_seconds
    from diffusion_lab.training.reproducibility import set_global_flags

    set_global_flags(cfg.seed)
    model = build_training(OmegaConf.to_container(cfg, resolve=True), trust=cfg.trust)
    if model.make_optimizer is None or model.drawing.sampler is None:
        raise ConfigError("bench needs an optimizer and a sampler in the config")
    trainer = make_trainer(cfg, folder)
    trainer.callbacks.append(turns)
    trainer.fit(model, instantiate(cfg.data, trust=cfg.trust))
    with trainer.precision_plugin.forward_context():
        pairs = sampling_seconds(model, cfg.bench.num_samples, cfg.bench.sample_rounds)
    sampling = statistics.median(whole for whole, _ in pairs)
    times = model.drawing.sampler.times(model.diffusion.schedule)
    return {
        "name": str(cfg.name),
        "parameters": sum(p.numel() for p in model.parameters()),
        "batch_size": turns.batch_size,
        "precision": str(trainer.precision),
        **turns.result(),
        "samples": cfg.bench.num_samples,
        "sampling_steps": len(times) - 1,
        "sampling_seconds": sampling,
        "sampling_over_network": statistics.median(whole / network for whole, network in pairs),
        "milliseconds_per_step": 1000 * sampling / (len(times) - 1),
        "hardware": hardware(model.device),
        "versions": versions(),
    }


def _table(record: dict[str, Any]) -> str:
    """The numbers as lines for a terminal."""
    share = record.get("logger_share")
    logging = {} if share is None else {"logger, share of training": f"{share:.2%}"}
    rows = {
        "network": f"{record['parameters']:,} parameters",
        "precision, batch": f"{record['precision']}, {record['batch_size']}",
        "training, Trainer": f"{record['trainer_images_per_second']:,.0f} images/s",
        "training, bare loop": f"{record['bare_images_per_second']:,.0f} images/s",
        "Trainer / bare loop": f"{record['trainer_over_bare']:.3f}",
        **logging,
        f"sampling {record['samples']} images": f"{record['sampling_seconds']:.2f} s",
        f"one of {record['sampling_steps']} steps": f"{record['milliseconds_per_step']:.1f} ms",
        "sampling / its network calls": f"{record['sampling_over_network']:.3f}",
        "device": f"{record['hardware']['device']}, {record['hardware'].get('threads')} threads",
    }
    width = max(map(len, rows))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items())


def main() -> None:
    """The command line."""
    run("bench", bench)


if __name__ == "__main__":
    main()
