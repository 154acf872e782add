"""How likely a model finds real data: `python -m diffusion_lab.likelihood ckpt=PATH`.

The test images of the data that the model was trained on, in bits per dimension, by the variational
bound or the probability flow ODE; with `against=DATA` as an out-of-distribution detector, with
`classify=true` as a classifier. Points have no grey values and are scored in nats.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusion_lab.checkpoints.finding import missing_checkpoint
from diffusion_lab.config.building import validate_stored
from diffusion_lab.config.checking import raise_errors
from diffusion_lab.config.checkpoint_defaults import OF_A_MODEL
from diffusion_lab.config.main import run
from diffusion_lab.errors import ConfigError
from diffusion_lab.evaluation.likelihood_request import (
    OWN,
    TUNING,
    Samples,
    conditional,
    data_modules,
    likelihood_errors,
    score_of,
    test_samples,
)
from diffusion_lab.evaluation.request import plain
from diffusion_lab.runs.folder import run_folder_of

if TYPE_CHECKING:
    from torch import Tensor

    from diffusion_lab.config.composing import DictConfig
    from diffusion_lab.evaluation.likelihoods import Score
    from diffusion_lab.evaluation.progress_line import ProgressLine
    from diffusion_lab.generate.trained_model import TrainedModel


def likelihood(cfg: DictConfig, checkpoint: dict[str, Any] | None = None) -> dict[str, Any]:
    """Score what a config describes, print the scores and write them.

    Args:
        cfg: A config of `conf/likelihood.yaml`.
        checkpoint: The content of the file `cfg.ckpt`; read from it unless given.

    Returns:
        The content of likelihood.json: a `likelihood_summary.summary`; with `against`, that of
        the other data and `separation`; with `classify`, `classifier`.

    Raises:
        ConfigError: The config cannot run; the message holds every error.
    """
    if not cfg.ckpt:
        raise ConfigError(missing_checkpoint("likelihood", str(cfg.paths.output_dir)))
    from diffusion_lab.checkpoints.format import read_checkpoint
    from diffusion_lab.generate.generation import refuse_classifier
    from diffusion_lab.loading import device_of, restored

    checkpoint = checkpoint or read_checkpoint(cfg.ckpt)
    stored = checkpoint["diffusion_lab"]
    validate_stored(stored["config"], OF_A_MODEL, cfg.trust, cfg.ckpt)
    raise_errors(likelihood_errors(cfg, stored["config"]))
    from diffusion_lab.evaluation.likelihood_summary import lines
    from diffusion_lab.evaluation.measuring import counting
    from diffusion_lab.evaluation.progress_line import ProgressLine

    module = restored(checkpoint, cfg.weights, device_of(cfg.device), cfg.trust)
    refuse_classifier(module.diffusion)
    module.requires_grad_(False)
    sets = {k: test_samples(cfg, data, module) for k, data in data_modules(cfg, stored).items()}
    if cfg.method == "bound" and cfg.end == "auto":
        print(f"choosing on {TUNING} training samples where the bound ends", flush=True)
    try:
        score = score_of(cfg, module, sets[OWN])
        count = sum(len(samples.x0) for samples in sets.values())
        count += len(sets[OWN].x0) * int(module.num_classes or 0) * int(cfg.classify)
        print(_announced_cost(cfg, score, count), flush=True)
        progress = ProgressLine(score.calls * count)
        with counting(module.diffusion.denoiser, progress):
            found = _scored(cfg, module, score, sets, progress)
        progress.end()
    except ValueError as error:
        raise ConfigError(f"method={cfg.method}: {error}") from None
    path = _write_likelihood(cfg, found)
    print("\n".join([*lines(found), "", str(path)]))
    return found


def _scored(
    cfg: DictConfig,
    module: TrainedModel,
    score: Score,
    sets: Mapping[str, Samples],
    progress: ProgressLine,
) -> dict[str, Any]:
    """All scores; see `likelihood`."""
    from diffusion_lab.evaluation.likelihood_summary import classifier_accuracy, separation, summary
    from diffusion_lab.evaluation.likelihoods import class_scores, terms_of, totals

    found: dict[str, Any] = {}
    whole: list[Tensor] = []
    for name, samples in sets.items():
        progress.begin(f"{cfg.method} of {name}")
        label = samples.labels if conditional(cfg, module) else None
        terms = terms_of(score, samples.x0, label, cfg.seed, cfg.batch_size)
        whole.append(totals(score, terms))
        scores = summary(score, terms)
        found = {**found, "against": {"data": name, **scores}} if found else scores
    if len(whole) == 2:
        found["separation"] = separation(*whole)
    if cfg.classify:
        progress.begin(f"{cfg.method} of every class")
        x0, labels = sets[OWN][:2]
        scores = class_scores(score, x0, int(module.num_classes or 0), cfg.seed, cfg.batch_size)
        found["classifier"] = classifier_accuracy(scores, labels)
    return found


def _announced_cost(cfg: DictConfig, score: Score, count: int) -> str:
    """What is to be done, printed before it is."""
    calls = score.calls * count
    about = "about " if cfg.tolerance is not None else ""
    derived = "" if cfg.method == "bound" else ", each with its derivative"
    last = score.path[-2 if cfg.method == "bound" else -1]
    where = f"{len(score.path) - 1} steps down to t = {float(last.t):.3g}"
    return f"{where}: {about}{calls:,} network calls (an image each{derived}) to make"


def _write_likelihood(cfg: DictConfig, found: dict[str, Any]) -> Path:
    """likelihood.json and beside it the picture."""
    from diffusion_lab.figures.evaluation_figures import likelihood_png
    from diffusion_lab.files import write_atomically

    path = run_folder_of(Path(cfg.ckpt)) / "likelihood.json"
    if cfg.out:
        path = Path(str(cfg.out)).expanduser()
    left_out = {"hydra", "paths", "data", "out", "device", "trust"}
    settings = {str(key): plain(cfg[key]) for key in cfg if key not in left_out}
    write_atomically(path.with_suffix(".png"), likelihood_png(found))
    content = json.dumps({**found, "settings": settings}, indent=2)
    return write_atomically(path, content.encode())


def main() -> None:
    """The command line."""
    run("likelihood", likelihood)


if __name__ == "__main__":
    main()
