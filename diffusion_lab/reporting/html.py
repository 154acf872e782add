"""One self-contained HTML page of a run, or of a sweep: `report.html`.

Nothing is fetched. Every text from a run is escaped by the template engine, and the content policy
lets only the page's own style and script (named by their hashes) act, so that a hostile name stays
text.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from diffusion_lab.files import write_atomically
from diffusion_lab.reporting.run_page import run_context
from diffusion_lab.reporting.sweep_page import sweep_context
from diffusion_lab.runs.records import read_run

TEMPLATES = Path(__file__).parent / "templates"


def write_report(run_dir: str | Path, out: str | Path | None = None) -> Path:
    """Write `report.html` of a run folder, or of a sweep folder (one that holds `sweep.csv`).

    Args:
        run_dir: The folder; only its own files are read.
        out: Where to write; None for `run_dir/report.html`.

    Returns:
        The page's path.

    Raises:
        FileNotFoundError: No such folder.
        ValueError: The folder holds nothing of a run or a sweep.
    """
    folder = Path(run_dir)
    target = Path(out) if out is not None else folder / "report.html"
    if (folder / "sweep.csv").is_file():
        page = render("sweep.html.j2", sweep_context(folder, target.parent))
        return write_atomically(target, page)
    run = read_run(folder)
    if run.empty:
        raise ValueError(
            f"run={str(run_dir)!r} holds no config.yaml, summary.json, metrics.csv or samples/: "
            "give the folder that a training run printed at its end"
        )
    return write_atomically(target, render("run.html.j2", run_context(run)))


def render(template: str, context: dict[str, Any]) -> bytes:
    """Fill a template; style and scripts go in verbatim, with the policy that admits only them."""
    style = (TEMPLATES / "page.css").read_text("utf-8")
    script = "".join((TEMPLATES / name).read_text("utf-8") for name in ("charts.js", "page.js"))
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    policy = (
        "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src 'sha256-{_hash(style)}'; script-src 'sha256-{_hash(script)}'"
    )
    page = environment.get_template(template).render(
        **context, policy=policy, style=Markup(style), script=Markup(script)
    )
    return page.encode()


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
