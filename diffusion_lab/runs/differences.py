"""What a run's config holds that the default recipe does not, for the report of the run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from diffusion_lab.config.composing import options, raw, settle

Difference = tuple[str, Any, Any]
"""A key, its value in the default recipe (None: it has none) and its value here."""

_OF_THE_PLACE = frozenset(
    {"run_dir", "resume", "name", "paths", "data_dir", "beside", "default_root_dir", "trust"}
)
_NOT_OF_A_RECIPE = frozenset({"local", "paths", "budget", "experiment/budget"})
_SHOWN_ELSEWHERE = ("callbacks.artefacts.pages.", "callbacks.record.")


def differences(cfg: DictConfig, choices: Mapping[str, str]) -> list[Difference]:
    """Compare a run's config with that of `train` with nothing typed, at the same budget.

    Args:
        cfg: The config of the run.
        choices: Its choices of groups, see `folder.typed_now`; {} where they are unknown.

    Returns:
        Groups chosen otherwise, then keys with another value. Places, and what only the default
        recipe has, are left out; so are classes, where the choices that name them are known.
    """
    budget = str(choices.get("budget") or cfg.get("budget"))
    usual, usual_choices = _default(budget if budget in options("budget") else "cpu")
    here = _leaves(OmegaConf.to_container(cfg, resolve=True))
    groups = [
        (group, usual_choices.get(group), choice)
        for group, choice in sorted(choices.items(), key=lambda item: item[0] != "experiment")
        if group not in _NOT_OF_A_RECIPE and usual_choices.get(group) != choice
    ]
    keys = [(key, usual.get(key), value) for key, value in here if usual.get(key) != value]
    return groups + [row for row in keys if _tells(row, classes=not choices)]


def _tells(row: Difference, classes: bool) -> bool:
    """Whether a reader learns something from it."""
    key, before, here = row
    if here == {} or _OF_THE_PLACE & set(key.split(".")) or key.startswith(_SHOWN_ELSEWHERE):
        return False
    if key.endswith(".seed") or (key == "trainer.precision" and before == "auto"):
        return False  # the seed of all is shown; what "auto" became is in summary.json
    return classes or not key.endswith("_target_")


@cache
def _default(budget: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Leaves and choices of the default recipe; composed once a process, about 0.2 s."""
    cfg = raw("train", [f"budget={budget}", "run_dir=default"], hydra=True)
    chosen = {str(group): choice for group, choice in cfg.hydra.runtime.choices.items()}
    own = {g: str(c) for g, c in chosen.items() if not g.startswith("hydra") and c is not None}
    with open_dict(cfg):
        del cfg["hydra"]
    return dict(_leaves(OmegaConf.to_container(settle(cfg), resolve=True))), own


def _leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
