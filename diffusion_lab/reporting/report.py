"""One page that tells the story of a run, or of a sweep.

The page is a single HTML file: pictures are inlined, curves are SVG, nothing is fetched. Every
text from the run is escaped by the template engine, and a content policy lets only the page's own
style and script (named by their hashes) act, so that a hostile name stays text.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shlex
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from diffusion_lab.reporting.curves import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, charts
from diffusion_lab.reporting.files import write_atomically
from diffusion_lab.reporting.records import (
    RunFolder,
    caption,
    flat,
    grids,
    read_run,
    read_table,
    show,
)
from diffusion_lab.reporting.spread import spread

TEMPLATES = Path(__file__).parent / "templates"
MOST_GRIDS = 60
MOST_OF_A_PAGE = 12
"""Pictures shown of a page that has many."""
MOST_PAGE_BYTES = 8_000_000
"""Pages beyond this are named by their file, so that the report can still be sent by mail."""
LINE_COLOURS = 6


def write_report(run_dir: str | Path, out: str | Path | None = None) -> Path:
    """Write ``report.html`` of a run folder, or of a sweep folder (one that holds ``sweep.csv``).

    Args:
        run_dir: the folder; only its own files are read.
        out: where to write; None for ``run_dir/report.html``.

    Returns:
        The page's path.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: the folder holds nothing of a run or a sweep.
    """
    folder = Path(run_dir)
    target = Path(out) if out is not None else folder / "report.html"
    if (folder / "sweep.csv").is_file():
        return write_atomically(target, _render("sweep.html.j2", _sweep(folder)))
    run = read_run(folder)
    if run.empty:
        raise ValueError(
            f"run={str(run_dir)!r} holds no config.yaml, summary.json, metrics.csv or samples/: "
            "give the folder that a training run printed at its end"
        )
    return write_atomically(target, _render("run.html.j2", _story(run)))


def _story(run: RunFolder) -> dict[str, Any]:
    """Everything the run page shows."""
    scalars = {k: v for k, v in run.summary.items() if not isinstance(v, dict)}
    sections = {k: [*flat(v)] for k, v in run.summary.items() if isinstance(v, dict) and v}
    chosen = run.grids
    if len(chosen) > MOST_GRIDS:
        chosen = tuple(chosen[k] for k in spread(len(chosen), MOST_GRIDS))
    return {
        "title": run.path.resolve().name,
        "status": show(run.summary.get("status", "unknown")),
        "warnings": _warnings(run),
        "scalars": [*flat(scalars)],
        "sections": sections,
        "evaluation": [*flat(run.evaluation)],
        "overrides": [line.partition("=")[::2] for line in run.overrides],
        "charts": charts(run.metrics),
        "grids": [(caption(path), _inline(path)) for path in chosen],
        "pages": _pages(run),
        "config": run.config,
        "commands": _commands(run),
    }


def _warnings(run: RunFolder) -> list[str]:
    """What a reader must not miss."""
    data = run.summary.get("data")
    fallback = data.get("fallback") if isinstance(data, dict) else None
    status = run.summary.get("status")
    why = f" {run.summary['error']}" if run.summary.get("error") else ""
    ended = [] if status in ("finished", None) else [f"This run is {status}, not finished.{why}"]
    failed = [f"Page {p.name} could not be made: {p.error}" for p in run.pages if p.error]
    return [*([str(fallback)] if fallback else []), *ended, *failed, *run.remarks]


def _pages(run: RunFolder) -> list[dict[str, Any]]:
    """The pages with pictures: title, caption, and (file, data URI or "") of each picture."""
    shown = []
    left = MOST_PAGE_BYTES
    for page in run.pages:
        files = [page.files[k] for k in spread(len(page.files), MOST_OF_A_PAGE) if page.files]
        pictures = []
        for path in files:
            size = path.stat().st_size
            pictures.append((str(path.relative_to(run.path)), _inline(path) if size < left else ""))
            left -= size if size < left else 0
        if pictures:
            title = page.name.replace("_", " ")
            shown.append({"title": title, "caption": page.caption, "pictures": pictures})
    return shown


def _commands(run: RunFolder) -> list[tuple[str, str]]:
    """What to type to get this run again, and to go on from it."""
    folder = shlex.quote(os.path.relpath(run.path))
    again = " ".join(["python -m diffusion_lab.train", *map(shlex.quote, run.overrides)])
    sample = f"python -m diffusion_lab.sample ckpt={folder} label=all num_samples=100 out=grid.png"
    return [
        ("Train it again", again),
        ("Draw samples", sample),
        ("Score it", f"python -m diffusion_lab.evaluate ckpt={folder}"),
    ]


def _sweep(folder: Path) -> dict[str, Any]:
    """Everything the sweep page shows: the table, and the last grid of each job."""
    header, rows = read_table(folder / "sweep.csv")
    jobs = sorted(path.parent for path in folder.glob("*/samples") if path.is_dir())
    last = [(job.name, grids(job)[-1:]) for job in jobs]
    return {
        "title": folder.resolve().name,
        "header": header,
        "rows": rows,
        "grids": [(name, _inline(found[0])) for name, found in last if found][:MOST_GRIDS],
    }


def _inline(path: Path) -> str:
    """A PNG file as a data URI."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def _render(template: str, content: dict[str, Any]) -> bytes:
    """Fill a template; style and script go in verbatim, with the policy that admits only them."""
    style = (TEMPLATES / "page.css").read_text(encoding="utf-8")
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
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
    box = {"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": WIDTH - RIGHT}
    box |= {"top": TOP, "bottom": HEIGHT - BOTTOM, "colours": LINE_COLOURS}
    page = environment.get_template(template).render(
        **content, policy=policy, style=Markup(style), script=Markup(script), box=box
    )
    return page.encode()


def _hash(text: str) -> str:
    """The hash by which a content policy names an inline style or script."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
