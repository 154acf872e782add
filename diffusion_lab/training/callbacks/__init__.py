"""Callbacks of a training run: what it draws, shows, guards and records."""

from diffusion_lab.training.callbacks.checkpoints import Checkpoints
from diffusion_lab.training.callbacks.final_figures import FinalFigures
from diffusion_lab.training.callbacks.interruption import Interrupted, Interruption
from diffusion_lab.training.callbacks.non_finite import NonFiniteError, NonFiniteGuard
from diffusion_lab.training.callbacks.progress import Progress
from diffusion_lab.training.callbacks.run_record import RunRecord
from diffusion_lab.training.callbacks.sample_metrics import SampleMetrics
from diffusion_lab.training.callbacks.sampling_callbacks import FinalSamples, SampleGrid
from diffusion_lab.training.callbacks.speed import Speed

__all__ = [
    "Checkpoints",
    "FinalFigures",
    "FinalSamples",
    "Interrupted",
    "Interruption",
    "NonFiniteError",
    "NonFiniteGuard",
    "Progress",
    "RunRecord",
    "SampleGrid",
    "SampleMetrics",
    "Speed",
]
