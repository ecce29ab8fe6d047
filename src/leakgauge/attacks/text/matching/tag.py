"""TAG's distance: squared L2, and L1 with a weight that falls from the input side to the output side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from leakgauge.attacks.matching.distance import Distance, squared_norm

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Tag(Distance):
    """sum_l ||g'_l - g_l||^2 / ||g||^2 + alpha sum_l w_l |g'_l - g_l| / |g|, w_l falling linearly from 1 to 1 / layers.

    Both sums are relative to the observed update, so that alpha has no unit.

    Args:
        alpha: weight of the second sum, >= 0.
        square: ||g||^2, where it is known already.
        size: |g|, where it is known already.

    Source: Deng et al. 2021 (TAG), equation 4.
    """

    alpha: float = 0.1
    square: float | None = None
    size: float | None = None

    def __call__(self, found: Tensors, target: Tensors) -> Tensor:
        known = self if self.square is not None and self.size is not None else self.fitted(target)
        assert known.square is not None and known.size is not None
        count = len(target)
        squares, sums = [], []
        for index, (name, tensor) in enumerate(target.items()):
            off = found[name] - tensor
            squares.append(off.square().sum())
            sums.append(off.abs().sum() * ((count - index) / count))
        return torch.stack(squares).sum() / known.square + self.alpha * torch.stack(sums).sum() / known.size

    def fitted(self, target: Tensors) -> Tag:
        size = float(torch.stack([tensor.abs().sum() for tensor in target.values()]).sum().clamp(min=1e-30))
        return replace(self, square=float(squared_norm(target)), size=size)
