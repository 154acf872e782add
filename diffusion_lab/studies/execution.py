"""Going through the rows of a study: price, draw or take what is kept, write."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusion_lab.config.arguments import compose
from diffusion_lab.config.checking import raise_errors
from diffusion_lab.errors import ConfigError, StudyError
from diffusion_lab.evaluation.request import (
    EvaluationRequest,
    common_faults,
    common_words,
    request_of,
)
from diffusion_lab.evaluation.share_done import ProgressLine
from diffusion_lab.files import read_record, write_atomically
from diffusion_lab.runs.folder import refuse_link_below, run_folder_of
from diffusion_lab.status_line import clock
from diffusion_lab.studies.results import Record, write_study
from diffusion_lab.studies.runs import Training, checkpoint_of, training_of

if TYPE_CHECKING:
    from diffusion_lab.config.composing import DictConfig
    from diffusion_lab.evaluation.evaluators import Evaluator
    from diffusion_lab.studies.study import Study


def run_study(study: Study, cfg: DictConfig, typed: Sequence[str] = ()) -> dict[str, Any]:
    """Measure all rows of a study, print the table and write everything.

    Args:
        study: The study.
        cfg: The config of `evaluate` that it was asked for in.
        typed: What was typed; all rows start from its sampler, guidance, constraint and data.

    Returns:
        The content of study.json.

    Raises:
        ConfigError: Something cannot run; the message holds every fault.
        StudyError: A training or a row failed.
    """
    words = common_words(cfg, typed)
    runs, trainings = _runs(study, cfg)
    faults = common_faults(cfg) + [f for training in trainings for f in training.faults()]
    raise_errors(faults + _unsettled(study, words, bool(trainings)))
    for training in trainings:
        runs[training.name] = checkpoint_of(training.run(), cfg)
    runs = {name: runs[name] for name in study.runs}
    rows = study.rows(runs)
    requests = [request_of(row.name, row.ckpt, words, row.overrides) for row in rows]
    raise_errors(_faults(study, requests))
    out = _folder(study, cfg, runs)
    evaluators: dict[str, Evaluator] = {}
    kept = out.parent / "rows" if not cfg.out else out / "rows"
    records = _measured(study, requests, kept, evaluators)
    records = [{**r, "curve": row.curve} for r, row in zip(records, rows, strict=True)]
    return write_study(study, requests, records, _evaluator(requests[0], evaluators), out, typed)


def _runs(study: Study, cfg: DictConfig) -> tuple[dict[str, Path], list[Training]]:
    """The checkpoints that are there, and the trainings of the others."""
    paths = {name: run.path for name, run in study.runs.items()}
    if cfg.ckpt and len(paths) > 1:
        typed = " ".join(f"study.runs.{name}.path=RUN" for name in paths)
        raise ConfigError(
            f"study={study.name} compares {len(paths)} runs: in place of ckpt give {typed}, or "
            "none of them to have them trained"
        )
    if cfg.ckpt:
        paths = dict.fromkeys(paths, str(cfg.ckpt))
    there = {name: checkpoint_of(path, cfg) for name, path in paths.items() if path}
    missing = [name for name in paths if name not in there]
    return there, [training_of(name, study.runs[name], study.training, cfg) for name in missing]


def _unsettled(study: Study, words: Sequence[str], trains: bool) -> list[str]:
    """Rows that do not compose, found before hours of training are spent on them."""
    found = []
    for overrides in study.rows.settings() if trains else ():
        try:
            compose("evaluate", [*words, *overrides])
        except ConfigError as error:
            found.append(f"study.rows, {' '.join(overrides)}: {error}")
    return found


def _faults(study: Study, requests: Sequence[EvaluationRequest]) -> list[str]:
    found: dict[str, None] = {}
    for request in requests:
        for need in study.needs:
            fault = need.fault(request.stored)
            if fault:
                found[f"study={study.name} cannot look at {request.cfg.ckpt}: {fault}"] = None
    found |= {
        f"row {request.name!r}: {fault}": None for request in requests for fault in request.faults()
    }
    return list(found)


def _folder(study: Study, cfg: DictConfig, runs: Mapping[str, Path]) -> Path:
    """`out`, else studies/NAME in the one run's folder, else in the folder of all runs."""
    if cfg.out:
        return Path(str(cfg.out)).expanduser()
    home = Path(str(cfg.paths.output_dir))
    if len(runs) == 1:
        home = run_folder_of(next(iter(runs.values())))
        for name in (f"studies/{study.name}", "studies/rows"):
            refuse_link_below(home, name)
    return home / "studies" / study.name


def _measured(
    study: Study,
    requests: Sequence[EvaluationRequest],
    kept: Path,
    evaluators: dict[str, Evaluator],
) -> list[Record]:
    """The record of each request: taken from the folder `kept`, or measured and put there."""
    import torch

    from diffusion_lab.runs.environment import hardware

    machine = hardware(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    files = [kept / f"{request.key(machine)}.json" for request in requests]
    records = [read_record(file) for file in files]
    calls = [request.network_calls() * request.cfg.num_samples for request in requests]
    todo = [k for k, record in enumerate(records) if not record]
    total = sum(calls[k] for k in todo)
    print(_cost(study, requests, len(todo), total), flush=True)
    progress = ProgressLine(total)
    for k in todo:
        progress.begin(f"row {k + 1} of {len(requests)}, {requests[k].name}")
        evaluator = _evaluator(requests[k], evaluators)
        records[k] = _draw(requests[k], evaluator, progress, files[k]) | {"hardware": machine}
        write_atomically(files[k], json.dumps(records[k], indent=1, default=str).encode())
        seconds = records[k]["figures"]["seconds"]
        progress.keep(
            f"row {k + 1} of {len(requests)}, {requests[k].name}: drawn in {clock(seconds)}"
        )
    return [
        record | {"row": request.name, "file": str(file)}
        for request, record, file in zip(requests, records, files, strict=True)
    ]


def _cost(study: Study, requests: Sequence[EvaluationRequest], todo: int, calls: float) -> str:
    count = requests[0].cfg.num_samples
    done = f" ({len(requests) - todo} of them measured before)" if todo < len(requests) else ""
    return (
        f"study={study.name}: {len(requests)} rows of {count:,} samples each{done}; "
        f"{calls:,.0f} network calls (an image each) to make\n  {study.claim}"
    )


def _evaluator(request: EvaluationRequest, evaluators: dict[str, Evaluator]) -> Evaluator:
    """One evaluator a data set: a classifier is loaded once."""
    from diffusion_lab.evaluation.evaluators import evaluator_of

    key = json.dumps(
        [request.settings["data"], request.stored.get("data")], default=str, sort_keys=True
    )
    if key not in evaluators:
        evaluators[key] = evaluator_of(request)
    return evaluators[key]


def _draw(
    request: EvaluationRequest, evaluator: Evaluator, progress: ProgressLine, file: Path
) -> Record:
    """Measure a request, and keep its samples beside its record."""
    import numpy as np

    from diffusion_lab.evaluation.measuring import measure

    try:
        figures, samples, _ = measure(request, evaluator, progress)
    except ValueError as error:
        raise StudyError(f"row {request.name!r}: {error}") from None
    buffer = io.BytesIO()
    np.savez_compressed(buffer, samples=samples.numpy())
    write_atomically(file.with_suffix(".npz"), buffer.getvalue())
    return {
        "figures": figures,
        "unit": evaluator.unit,
        "overrides": list(request.overrides),
        "checkpoint": {"path": str(request.cfg.ckpt), "sha256": request.sha256},
        "settings": request.settings,
        "measured": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
