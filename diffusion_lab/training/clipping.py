"""Clipping gradients under every precision, with every optimizer.

A fused optimizer under a gradient scaler (`trainer.precision=16-mixed`) is handed scaled gradients
and unscales them within its step, so whatever looks at them before, clipping, their norm and the
guard, would see them too large by the scale. There the optimizer is therefore built without
`fused`, and the scaler unscales before the step:

| precision | optimizer | built | gradients before the step |
|---|---|---|---|
| 16-mixed | fused | not fused | unscaled by the scaler |
| 16-mixed | not fused | as asked | unscaled by the scaler |
| any other | fused or not | as asked | never scaled |

So clipping, by norm or by value, is the same in each row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from torch import Tensor, nn
from torch.optim import Optimizer


def unscaled_optimizer(
    make: Callable[..., Optimizer], parameters: Iterable[nn.Parameter], scaled: bool
) -> Optimizer:
    """Make the optimizer, without `fused` where a gradient scaler is at work (`scaled`).

    Raises:
        ValueError: It unscales gradients itself all the same.
    """
    if scaled and getattr(make, "keywords", {}).get("fused"):
        make = partial(make, fused=False)
    optimizer = make(parameters)
    if scaled and getattr(optimizer, "_step_supports_amp_scaling", False):
        raise ValueError(
            f"trainer.precision=16-mixed: a fused {type(optimizer).__name__} unscales gradients "
            "after they are clipped; build it with fused=False"
        )
    return optimizer


def clip(
    parameters: Iterable[nn.Parameter], limit: float | None, algorithm: str | None, measured: bool
) -> Tensor | None:
    """Clip unscaled gradients in place.

    Args:
        parameters: Those with gradients.
        limit: Largest norm, or largest absolute value; None or 0: nothing is clipped.
        algorithm: "norm" (None is the same) or "value".
        measured: Whether the norm is wanted although nothing is clipped by it.

    Returns:
        The norm of all gradients together as it was before; None where it was not needed.
    """
    parameters = [p for p in parameters if p.grad is not None]
    grads = [p.grad for p in parameters if p.grad is not None]
    if limit and algorithm in (None, "norm"):
        return nn.utils.clip_grad_norm_(parameters, limit)
    norm = nn.utils.get_total_norm(grads) if measured else None
    if limit:
        nn.utils.clip_grad_value_(parameters, limit)
    return norm
