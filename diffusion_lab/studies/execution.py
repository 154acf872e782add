"""Going through the rows of a study: price, measure or take from the cache, write."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusion_lab.checkpoints.finding import find_checkpoint
from diffusion_lab.config.arguments import compose
from diffusion_lab.config.checking import raise_errors
from diffusion_lab.errors import ConfigError, StudyError
from diffusion_lab.evaluation.progress_line import ProgressLine
from diffusion_lab.evaluation.request import (
    EvaluationRequest,
    common_errors,
    common_words,
    request_of,
)
from diffusion_lab.files import read_record, write_atomically
from diffusion_lab.runs.folder import refuse_link_below, run_folder_of
from diffusion_lab.status_line import clock
from diffusion_lab.studies.results import Record, write_study
from diffusion_lab.studies.trainings import Training, training_of

if TYPE_CHECKING:
    from diffusion_lab.config.composing import DictConfig
    from diffusion_lab.evaluation.evaluators import Evaluator
    from diffusion_lab.studies.study import Study


def run_study(study: Study, cfg: DictConfig, typed: Sequence[str] = ()) -> dict[str, Any]:
    """Measure all rows of a study, print the table and write everything.

    Args:
        study: The study.
        cfg: The config of `evaluate` that names it.
        typed: What was typed; all rows start from its sampler, guidance, constraint and data.

    Returns:
        The content of study.json.

    Raises:
        ConfigError: Something cannot run; the message holds every error.
        StudyError: A training or a row failed.
    """
    words = common_words(cfg, typed)
    runs, trainings = _runs(study, cfg)
    errors = common_errors(cfg) + [error for training in trainings for error in training.errors()]
    raise_errors(errors + (_errors_of_overrides(study, runs, words) if trainings else []))
    for training in trainings:
        runs[training.name] = _checkpoint(training.run(), cfg)
    rows = study.rows(runs)
    requests = [request_of(row.name, row.ckpt or "", words, row.overrides) for row in rows]
    raise_errors(_errors_of_rows(study, requests))
    out = _folder(study, cfg, runs)
    evaluators: dict[str, Evaluator] = {}
    cache = out.parent / "rows" if not cfg.out else out / "rows"
    records = _records(study, requests, cache, evaluators)
    records = [{**r, "curve": row.curve} for r, row in zip(records, rows, strict=True)]
    return write_study(study, requests, records, _evaluator(requests[0], evaluators), out, typed)


def _runs(study: Study, cfg: DictConfig) -> tuple[dict[str, Path | None], list[Training]]:
    """The checkpoints that exist, by run, and the trainings of the others."""
    paths = {name: run["path"] for name, run in study.runs.items()}
    if cfg.ckpt and len(paths) > 1:
        typed = " ".join(f"study.runs.{name}.path=RUN" for name in paths)
        raise ConfigError(
            f"study={study.name} compares {len(paths)} runs: in place of ckpt give {typed}, or "
            "none of them to have them trained"
        )
    if cfg.ckpt:
        paths = dict.fromkeys(paths, str(cfg.ckpt))
    runs = {name: _checkpoint(path, cfg) if path else None for name, path in paths.items()}
    words = {name: [*study.runs[name]["train"], *study.training] for name in runs}
    missing = [name for name, ckpt in runs.items() if ckpt is None]
    return runs, [training_of(name, words[name], cfg) for name in missing]


def _checkpoint(path: str | Path, cfg: DictConfig) -> Path:
    return find_checkpoint(str(path), Path(str(cfg.paths.output_dir)))


def _errors_of_overrides(
    study: Study, runs: Mapping[str, Path | None], words: Sequence[str]
) -> list[str]:
    """Rows that do not compose, found before hours of training are spent on them."""
    errors = []
    for row in study.rows(runs):
        try:
            compose("evaluate", [*words, *row.overrides])
        except ConfigError as error:
            errors.append(f"study.rows, {' '.join(row.overrides)}: {error}")
    return errors


def _errors_of_rows(study: Study, requests: Sequence[EvaluationRequest]) -> list[str]:
    errors = []
    for request in requests:
        lacking = study.lacking(request.stored)
        if lacking:
            errors.append(f"study={study.name} cannot use {request.cfg.ckpt}: {lacking}")
    errors += [f"row {r.name!r}: {error}" for r in requests for error in r.errors()]
    return list(dict.fromkeys(errors))


def _folder(study: Study, cfg: DictConfig, runs: Mapping[str, Path | None]) -> Path:
    """`out`, else studies/NAME in the one run's folder, else in the folder of all runs."""
    if cfg.out:
        return Path(str(cfg.out)).expanduser()
    home = Path(str(cfg.paths.output_dir))
    first = next(iter(runs.values()))
    if len(runs) == 1 and first is not None:
        home = run_folder_of(first)
        for name in (f"studies/{study.name}", "studies/rows"):
            refuse_link_below(home, name)
    return home / "studies" / study.name


