"""What a study leaves behind: table.md, table.csv, study.json, figure.png and samples.png."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusion_lab.files import write_atomically

if TYPE_CHECKING:
    from torch import Tensor

    from diffusion_lab.evaluation.evaluators import Evaluator
    from diffusion_lab.evaluation.request import EvaluationRequest
    from diffusion_lab.studies.study import Study

Record = dict[str, Any]
"""What is kept of a row: `figures`, and what they belong to."""


def write_study(
    study: Study,
    requests: Sequence[EvaluationRequest],
    records: Sequence[Record],
    evaluator: Evaluator,
    out: Path,
    typed: Sequence[str],
) -> dict[str, Any]:
    """Print the table and write everything.

    Args:
        study: The study.
        requests: Its rows as they were asked for.
        records: What is kept of them, with `row`, `curve` and `file`.
        evaluator: That of the first row's data.
        out: The folder.
        typed: What was typed, for the record.

    Returns:
        The content of study.json.
    """
    from diffusion_lab.figures.grids import save_picture
    from diffusion_lab.studies.text_tables import comma_separated, markdown, with_speedup

    named = [{"row": r["row"], "curve": r["curve"], **r["figures"]} for r in records]
    rows = study.figure.marked(with_speedup(named))
    parts = [study.claim, markdown(rows, study.columns), _note(requests, records)]
    if any(row.get("front") for row in rows):
        parts.append("*A star: no other row is better with as few network calls.*")
    content: dict[str, Any] = {
        "study": study.name,
        "claim": study.claim,
        "typed": list(typed),
        "table": rows,
        "rows": list(records),
    }
    if study.paired:
        content["differences"] = _differences(requests, records, evaluator)
        parts += _verdicts(content["differences"], records[0]["row"])
    text = "\n\n".join(parts)
    write_atomically(out / "table.md", f"{text}\n".encode())
    write_atomically(out / "table.csv", comma_separated(rows).encode())
    write_atomically(out / "study.json", json.dumps(content, indent=1, default=str).encode())
    write_atomically(out / "figure.png", study.figure.png(rows))
    shown = [kept_samples(record)[: evaluator.shown] for record in records]
    save_picture(out / "samples.png", evaluator.page([r["row"] for r in records], shown))
    shown_text = "\n\n".join(parts[1:])
    print(f"\n{shown_text}\n\n{out}/ table.md table.csv study.json figure.png samples.png")
    return content


def kept_samples(record: Record) -> Tensor:
    """The samples of a row, float32 (N, *shape)."""
    import numpy as np
    import torch

    with np.load(Path(record["file"]).with_suffix(".npz")) as arrays:
        return torch.from_numpy(arrays["samples"])


def _differences(
    requests: Sequence[EvaluationRequest], records: Sequence[Record], evaluator: Evaluator
) -> dict[str, dict[str, dict[str, float]]]:
    """Every row less the first, figure by figure, see `metrics.comparison`."""
    from diffusion_lab.metrics.scores import compare

    first, *others = (
        evaluator.scored(kept_samples(record), request.labels)
        for request, record in zip(requests, records, strict=True)
    )
    found: dict[str, dict[str, dict[str, float]]] = {}
    for record, other in zip(records[1:], others, strict=True):
        flat = compare(other, first)
        names = [key.removesuffix("_difference") for key in flat if key.endswith("_difference")]
        ends = {"value": "", "low": "_low", "high": "_high"}
        every = {
            name: {end: flat[f"{name}_difference{tail}"] for end, tail in ends.items()}
            for name in names
        }
        found[record["row"]] = {
            name: {end: value for end, value in parts.items() if value is not None}
            for name, parts in every.items()
            if None not in parts.values()
        }
    return found


def _verdicts(differences: dict[str, dict[str, Any]], first: str) -> list[str]:
    """A table of differences a row, in words a reader can act on."""
    from diffusion_lab.studies.text_tables import difference_table

    return [
        f"{name} less {first}, paired by noise and labels:\n\n"
        f"{difference_table(figures, name, first)}"
        for name, figures in differences.items()
    ]


def _note(requests: Sequence[EvaluationRequest], records: Sequence[Record]) -> str:
    """Under what conditions the figures were taken, for the reader of the table."""
    cfg, machine = requests[0].cfg, records[0]["hardware"]
    device = machine.get("accelerator")
    if device is None or str(cfg.device) == "cpu":
        threads = "1 thread" if machine["threads"] == 1 else f"{machine['threads']} threads"
        device = f"{threads} of {machine['processor']}"
    labels = "" if requests[0].labels is None else f", label={cfg.label}"
    return (
        f"*{cfg.num_samples:,} {records[0]['unit']} a row from the same noise (seed={cfg.seed}"
        f"{labels}, batches of {cfg.batch_size}) on {device}.*"
    )
