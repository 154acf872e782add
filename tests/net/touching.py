"""Run jobs of the net and write what they gave: `python touching.py OUT.json JOB ...`.

This is the only file of the net that imports the project, and it knows as little of it as it can:
the handful of names in the block "touching points". A module that moves costs one line there; what
the words of the command line give must not change by a bit.

A job is the name of a preset or of a stored checkpoint, see `words.py`. Everything is run with one
thread in a new folder, and nothing but the embedded digits and the moons is read.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import platform
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import torch
from torch import Tensor
from torch.nn import functional as F
from words import END, HERE, PRESETS, SMALL, STORED, STORED_AT

# ---------------------------------------------------------------------- touching points


def command(name: str, words: Sequence[str]) -> Any:
    """What `python -m diffusion_lab.NAME WORDS` does, in this process."""
    from importlib import import_module

    from diffusion_lab.config.arguments import compose

    module = import_module(f"diffusion_lab.{name}")
    return getattr(module, name)(compose(name, words))


def load(path: Path, weights: str = "ema") -> Any:
    """The model of a checkpoint or run folder; it has `sample`, `state_dict` and `num_classes`."""
    import diffusion_lab

    return diffusion_lab.load(path, weights=weights)


@contextlib.contextmanager
def hasty_classifiers() -> Iterator[None]:
    """Let `evaluate` train its classifiers for ten steps; no word of the command line does."""
    from diffusion_lab.metrics import features as module

    usual = module.recipe_for
    module.recipe_for = lambda count: replace(usual(count), steps=10, batch_size=32)
    try:
        yield
    finally:
        module.recipe_for = usual


# ---------------------------------------------------------------------- jobs


def of_preset(name: str) -> dict[str, Any]:
    """Train a preset for twenty steps, draw from it, score it."""
    run = Path(name)
    command("train", [f"experiment={name}", *SMALL, *PRESETS[name], f"run_dir={run}"])
    words = [f"ckpt={run}", "num_samples=20", "device=cpu", "paths.data_dir=data"]
    with hasty_classifiers():
        command("evaluate", [*words, "second_classifier=false"])
    return {
        **curves(run),
        "samples": numbers_of(drawn(load(run))),
        "weights": {kind: digests(load(run, kind).state_dict()) for kind in ("ema", "raw")},
        "figures": figures_of(run / "metrics.json"),
    }


def of_stored(name: str) -> dict[str, Any]:
    """Load a stored checkpoint, draw from it, and let its run go on to its end."""
    file, run = HERE / f"{name}.ckpt", Path(name)
    command(
        "train", [*STORED[name], f"trainer.max_steps={END}", f"run_dir={run}", f"resume={file}"]
    )
    found = {
        **curves(run),
        "stored": {kind: digests(load(file, kind).state_dict()) for kind in ("ema", "raw")},
        "ended": {kind: digests(load(run, kind).state_dict()) for kind in ("ema", "raw")},
    }
    if name == "format_1_classifier":  # draws nothing by itself: it steers another checkpoint
        steered = [f"ckpt={HERE / 'format_1.ckpt'}", "guidance=classifier", "device=cpu"]
        steered += [f"guidance.classifier.path={file}", "num_samples=4", "out=steered.npz"]
        command("sample", steered)
        found["samples"] = numbers_of(torch.from_numpy(np.load("steered.npz")["samples"]))
    else:
        found["samples"] = numbers_of(drawn(load(file)))
    return found


def write_stored(name: str, file: Path) -> dict[str, Any]:
    """Write a stored checkpoint anew; the curves of the uninterrupted run from there on."""
    run = Path(f"{name}_whole")
    keep = f"callbacks.checkpoints.keep_every_n_steps={STORED_AT}"
    words = [*STORED[name], f"trainer.max_steps={END}", f"run_dir={run}", keep]
    # A process of its own: only the real command line knows, and stores, which options were chosen.
    subprocess.run([sys.executable, "-m", "diffusion_lab.train", *words], check=True)
    file.write_bytes((run / "checkpoints" / f"step_{STORED_AT:06d}.ckpt").read_bytes())
    return curves(run, first=STORED_AT)


# ---------------------------------------------------------------------- what is kept of them


def curves(run: Path, first: int = 0) -> dict[str, list[float]]:
    """The losses in metrics.csv from step `first` on, as they were written, without rounding."""
    with (run / "metrics.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if int(row["step"]) >= first]
    names = {"losses": "train/loss", "validation": "val/loss"}
    return {key: [float(row[c]) for row in rows if row.get(c)] for key, c in names.items()}


def drawn(model: Any) -> Tensor:
    """Four samples, of four classes where there are classes."""
    return model.sample(4, label=[3, 1, 4, 8] if model.num_classes else None, seed=0)


def numbers_of(samples: Tensor) -> dict[str, Any]:
    """Shape, digest, mean and standard deviation."""
    return {
        "shape": list(samples.shape),
        "sha256": digest(samples),
        "mean": samples.double().mean().item(),
        "std": samples.double().std().item(),
    }


def digests(state: dict[str, Tensor]) -> dict[str, Any]:
    """A digest of all tensors whatever their names, and one of the names."""
    tensors = sorted(f"{v.dtype} {tuple(v.shape)} {digest(v)}" for v in state.values())
    return {"tensors": digest_of(tensors), "names": digest_of(sorted(state))}


def figures_of(file: Path) -> dict[str, Any]:
    """What `evaluate` wrote, without times, and without settings, which name classes."""
    found = json.loads(file.read_text(encoding="utf-8"))
    return {k: v for k, v in found.items() if k != "settings" and not k.endswith("seconds")}


def digest(tensor: Tensor) -> str:
    """SHA-256 of a tensor's bytes."""
    content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.sha256(content.numpy().tobytes()).hexdigest()