def _records(
    study: Study,
    requests: Sequence[EvaluationRequest],
    cache: Path,
    evaluators: dict[str, Evaluator],
) -> list[Record]:
    """The record of each request: taken from the folder `cache`, or measured and written there."""
    import torch

    from diffusion_lab.runs.environment import hardware

    machine = hardware(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    files = [cache / f"{request.key(machine)}.json" for request in requests]
    records = [read_record(file) for file in files]
    calls = [request.network_calls() * request.cfg.num_samples for request in requests]
    missing = [k for k, record in enumerate(records) if not record]
    total = sum(calls[k] for k in missing)
    print(_price(study, requests, len(missing), total), flush=True)
    progress = ProgressLine(total)
    for k in missing:
        name = f"row {k + 1} of {len(requests)}, {requests[k].name}"
        progress.begin(name)
        evaluator = _evaluator(requests[k], evaluators)
        records[k] = _measure(requests[k], evaluator, progress, files[k]) | {"hardware": machine}
        write_atomically(files[k], json.dumps(records[k], indent=1, default=str).encode())
        progress.keep(f"{name}: drawn in {clock(records[k]['figures']['seconds'])}")
    return [
        record | {"row": request.name, "file": str(file)}
        for request, record, file in zip(requests, records, files, strict=True)
    ]


def _price(study: Study, requests: Sequence[EvaluationRequest], missing: int, calls: float) -> str:
    count, cached = requests[0].cfg.num_samples, len(requests) - missing
    done = f" ({cached} of them measured before)" if cached else ""
    return (
        f"study={study.name}: {len(requests)} rows of {count:,} samples each{done}; "
        f"{calls:,.0f} network calls (an image each) to make\n  {study.claim}"
    )


def _evaluator(request: EvaluationRequest, evaluators: dict[str, Evaluator]) -> Evaluator:
    """One evaluator for each data set: a classifier is loaded once."""
    from diffusion_lab.evaluation.evaluators import evaluator_of

    key = json.dumps(
        [request.settings["data"], request.stored.get("data")], default=str, sort_keys=True
    )
    if key not in evaluators:
        evaluators[key] = evaluator_of(request)
    return evaluators[key]


def _measure(
    request: EvaluationRequest, evaluator: Evaluator, progress: ProgressLine, file: Path
) -> Record:
    """Measure a request, and store its samples beside its record."""
    import numpy as np

    from diffusion_lab.evaluation.measuring import measure

    try:
        scores, samples, _ = measure(request, evaluator, progress)
    except ValueError as error:
        raise StudyError(f"row {request.name!r}: {error}") from None
    buffer = io.BytesIO()
    np.savez_compressed(buffer, samples=samples.numpy())
    write_atomically(file.with_suffix(".npz"), buffer.getvalue())
    return {
        "figures": scores,
        "unit": evaluator.unit,
        "overrides": list(request.overrides),
        "checkpoint": {"path": str(request.cfg.ckpt), "sha256": request.sha256},
        "settings": request.settings,
        "measured": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
