"""What a study writes: table.md, table.csv, study.json, figure.png and samples.png."""

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
"""What is stored of a row: its scores, under `figures`, and what they belong to."""


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
        requests: Its rows as they were requested.
        records: What is stored of them, with `row`, `curve` and `file`.
        evaluator: That of the first row's data.
        out: The folder.
        typed: What was typed, for the record.

    Returns:
        The content of study.json.
    """
    from diffusion_lab.figures.pictures import save_picture
    from diffusion_lab.studies.text_tables import comma_separated, markdown, with_speedup

    named = [{"row": r["row"], "curve": r["curve"], **r["figures"]} for r in records]
    rows = study.figure.marked(with_speedup(named))
    parts = [study.claim, markdown(rows, study.columns), _conditions(requests, records)]
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
        parts += _difference_tables(content["differences"], records[0]["row"])
    text = "\n\n".join(parts)
    write_atomically(out / "table.md", f"{text}\n".encode())
    write_atomically(out / "table.csv", comma_separated(rows).encode())
    write_atomically(out / "study.json", json.dumps(content, indent=1, default=str).encode())
    write_atomically(out / "figure.png", study.figure.png(rows))
    shown = [_samples(record)[: evaluator.shown] for record in records]
    save_picture(out / "samples.png", evaluator.page([r["row"] for r in records], shown))
    printed = "\n\n".join(parts[1:])
    print(f"\n{printed}\n\n{out}/ table.md table.csv study.json figure.png samples.png")
    return content


def _samples(record: Record) -> Tensor:
    """The samples of a row, float32 (N, *shape)."""
    import numpy as np
    import torch

    with np.load(Path(record["file"]).with_suffix(".npz")) as arrays:
        return torch.from_numpy(arrays["samples"])


def _differences(
    requests: Sequence[EvaluationRequest], records: Sequence[Record], evaluator: Evaluator
) -> dict[str, dict[str, dict[str, float]]]:
    """Every row less the first, metric by metric, see `metrics.scores.compare`."""
    from diffusion_lab.metrics.scores import compare

    first, *others = (
        evaluator.scored(_samples(record), request.labels)
        for request, record in zip(requests, records, strict=True)
    )
    differences: dict[str, dict[str, dict[str, float]]] = {}
    for record, other in zip(records[1:], others, strict=True):
        flat = compare(other, first)
        rows = differences[record["row"]] = {}
        for key in [key for key in flat if key.endswith("_difference")]:
            ends = {"value": flat[key], "low": flat[f"{key}_low"], "high": flat[f"{key}_high"]}
            finite = {end: value for end, value in ends.items() if value is not None}
            if len(finite) == len(ends):
                rows[key.removesuffix("_difference")] = finite
    return differences


def _difference_tables(differences: dict[str, dict[str, Any]], first: str) -> list[str]:
    """A table for each row, with a verdict in words."""
    from diffusion_lab.studies.text_tables import difference_table

    return [
        f"{name} less {first}, paired by noise and labels:\n\n"
        f"{difference_table(metrics, name, first)}"
        for name, metrics in differences.items()
    ]


def _conditions(requests: Sequence[EvaluationRequest], records: Sequence[Record]) -> str:
    """The conditions of the measurement, for the reader of the table."""
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