def digest_of(lines: Sequence[str]) -> str:
    """SHA-256 of lines."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


# ---------------------------------------------------------------------- the machine


def fingerprint() -> dict[str, str]:
    """What decides the bits beside the project's code.

    The probe is the digest of a computation of the kinds that occur, in which nothing of the
    project takes part: processors that round alike in it are taken to round alike.
    """
    return {
        "torch": torch.__version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "machine": platform.machine(),
        "probe": probe(),
    }


def probe() -> str:
    """A step through convolution, norm, attention, linear layers and linear algebra."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).requires_grad_()

    x, kernel, weight = normal(16, 24, 14, 14), normal(48, 24, 3, 3), normal(48, 48)
    h = F.silu(F.group_norm(F.conv2d(x, kernel, padding=1), 8))
    tokens = h.flatten(2).transpose(1, 2).reshape(16, 4, 196, 12)
    h = F.scaled_dot_product_attention(tokens, tokens, tokens).reshape(16, 196, 48)
    (h @ weight).exp().clamp(max=10).log1p().square().mean().backward()
    with torch.autocast("cpu", torch.bfloat16):
        halves = F.conv2d(x, kernel, stride=2).float()
    rows = halves.detach().double().flatten(1).numpy()
    values = np.linalg.eigvalsh(rows @ rows.T)
    parts = [x.grad, kernel.grad, weight.grad, halves, torch.from_numpy(values)]
    return digest_of([digest(part) for part in parts if part is not None])


# ---------------------------------------------------------------------- running


def results(jobs: Sequence[str]) -> dict[str, Any]:
    """What each job gave; `{"error": ...}` of one that failed."""
    found: dict[str, Any] = {}
    for job in jobs:
        try:
            found[job] = of_preset(job) if job in PRESETS else of_stored(job)
        except Exception:
            found[job] = {"error": traceback.format_exc()}
    return found


def main(out: str, *jobs: str) -> None:
    """Run jobs in a new folder and write fingerprint and results; see the head of this file."""
    torch.set_num_threads(1)
    target = Path(out).resolve()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        Path("data").mkdir()
        found = {"fingerprint": fingerprint(), "jobs": results(jobs)}
    target.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
