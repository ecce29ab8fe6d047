"""A squared distance in which every tensor counts by its own size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from leakgauge.attacks.matching.distance import Distance

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Balanced(Distance):
    """(1/l) sum_l ||g'_l - g_l||^2 / (||g_l||^2 + floor ||g||^2) over l tensors.

    In the plain sum a transformer's query and key gradients, which tell tokens apart, are drowned by its value gradients,
    which are near to an average over all tokens. The floor keeps tensors that are zero but for rounding (a key's bias) quiet.

    Args:
        floor: share of the whole update's squared size, > 0.
        sizes: name -> denominator, where they are known already.
    """

    floor: float = 1e-8
    sizes: Mapping[str, float] = field(default_factory=dict, repr=False)

    def __call__(self, found: Tensors, target: Tensors) -> Tensor:
        known = self if self.sizes else self.fitted(target)
        parts = [(found[name] - tensor).square().sum() / known.sizes[name] for name, tensor in target.items()]
        return torch.stack(parts).mean()

    def fitted(self, target: Tensors) -> Balanced:
        own = {name: float(tensor.double().square().sum()) for name, tensor in target.items()}
        whole = max(sum(own.values()), 1e-30)
        return Balanced(self.floor, {name: size + self.floor * whole for name, size in own.items()})
