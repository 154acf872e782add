r"""Couplings: which noise is paired with which image of a batch."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor


class Coupling(ABC):
    """A pairing of images and noise whose marginals stay what they are."""

    @abstractmethod
    def __call__(self, x0: Tensor, eps: Tensor, label: Tensor | None = None) -> Tensor:
        """The noise in the order of the images: a permutation of eps (B, *)."""


class Independent(Coupling):
    """As drawn: image and noise know nothing of each other."""

    def __call__(self, x0: Tensor, eps: Tensor, label: Tensor | None = None) -> Tensor:
        """The noise as it is."""
        return eps


class OptimalTransport(Coupling):
    """The pairing of a minibatch with the smallest sum of squared distances.

    Straighter paths for flows (Tong et al., arXiv 2302.00482, section 3.2; Pooladian et al.,
    arXiv 2304.14772). With labels the pairs are sought within each class alone, so that the noise
    of a class stays standard normal; across classes the label would tell which noise to expect,
    and sampling, which draws label and noise apart, would not match the training.
    """

    def __call__(self, x0: Tensor, eps: Tensor, label: Tensor | None = None) -> Tensor:
        """The noise, permuted within classes; exact (Hungarian method, B^3 at worst)."""
        order = torch.arange(len(x0))
        groups = torch.zeros(len(x0), dtype=torch.long) if label is None else label.cpu()
        for group in sorted(set(groups.tolist())):
            rows = torch.nonzero(groups == group).flatten()
            cost = torch.cdist(x0[rows].flatten(1).double(), eps[rows].flatten(1).double()) ** 2
            _, columns = linear_sum_assignment(cost.cpu().numpy())
            order[rows] = rows[torch.as_tensor(columns)]
        return eps[order.to(eps.device)]
