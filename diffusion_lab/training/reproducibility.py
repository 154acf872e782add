"""Randomness of training as a function of named keys.

Times, noise, label dropout and the network's own dropout of optimizer step k are keyed by
(seed, k, micro-batch), the order of an epoch by (seed, epoch) (`data.loader`). Nothing depends on
how many random numbers were drawn before, so a run resumed at any step repeats what the
uninterrupted run would have done, bit for bit on the same device.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from diffusion_lab.random import seeded_generator

MATMUL_PRECISIONS = ("highest", "high", "medium")


class KeyedNoise:
    """Noise of one global batch, of which each process takes its own rows.

    Every process draws the numbers of the whole global batch, so one process with a batch of
    2 B and two processes with B each train on the same noise.

    Args:
        keys: What identifies the batch, e.g. ("train", seed, step, micro_batch).
        rank: Index of this process.
        world_size: Number of processes.
        counts: Rows of each process, where they are not all this process's number.
    """

    def __init__(
        self,
        *keys: int | str,
        rank: int = 0,
        world_size: int = 1,
        counts: Sequence[int] | None = None,
    ) -> None:
        self.keys = keys
        self.rank = rank
        self.world_size = world_size
        self.counts = counts
        self._on_cpu = seeded_generator(*keys)
        self._on_device: torch.Generator | None = None

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal numbers of `like`'s shape (B, *), drawn in float32 on its device."""
        first, total = self._place(len(like))
        drawn = torch.randn(
            (total, *like.shape[1:]),
            generator=self._generator(like.device),
            device=like.device,
            dtype=torch.float32,
        )
        return drawn[first : first + len(like)].to(like.dtype)

    def uniform(self, n: int) -> Tensor:
        """`n` numbers in [0, 1): float64 on the CPU, shape (n,)."""
        first, total = self._place(n)
        drawn = torch.rand(total, generator=self._on_cpu, dtype=torch.float64)
        return drawn[first : first + n]

    def _place(self, n: int) -> tuple[int, int]:
        """First row of this process, and rows of the global batch."""
        if self.counts is None:
            return self.rank * n, self.world_size * n
        if n != self.counts[self.rank]:
            raise ValueError(
                f"n={n} must be {self.counts[self.rank]}, the rows of the batch; draw several times"
            )
        return sum(self.counts[: self.rank]), sum(self.counts)

    def _generator(self, device: torch.device) -> torch.Generator:
        if device.type == "cpu":
            return self._on_cpu
        if self._on_device is None:
            seed = seeded_generator(*self.keys, "device").initial_seed()
            self._on_device = torch.Generator(device).manual_seed(seed)
        return self._on_device


def seed_dropout(device: torch.device, *keys: int | str) -> None:
    """Seed torch's global generator of `device`, from which dropout layers draw, by `keys`.

    `torch.manual_seed` would do, but where an accelerator's library is present and unused it
    queues a call with its stack trace, at every step.
    """
    seed = seeded_generator("dropout", *keys).initial_seed()
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        getattr(torch, device.type).manual_seed(seed)


def set_global_flags(
    seed: int, *, deterministic: bool = False, matmul_precision: str = "high"
) -> None:
    """Set every process-wide switch, so that no job of a sweep inherits another job's.

    Args:
        seed: Seeds Python's, numpy's and torch's global generators (initial weights).
        deterministic: Refuse operations that have no deterministic implementation.
        matmul_precision: Of float32 products on an accelerator: "highest", "high" (TF32 on
            NVIDIA) or "medium" (bf16).

    Raises:
        ValueError: A seed outside 0 .. 2^32 - 1, or an unknown precision.
    """
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed={seed} must be an integer in 0 .. {2**32 - 1}")
    if matmul_precision not in MATMUL_PRECISIONS:
        raise ValueError(
            f"matmul_precision={matmul_precision!r} must be one of {', '.join(MATMUL_PRECISIONS)}"
        )
    import random

    import numpy as np

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.set_float32_matmul_precision(matmul_precision)
    torch.use_deterministic_algorithms(deterministic)
