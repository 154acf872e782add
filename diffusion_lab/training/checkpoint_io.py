"""How Lightning's Trainer writes and reads files: by `checkpoints.format`, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO

from diffusion_lab.checkpoints.format import read_checkpoint, read_sealed, write_checkpoint
from diffusion_lab.errors import CheckpointError

_SPAWNED = ".temp.ckpt"
"""What Lightning's launcher of spawned processes calls its file, in a folder made for it."""


class VerifiedCheckpoints(CheckpointIO):
    """Atomic, sealed, plain-data checkpoints; pass it as `Trainer(plugins=[...])`."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write a checkpoint, see `write_checkpoint`."""
        write_checkpoint(checkpoint, path)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read and verify a checkpoint onto the CPU; never anything but plain data.

        Lightning also hands the weights of spawned processes (`ddp_spawn`) back through a file:
        weights alone, as sealed as a checkpoint.
        """
        if weights_only is not None and not weights_only:
            raise CheckpointError("checkpoints are read as plain data only: leave weights_only out")
        if Path(path).name == _SPAWNED:
            return read_sealed(Path(path))
        return read_checkpoint(path)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint file, if it is there.

        Lightning's own callback takes the names of earlier files out of the checkpoint that a run
        goes on with, and looks only at how they begin.
        """
        if ".." in Path(path).parts:
            raise CheckpointError(f"{path} is named by a checkpoint and is none of this run")
        Path(path).unlink(missing_ok=True)
