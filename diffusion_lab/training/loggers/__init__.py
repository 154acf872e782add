"""Where curves, grids and tables go.

`MetricsFile` writes metrics.csv and is always there. The others are optional and work in a thread
of their own (`BackgroundLogger`), so that training never waits for them; one that fails says so
once and is silent from then on.
"""

from diffusion_lab.training.loggers.background import (
    BackgroundLogger,
    log_images,
    log_table,
    takes_tables,
)
from diffusion_lab.training.loggers.tensorboard_run import TensorBoardRun
from diffusion_lab.training.loggers.wandb_run import WandbRun
from diffusion_lab.training.metrics_file import MetricsFile

__all__ = [
    "BackgroundLogger",
    "MetricsFile",
    "TensorBoardRun",
    "WandbRun",
    "log_images",
    "log_table",
    "takes_tables",
]
