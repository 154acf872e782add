"""Where curves, grids and tables go.

`MetricsFile` writes metrics.csv and is always there. The others are optional and guarded: they
work in a thread of their own, so that training never waits for them, and one that fails says so
once and is silent from then on.
"""

from diffusion_lab.training.loggers.guarded import (
    GuardedLogger,
    Sink,
    log_images,
    log_table,
    takes_tables,
)
from diffusion_lab.training.loggers.tensorboard_run import TensorBoardRun
from diffusion_lab.training.loggers.wandb_run import WandbRun
from diffusion_lab.training.metrics_file import MetricsFile

__all__ = [
    "GuardedLogger",
    "MetricsFile",
    "Sink",
    "TensorBoardRun",
    "WandbRun",
    "log_images",
    "log_table",
    "takes_tables",
]
