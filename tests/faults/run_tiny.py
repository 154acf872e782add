"""A tiny run in a process of its own: run_tiny.py RUN_DIR [CHECKPOINT]; slow enough to be hit."""

import logging
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
from tiny import TinyData, tiny_module, tiny_trainer

from diffusion_lab.training.callbacks import Checkpoints, Interruption, RunRecord


class Ticking(pl.Callback):
    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        print(f"step {trainer.global_step}", flush=True)
        time.sleep(0.02)


if __name__ == "__main__":
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    folder = Path(sys.argv[1])
    trainer = tiny_trainer(
        folder,
        Interruption(),
        RunRecord(folder, report=False),
        Ticking(),
        Checkpoints(folder, every_n_steps=3),
    )
    checkpoint = sys.argv[2] if len(sys.argv) > 2 else None
    trainer.fit(tiny_module(), datamodule=TinyData(), ckpt_path=checkpoint)
