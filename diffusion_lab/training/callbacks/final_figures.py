"""Figures of the final model, drawn when training has ended."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer

from diffusion_lab.errors import ConfigError
from diffusion_lab.figures.run_figures import RunFigure
from diffusion_lab.files import write_atomically
from diffusion_lab.sampling.pipeline import evaluating
from diffusion_lab.training.loggers import log_images
from diffusion_lab.training.module import DiffusionModule


class FinalFigures(Callback):
    """Draws figures of the final (averaged) weights and lists them in artefacts.json.

    It must come after the callbacks of averaging and of grids, whose last work the figures show.
    What a figure rejects is rejected before training; a figure that fails at the end is a warning,
    and the others are drawn; one that has nothing to show of this model (`suits`) is left out. A
    run that is stopped draws none.

    artefacts.json holds {"step", "pages": [{"name", "caption", "files", "error"}]}, files relative
    to the run's folder.

    Args:
        run_dir: The run's folder.
        pages: Name -> figure; None in place of one switches it off.

    Raises:
        ValueError: Something that is no figure.
    """

    def __init__(self, run_dir: str | Path, pages: Mapping[str, RunFigure | None]) -> None:
        self.folder = Path(run_dir)
        self.pages = {name: page for name, page in pages.items() if page is not None}
        self.suited = self.pages
        for name, page in self.pages.items():
            if not callable(getattr(page, "write", None)):
                raise ValueError(
                    f"callbacks.artefacts.pages.{name}={page!r} has no write(model, folder): give "
                    "the _target_ of a figure, e.g. diffusion_lab.figures.sample_figures.GridFigure"
                )

    def setup(self, trainer: Trainer, pl_module: DiffusionModule, stage: str) -> None:
        """Check that the figures can be drawn of this model, before any training.

        Raises:
            ConfigError: The message holds every one that cannot.
        """
        if stage != "fit":
            return
        suited = {n: p for n, p in self.pages.items() if _member(p, "suits", True)(pl_module)}
        self.suited = suited
        errors = []
        for name, page in suited.items():
            try:
                _member(page, "check", None)(pl_module)
            except ValueError as error:
                errors.append(f"callbacks.artefacts.pages.{name}: {error}")
        if errors:
            raise ConfigError("\n".join(errors))

    def on_train_end(self, trainer: Trainer, pl_module: DiffusionModule) -> None:
        """Draw every figure, on the first process."""
        if not (self.suited and trainer.global_step and trainer.is_global_zero):
            return
        entries = [self._entry(trainer, pl_module, name) for name in self.suited]
        record = {"step": trainer.global_step, "pages": entries}
        text = json.dumps(record, indent=1) + "\n"
        write_atomically(self.folder / "artefacts.json", text.encode())

    def _entry(self, trainer: Trainer, module: DiffusionModule, name: str) -> dict[str, Any]:
        """Draw one figure; returns its entry in artefacts.json."""
        page = self.suited[name]
        place = getattr(page, "file", None) or getattr(page, "folder", name)
        entry: dict[str, Any] = {"name": name, "caption": getattr(page, "caption", "")}
        entry |= {"files": [], "error": None}
        print(f"drawing {place} ...", end="", flush=True)
        began = time.perf_counter()
        try:
            with trainer.precision_plugin.forward_context(), evaluating(module), torch.no_grad():
                path = page.write(module, self.folder)
            entry["files"] = [str(file.relative_to(self.folder)) for file in _files(path)]
            shown = getattr(page, "shown", None)
            _log(trainer, name, self.folder / shown if shown else path)
        except Exception as error:
            entry["error"] = f"{type(error).__name__}: {error}"
            print(" failed", flush=True)
            warnings.warn(
                f"callbacks.artefacts.pages.{name} ({place}) could not be made, everything else of "
                f"the run is there: {entry['error']}",
                stacklevel=2,
            )
        else:
            print(f" {time.perf_counter() - began:.1f} s", flush=True)
        return entry


def _member(page: RunFigure, name: str, otherwise: bool | None) -> Callable[[DiffusionModule], Any]:
    """An optional method that takes the model; returns `otherwise` where it is missing."""
    return getattr(page, name, lambda model: otherwise)


def _files(path: Path) -> list[Path]:
    """The files of a figure; in a folder of steps, those of most noise come first."""
    if path.is_dir() and not path.is_symlink():
        return sorted(path.glob("step_*.png"), reverse=True)
    return [path]


def _log(trainer: Trainer, name: str, path: Path) -> None:
    """Hand a figure that is one picture to the loggers."""
    if path.suffix == ".png" and path.is_file():
        from PIL import Image

        with Image.open(path) as picture:
            log_images(trainer.loggers, f"pages/{name}", picture, trainer.global_step - 1)
