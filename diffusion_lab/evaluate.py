"""Score samples of a trained model: `python -m diffusion_lab.evaluate ckpt=PATH`.

The steps, in order: refuse what cannot run, get the ruler of the data that the model was trained
on (for images a classifier, trained once and kept), draw, score, write. `study=NAME` does that
for every row of a study and makes a table and pictures of them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusion_lab.config import ConfigError, check, instantiate, refuse, run
from diffusion_lab.config.runs import run_folder_of, typed_now
from diffusion_lab.config.stored import without_checkpoint
from diffusion_lab.studies.cells import Cell, plain

if TYPE_CHECKING:
    from omegaconf import DictConfig


def evaluate(cfg: DictConfig, typed: Sequence[str] | None = None) -> dict[str, Any]:
    """Score what a config describes, print the figures and write them.

    Args:
        cfg: A config of `conf/evaluate.yaml`.
        typed: In a study, the overrides that its rows start from (a row has a sampler of its own,
            so the one in `cfg` cannot be told from a default); None is what was typed.

    Returns:
        The figures of `metrics.scores.score` or `metrics.points.score_points`, with
        `network_calls` an image and the `seconds` that drawing took; of a study, its study.json.

    Raises:
        ConfigError: The config cannot run; the message holds every fault.
        StudyError: A training or a row of a study failed.
    """
    if cfg.get("study"):
        return _study(cfg, typed_now()[0] if typed is None else typed)
    if not cfg.ckpt:
        raise ConfigError(without_checkpoint("evaluate", str(cfg.paths.output_dir)))
    cell = Cell(cfg)
    refuse(cell.faults())
    from diffusion_lab.studies.measuring import measure
    from diffusion_lab.studies.progress import Progress
    from diffusion_lab.studies.rulers import ruler_of

    progress = Progress(cell.network_calls() * cfg.num_samples)
    try:
        ruler = ruler_of(cell)
        progress.begin(f"drawing {cfg.num_samples:,} {ruler.unit}")
        figures = measure(cell, ruler, progress).figures
    except ValueError as error:
        raise ConfigError(str(error)) from None
    progress.end()
    path = _write(figures, cell)
    lines = [
        *ruler.lines(figures),
        ("network calls", f"{figures['network_calls']:,.6g}", f"for each of the {ruler.unit}"),
        ("seconds", f"{figures['seconds']:.1f}", f"to draw {figures['num_samples']}"),
    ]
    print("\n".join(f"{name:<20}{value:>9}   {meaning}" for name, value, meaning in lines))
    print(f"\n{path}")
    return figures


def _study(cfg: DictConfig, typed: Sequence[str]) -> dict[str, Any]:
    """All rows of a study."""
    node = plain(cfg.study)
    refuse(check({"study": node, "trust": plain(cfg.trust)}))
    from diffusion_lab.studies.running import run_study

    try:
        study = instantiate(node, trust=cfg.trust)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"study: {error}") from None
    return run_study(study, cfg, typed)


def _write(figures: dict[str, Any], cell: Cell) -> Path:
    from diffusion_lab.reporting.files import write_atomically

    cfg = cell.cfg
    folder = run_folder_of(Path(cfg.ckpt))
    path = Path(cfg.out).expanduser() if cfg.out else folder / "metrics.json"
    settings = {"ckpt": str(cfg.ckpt), **cell.settings}
    return write_atomically(path, json.dumps({**figures, "settings": settings}, indent=2).encode())


def main() -> None:
    """The command line."""
    run("evaluate", evaluate)


if __name__ == "__main__":
    sys.exit(main())
