"""Score samples of a trained model: `python -m diffusion_lab.evaluate ckpt=PATH`.

The steps, in order: refuse what cannot run, get the evaluator of the data that the model was
trained on (for images two classifiers, trained once and cached), draw, score, write scores and
pictures. `study=NAME` does that for every row of a study and makes a table and pictures of them.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusion_lab.checkpoints.finding import missing_checkpoint
from diffusion_lab.config.building import instantiate
from diffusion_lab.config.checking import check, raise_errors
from diffusion_lab.config.main import run
from diffusion_lab.config.words import into_rows
from diffusion_lab.errors import ConfigError
from diffusion_lab.evaluation.request import EvaluationRequest, plain
from diffusion_lab.runs.folder import run_folder_of, typed_now

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from diffusion_lab.evaluation.evaluators import Evaluator
    from diffusion_lab.evaluation.measuring import Measurement


def evaluate(
    cfg: DictConfig,
    typed: Sequence[str] | None = None,
    checkpoint: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Score what a config describes, print the scores and write them.

    Args:
        cfg: A config of `conf/evaluate.yaml`.
        typed: In a study, the overrides that its rows start from (a row has a sampler of its own,
            so the one in `cfg` cannot be distinguished from a default); None is what was typed.
        checkpoint: The content of the file `cfg.ckpt`; read from it unless given.

    Returns:
        The scores of `metrics.scores` or `metrics.points`, with `network_calls` per image and the
        `seconds` of drawing; of a study, its study.json.

    Raises:
        ConfigError: The config cannot run; the message holds every error.
        StudyError: A training or a row of a study failed.
    """
    if cfg.get("study"):
        return _measured_study(cfg, typed_now()[0] if typed is None else typed)
    if not cfg.ckpt:
        raise ConfigError(missing_checkpoint("evaluate", str(cfg.paths.output_dir)))
    request = EvaluationRequest(cfg, loaded=checkpoint)
    raise_errors(request.errors())
    from diffusion_lab.evaluation.evaluators import evaluator_of
    from diffusion_lab.evaluation.measuring import measure
    from diffusion_lab.evaluation.progress_line import ProgressLine

    calls = request.network_calls()
    evaluator = evaluator_of(request)
    print(f"{cfg.num_samples:,} {evaluator.unit}, {calls:,.6g} network calls for each", flush=True)
    progress = ProgressLine(calls * cfg.num_samples)
    progress.begin(f"drawing {cfg.num_samples:,} {evaluator.unit}")
    try:
        measured = measure(request, evaluator, progress)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    progress.end()
    scores = measured.scores
    cost = f"to draw; {scores['scoring_seconds']:.1f} more to score"
    for line in [("seconds", f"{scores['seconds']:.1f}", cost), *evaluator.lines(scores)]:
        print("{:<22}{:>9}   {}".format(*line))
    print(f"\n{_write_scores(measured, evaluator, request)}")
    return scores


def _measured_study(cfg: DictConfig, typed: Sequence[str]) -> dict[str, Any]:
    """All rows of a study."""
    node = plain(cfg.study)
    raise_errors(check({"study": node, "trust": plain(cfg.trust)}))
    from diffusion_lab.studies.execution import run_study

    try:
        study = instantiate(node, trust=cfg.trust)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"study: {error}") from None
    content = run_study(study, cfg, typed)
    if cfg.ckpt:
        _renew_report(run_folder_of(Path(str(cfg.ckpt))))
    return content


def _write_scores(measured: Measurement, evaluator: Evaluator, request: EvaluationRequest) -> str:
    """Write scores and pictures, and name the files in one line."""
    from diffusion_lab.figures.pictures import save_picture
    from diffusion_lab.files import write_atomically

    cfg = request.cfg
    folder = run_folder_of(Path(cfg.ckpt))
    path = Path(cfg.out).expanduser() if cfg.out else folder / "metrics.json"
    content = {**measured.scores, "settings": {"ckpt": str(cfg.ckpt), **request.settings}}
    content |= evaluator.counts(measured.scored)
    written = [write_atomically(path, json.dumps(content, indent=2).encode())]
    for name, picture in evaluator.pictures(measured.scored, measured.samples).items():
        written.append(save_picture(path.with_name(f"{path.stem}_{name}.png"), picture))
    _renew_report(folder)
    return " ".join([str(written[0]), *(file.name for file in written[1:])])


def _renew_report(folder: Path) -> None:
    """Write the run's page again, where it has one."""
    from diffusion_lab.reporting.html import write_report

    if not (folder / "report.html").is_file():
        return
    try:
        write_report(folder)
    except OSError as error:
        warnings.warn(f"{folder / 'report.html'} could not be written: {error}", stacklevel=1)


def main() -> None:
    """The command line."""
    run("evaluate", evaluate, prepare=into_rows)


if __name__ == "__main__":
    main()
