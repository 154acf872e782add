"""Where classes and weights of older checkpoints are now: their names are part of the format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

_FILES = {
    ("sampling.guidance", "sampling.guidance.strength"): ("Interval", "PowerCosine"),
    ("sampling.guidance", "sampling.guidance.classifier_free"): (
        *("ClassifierFree", "Extrapolate", "Rescaled", "Projected"),
    ),
    ("sampling.guidance", "sampling.guidance.second_model"): ("AutoGuidance", "ClassifierGuidance"),
    ("sampling.grids", "sampling.spacing"): (
        *("Karras", "Leading", "Linspace", "Listed", "Quadratic", "RePaint", "Trailing"),
        "UniformLogSNR",
    ),
    ("data.shapes", "data.toy"): (
        *("Checkerboard", "Circles", "EightGaussians", "Pinwheel", "Spirals", "SwissRoll"),
    ),
    ("data.fashion_mnist", "data.mnist"): ("FashionMNIST",),
    ("data.kmnist", "data.mnist"): ("KMNIST",),
    ("reporting.study_figures", "figures.study_figures"): ("Bars", "Curve", "Frontier", "Scatter"),
    ("training.callbacks.sample_grid", "training.callbacks.sampling_callbacks"): ("SampleGrid",),
    ("training.callbacks.final_samples", "training.callbacks.sampling_callbacks"): (
        "FinalSamples",
    ),
}
"""(Old file, new file) -> classes."""
_PAGES = {
    "alias.AliasPage": "run_figures.Alias",
    "architecture.ArchitecturePage": "network_diagram.ArchitectureFigure",
    "denoising.DenoisingPage": "sample_figures.DenoisingFigure",
    "drawn.GridPage": "sample_figures.GridFigure",
    "drawn.StepsPage": "sample_figures.StepsFigure",
    "drawn.StripPage": "sample_figures.StripFigure",
    "points.SamplesPage": "point_figures.PointsFigure",
    "points.TrajectoryPage": "point_figures.TrajectoryFigure",
    "points.VectorFieldPage": "point_figures.VectorFieldFigure",
    "progress.ProgressPage": "run_figures.ProgressFigure",
    "progress_page.ProgressPage": "run_figures.ProgressFigure",
}
"""Figures that a run leaves behind, when they were called pages."""
MOVED = {
    **{
        f"diffusion_lab.{old}.{name}": f"diffusion_lab.{new}.{name}"
        for (old, new), names in _FILES.items()
        for name in names
    },
    **{
        f"diffusion_lab.training.pages.{old}": f"diffusion_lab.figures.{new}"
        for old, new in _PAGES.items()
    },
    "diffusion_lab.diffusion.objectives.Objective": "diffusion_lab.diffusion.objectives.Regression",
    "diffusion_lab.training.callbacks.artefacts.Artefacts": (
        "diffusion_lab.training.callbacks.final_figures.FinalFigures"
    ),
    "diffusion_lab.metrics.quick.kept_reader": "diffusion_lab.metrics.quick.cached_predictor",
    "diffusion_lab.training.stored_model.StoredModel": "diffusion_lab.loading.StoredModel",
}
"""Old dotted name -> new one."""

MOVED_WEIGHTS: dict[str, str] = {}
"""Old dotted name of a submodule or a tensor in a module's state -> new one."""


_CLASSIFIER = "diffusion_lab.training.noisy_classifier.NoisyClassifier"
"""A module of its own before it became an objective of the one module."""


def in_todays_terms(own: dict[str, Any]) -> None:
    """Rewrite the description of a run, `checkpoint["diffusion_lab"]`, of an older version."""
    config = own["config"] = renamed(own.get("config") or {})
    model, objective = config.get("model"), config.get("objective")
    if isinstance(model, dict) and model.get("_target_") == _CLASSIFIER:
        time = objective.get("time") if isinstance(objective, Mapping) else None
        model["_target_"] = "diffusion_lab.training.module.DiffusionModule"
        target = "diffusion_lab.diffusion.objectives.Classification"
        config["objective"] = {"_target_": target, "time": time}
        gone = ("model", "objective/coupling", "objective/error", "objective/weight")
        kept = {
            group: name for group, name in (own.get("choices") or {}).items() if group not in gone
        }
        own["choices"] = kept | {"objective": "classifier"}


def renamed(node: Any) -> Any:
    """Plain data with every old `_target_` replaced by the new one."""
    if isinstance(node, Mapping):
        return {
            key: MOVED.get(value, value)
            if key == "_target_" and isinstance(value, str)
            else renamed(value)
            for key, value in node.items()
        }
    if isinstance(node, list):
        return [renamed(value) for value in node]
    return node


def renamed_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A module's state with every old name of a submodule or a tensor replaced by the new one."""
    return {_renamed_weight(name): value for name, value in state.items()}


def _renamed_weight(name: str) -> str:
    for old, new in MOVED_WEIGHTS.items():
        if name == old or name.startswith(f"{old}."):
            return new + name[len(old) :]
    return name
