"""Batches of in-memory tensors: no per-image Python work, no worker processes.

The order of an epoch is a pure function of (seed, epoch). Together with the position inside the
epoch, which Lightning stores in its checkpoints through `state_dict`, that makes a run that was
stopped anywhere continue with exactly the batch it would have seen. So is which images an epoch
shows mirrored: a function of (seed, epoch, place in the epoch's order).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from diffusion_lab.errors import DataError
from diffusion_lab.random import coins, permutation


class TensorLoader:
    """Iterable of batches `(t[index] for t in tensors)`, split between ranks.

    A global batch holds `world_size * batch_size` consecutive entries of the epoch's order and
    each rank takes its own rows, so ranks see disjoint samples and together one-process batches.

    Args:
        tensors: Of equal length N; a batch holds the same rows of each.
        batch_size: Rows a batch *per process*, as in Lightning.
        seed: With the epoch, determines the order.
        shuffle: False keeps the order of the tensors.
        drop_last: Leave out the last, smaller batch. Otherwise it is shared evenly between the
            ranks; a rest of fewer rows than ranks joins the batch before it.
        rank: Index of this process.
        world_size: Number of processes.
        flip: Mirror about half of each batch of the first tensor left to right (its last axis).
            The epoch and the place in its order decide which, whatever the number of processes.

    Raises:
        DataError: Sizes that do not fit, each with the argument and its value.
    """

    batch_sampler = None
    """Lightning looks for one on everything that has a `sampler`."""

    def __init__(
        self,
        tensors: Sequence[Tensor],
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = True,
        rank: int = 0,
        world_size: int = 1,
        flip: bool = False,
    ) -> None:
        self.tensors = tuple(tensors)
        self.flip = flip
        self.batch_size, self.seed, self.shuffle = batch_size, seed, shuffle
        self.drop_last, self.rank, self.world_size = drop_last, rank, world_size
        lengths = {len(t) for t in self.tensors}
        if len(lengths) != 1:
            raise DataError(f"tensors of lengths {sorted(lengths)}: all must have the same length")
        self.num_samples = lengths.pop()
        self._check()
        self._epoch = 0
        self._resume_at = 0  # batch the next iteration starts with; set by load_state_dict
        self._position = 0  # batches handed out in this epoch

    def _check(self) -> None:
        if self.batch_size < 1:
            raise DataError(f"batch_size={self.batch_size}: must be at least 1")
        if not 0 <= self.rank < self.world_size:
            raise DataError(
                f"rank={self.rank}: must lie in 0 .. world_size - 1 ({self.world_size})"
            )
        need = self.world_size * (self.batch_size if self.drop_last else 1)
        if self.num_samples < need:
            raise DataError(
                f"batch_size={self.batch_size} on {self.world_size} process(es): "
                f"{self.num_samples} samples do not fill one batch; use a batch_size of at most "
                f"{max(1, self.num_samples // self.world_size)}"
            )

    def __len__(self) -> int:
        """Batches an epoch, the same on every rank."""
        full, rest = divmod(self.num_samples, self.batch_size * self.world_size)
        return full if self.drop_last or (full and rest < self.world_size) else full + 1

    def order(self, epoch: int) -> Tensor:
        """Indices of an epoch `(num_samples,)`, before the split between ranks."""
        if not self.shuffle:
            return torch.arange(self.num_samples)
        return permutation(self.num_samples, "epoch order", self.seed, epoch)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        # A generator runs at the first `next`: Lightning makes the iterator before `set_epoch`.
        order, start = self.order(self._epoch), self._resume_at
        mirrored = self._mirrored(self._epoch) if self.flip else None
        self._resume_at = 0
        for number in range(start, len(self)):
            index = self._rows(order, number)
            self._position = number + 1
            batch = [t.index_select(0, index) for t in self.tensors]
            if mirrored is not None:
                chosen = self._rows(mirrored, number).nonzero().squeeze(1)
                batch[0][chosen] = batch[0][chosen].flip(-1)
            yield tuple(batch)

    def _mirrored(self, epoch: int) -> Tensor:
        """Which places of an epoch's order show their image mirrored, bool `(num_samples,)`."""
        return coins(self.num_samples, "horizontal flip", self.seed, epoch)

    def _rows(self, order: Tensor, number: int) -> Tensor:
        """This rank's entries of an epoch's `order` in global batch `number`."""
        size = self.batch_size * self.world_size
        last = number == len(self) - 1 and not self.drop_last
        rows = order[number * size : None if last else (number + 1) * size]
        return rows.tensor_split(self.world_size)[self.rank]

    @property
    def sampler(self) -> TensorLoader:
        """The loader itself: Lightning announces epochs to `loader.sampler.set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration follows."""
        if epoch != self._epoch:
            self._epoch, self._resume_at, self._position = epoch, 0, 0

    def state_dict(self) -> dict[str, int]:
        """Epoch and the next batch in it; stored in checkpoints by Lightning."""
        return {"epoch": self._epoch, "batch": self._position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Let the next iteration start where `state_dict` was taken.

        A state at the end of its epoch starts that epoch's successor only after `set_epoch`.
        """
        self._epoch = int(state["epoch"])
        self._resume_at = self._position = int(state["batch"])
