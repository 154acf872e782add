"""Where a new training starts: the weights of another checkpoint.

Only tensors are read. The network that takes them is described by the new configuration, and
every tensor of either has to be in the other with the same shape, but for layers that the new
network adds and that change nothing at the start. A tensor that the checkpoint lacks is accepted

* if it is zero throughout, or
* if it belongs to a submodule of which the checkpoint has nothing and whose last layer (the last
  with parameters of its own, in the order of construction) is zero throughout: a branch that says
  nothing yet, such as a projection of a further condition or an attention.

A new network is to add these to what is there, not to stand between it; that cannot be seen from
its weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_lab.checkpoints.finding import find_checkpoint
from diffusion_lab.checkpoints.format import read_checkpoint, weights_of
from diffusion_lab.checkpoints.moved import renamed_weights
from diffusion_lab.errors import CheckpointError
from diffusion_lab.files import sha256


@dataclass(frozen=True)
class WarmStart:
    """The weights that a training starts from, and where they are from.

    Attributes:
        path: The checkpoint file.
        sha256: Of that file.
        step: Optimizer steps after which it was written.
        weights: Averaged ones, raw ones of a run without averaging.
    """

    path: Path
    sha256: str
    step: int
    weights: dict[str, Tensor]

    @property
    def record(self) -> dict[str, Any]:
        """What a run says of its start: path, sha256 and step."""
        return {"path": str(self.path), "sha256": self.sha256, "step": self.step}


def read_start(path: str | Path, output: Path = Path("outputs")) -> WarmStart:
    """The start that a path means, see `find_checkpoint`.

    Raises:
        CheckpointError: There is no checkpoint, or it cannot be read.
    """
    file = find_checkpoint(path, output)
    checkpoint = read_checkpoint(file)
    weights = renamed_weights(weights_of(checkpoint))
    return WarmStart(file, sha256(file), int(checkpoint.get("global_step", 0)), weights)


def load_start(start: WarmStart, module: nn.Module) -> None:
    """Give a freshly built module the weights of a start; all of it or an error.

    Raises:
        CheckpointError: names every tensor that does not fit.
    """
    faults = misfits(start.weights, module)
    if faults:
        lines = "\n".join(f"  - {fault}" for fault in faults)
        raise CheckpointError(
            f"init_from={start.path}: these weights do not fit the network that is configured:\n"
            f"{lines}"
        )
    module.load_state_dict(module.state_dict() | start.weights)


def misfits(weights: Mapping[str, Tensor], module: nn.Module) -> list[str]:
    """One line for each tensor that keeps a module from starting with these weights."""
    own = module.state_dict()
    silent = tuple(_silent(module, weights))
    lines = []
    for name, value in own.items():
        if name not in weights:
            if not (_is_zero(value) or name.startswith(silent)):
                lines.append(f"{name} {_shape(value)} is new and does not start at zero")
        elif weights[name].shape != value.shape:
            lines.append(f"{name} is {_shape(weights[name])} there and {_shape(value)} here")
    lost = [name for name in weights if name not in own]
    return lines + [f"{name} {_shape(weights[name])} has no place here" for name in lost]


def _silent(module: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[str]:
    """Prefixes of the submodules that are new and whose last layer is zero throughout."""
    for name, part in module.named_modules():
        if not name or any(key.startswith(f"{name}.") for key in weights):
            continue
        layers = [list(layer.parameters(recurse=False)) for layer in part.modules()]
        last = next((layer for layer in reversed(layers) if layer), None)
        if last is not None and all(map(_is_zero, last)):
            yield f"{name}."


def _is_zero(value: Tensor) -> bool:
    return not torch.count_nonzero(value)


def _shape(value: Tensor) -> str:
    return str(list(value.shape))
