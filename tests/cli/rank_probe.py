"""A callback from outside: what each process of a distributed run holds at its end."""

from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback


class Probe(Callback):
    """Keeps the averaged weights of every process in a file of its own."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        flat = torch.cat([p.detach().flatten().double() for p in pl_module.parameters()])
        torch.save(flat, self.folder / f"rank{trainer.global_rank}.pt")
