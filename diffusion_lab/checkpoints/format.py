"""Checkpoints as self-describing, verified data.

A checkpoint is one `torch.save` file of plain containers and tensors that anyone can open with
`torch.load(path, weights_only=True)`. Beside what Lightning needs to resume it holds

    checkpoint["diffusion_lab"] = {
        "format":  1,
        "config":  the resolved configuration of the run ({} for a module built by hand),
        "choices": {config group: chosen option},
        "data":    what the data module says of its source, with its SHA-256,
        "world_size": number of processes,
        "loader":  epoch and next batch of the training loader, where it tells,
        "weights": {"state_dict": "ema", "current_model_state": "raw"}, or only the first, "raw",
        "init_from": {"path", "sha256", "step"} of the checkpoint whose weights the run started
                     from, where it did,
    }

The file's SHA-256 stands in the comment field of its zip container (`sealing`), so that one
file suffices and every flipped bit is found. Files are written beside their target, synced and
renamed: a reader, and a run that resumes, see the old file or the new one.
"""

from __future__ import annotations

import io
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion_lab.checkpoints.finding import candidates_in, find_checkpoint
from diffusion_lab.checkpoints.malformed import malformed
from diffusion_lab.checkpoints.moved import in_todays_terms
from diffusion_lab.checkpoints.sealing import check_seal, seal
from diffusion_lab.errors import CheckpointError
from diffusion_lab.files import write_atomically

FORMAT = 1
"""Version of the layout of `checkpoint["diffusion_lab"]`."""


# ---------------------------------------------------------------------- files


def write_checkpoint(checkpoint: Mapping[str, Any], path: str | Path) -> None:
    """Write a checkpoint: beside the target, synced, renamed.

    Args:
        checkpoint: Plain containers and tensors.
        path: Target; its folder is made where it is missing.

    Raises:
        CheckpointError: The file cannot be written; an older file at `path` is as it was.
    """
    target = Path(path)
    buffer = io.BytesIO()
    torch.save(dict(checkpoint), buffer)
    content = seal(buffer.getvalue())
    try:
        write_atomically(target, content, synced=True)
    except OSError as error:
        raise CheckpointError(_why_not_written(target, error, len(content))) from error


def _why_not_written(target: Path, error: OSError, needed: int) -> str:
    text = f"checkpoint {target} could not be written: {error.strerror or error}"
    try:
        free = shutil.disk_usage(target.parent).free
    except OSError:
        return text
    kept = "; the file that was there is untouched" if target.exists() else ""
    return f"{text} ({free / 1e6:.1f} MB free, {needed / 1e6:.1f} MB needed){kept}"


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read and verify a checkpoint; no code in it is ever run.

    Args:
        path: A checkpoint file or a run folder, see `find_checkpoint`.

    Returns:
        The checkpoint, tensors on the CPU.

    Raises:
        CheckpointError: missing, damaged, foreign, or of a newer format.
    """
    file = find_checkpoint(path)
    checkpoint = read_sealed(file)
    own: Any = checkpoint.get("diffusion_lab")
    version = own.get("format") if isinstance(own, dict) else None
    if version is None:
        raise CheckpointError(f"checkpoint {file} is not one of diffusion_lab")
    if version != FORMAT:
        raise CheckpointError(
            f"checkpoint {file} has format {version!r}, this version of diffusion_lab reads "
            f"{FORMAT}: update diffusion_lab"
        )
    wrong = next(malformed(checkpoint), None)
    if wrong:
        raise CheckpointError(f"checkpoint {file} is no checkpoint of a run: {wrong}")
    in_todays_terms(own)
    return checkpoint


def read_sealed(file: Path) -> dict[str, Any]:
    """Read any file of `write_checkpoint`, verified; tensors on the CPU.

    Raises:
        CheckpointError: it cannot be read, is damaged, or holds more than plain data.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise CheckpointError(f"checkpoint {file}: {error.strerror or error}") from None
    wrong = check_seal(content)
    if wrong:
        raise CheckpointError(
            f"checkpoint {file} ({len(content)} bytes) {wrong}; use another one, e.g. best.ckpt or "
            "last.ckpt beside it"
        )
    try:
        found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        return {str(key): value for key, value in found.items()}
    except Exception:  # whose text advises to open it nevertheless
        raise CheckpointError(
            f"checkpoint {file} holds more than plain data, or is not one of diffusion_lab; it was "
            "left closed, since such a file can run code"
        ) from None


