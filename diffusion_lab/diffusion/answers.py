"""Several answers of one model: the same question under several conditions, and what lies between.

Guidance is made of these two functions (Ho & Salimans, arXiv 2207.12598).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from diffusion_lab.diffusion.conditions import Condition, Query, joined
from diffusion_lab.diffusion.gaussian import Level, combine
from diffusion_lab.diffusion.model import Denoised, DenoiseFn


def with_each(query: Query, givens: Sequence[Condition]) -> Query:
    """One query that asks the same under each condition: n B rows, condition by condition."""
    n = len(givens)
    at, to = (
        level if level is None or not level.t.ndim else Level(*(part.repeat(n) for part in level))
        for level in (query.at, query.to)
    )
    assert at is not None
    return Query(torch.cat([query.x] * n), at, to, joined(givens))


def ask_each(model: DenoiseFn, query: Query, givens: Sequence[Condition]) -> list[Denoised]:
    """The model's answers to one query under each condition, in one call of n B rows."""
    answer, n = model(with_each(query, givens)), len(givens)
    parts = [[None] * n if part is None else list(part.chunk(n)) for part in answer]
    return [Denoised(*same) for same in zip(*parts, strict=True)]


def extrapolated(u: Tensor, c: Tensor, scale: Tensor) -> Tensor:
    """The point u + scale (c - u), (B, *), of two answers: u at 0, c at 1."""
    return combine((scale, c), (1.0 - scale, u))