def read_newest(path: str | Path) -> tuple[Path, dict[str, Any]]:
    """The file that `find_checkpoint` means and what it holds; damaged ones are passed over.

    Each of them is told of in a warning.

    Raises:
        CheckpointError: None is good, or `path` is a file that is not.
    """
    path = Path(path).expanduser()
    files = [path] if path.is_file() else list(candidates_in(path))
    error: CheckpointError | None = None
    for candidate in files or [find_checkpoint(path)]:
        try:
            return candidate, read_checkpoint(candidate)
        except CheckpointError as found:
            error = found
            warnings.warn(f"{error} (passed over)", stacklevel=2)
    raise error or CheckpointError(f"{path} holds no checkpoint")


# ---------------------------------------------------------------------- content


def description(
    config: Mapping[str, Any],
    choices: Mapping[str, str],
    data: Mapping[str, Any] | None,
    world_size: int,
    averaged: bool,
) -> dict[str, Any]:
    """`checkpoint["diffusion_lab"]`, see the head of this file."""
    weights = {"state_dict": "ema", "current_model_state": "raw"}
    return {
        "format": FORMAT,
        "config": dict(config),
        "choices": dict(choices),
        "data": dict(data or {}),
        "world_size": world_size,
        "weights": weights if averaged else {"state_dict": "raw"},
    }


def weights_of(checkpoint: Mapping[str, Any], weights: str = "ema") -> dict[str, Tensor]:
    """The averaged ("ema") or the raw ("raw") weights of a checkpoint.

    A run without averaging has raw weights only; "ema" then gives these, with a warning.

    Raises:
        CheckpointError: Another name, or weights that the checkpoint lacks.
    """
    named = {name: key for key, name in checkpoint["diffusion_lab"]["weights"].items()}
    if weights == "ema" and "ema" not in named:
        warnings.warn("this run kept no averaged weights: the raw ones are used", stacklevel=2)
        weights = "raw"
    if weights not in named:
        raise CheckpointError(f"weights={weights!r} must be one of {', '.join(sorted(named))}")
    return checkpoint[named[weights]]


def changed_values(stored: Mapping[str, Any], now: Mapping[str, Any], path: str = "") -> list[str]:
    """One line "key: stored -> now" for every leaf in which two configurations differ."""
    lines = []
    for key in [*stored, *(key for key in now if key not in stored)]:
        old, new = stored.get(key), now.get(key)
        where = f"{path}{key}"
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            lines += changed_values(old, new, f"{where}.")
        elif old != new:
            lines.append(f"{where}: {old} -> {new}")
    return lines


def refuse_other_weights(
    checkpoint: Mapping[str, Any], own: Mapping[str, Tensor], config: Mapping[str, Any]
) -> None:
    """Refuse a checkpoint whose weights do not fit a module's state, naming what differs.

    Raises:
        CheckpointError: with the configuration keys in which the two networks differ.
    """
    stored = {name: tuple(value.shape) for name, value in checkpoint["state_dict"].items()}
    mine = {name: tuple(value.shape) for name, value in own.items()}
    if stored == mine:
        return
    then = checkpoint.get("diffusion_lab", {}).get("config", {})
    parts = ("denoiser", "model", "data", "schedule", "parameterization")
    differing = changed_values({k: then.get(k) for k in parts}, {k: config.get(k) for k in parts})
    detail = "\n  ".join(differing) or "the configurations do not say where"
    raise CheckpointError(
        "the checkpoint's network is not the one configured; differing keys (checkpoint -> now):"
        f"\n  {detail}"
    )
