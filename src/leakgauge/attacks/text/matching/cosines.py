"""LAMP's distance: one cosine for each tensor, and their mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from leakgauge.attacks.matching.distance import Distance

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Cosines(Distance):
    """1 - (1/l) sum_l <g'_l, g_l> / (||g'_l|| ||g_l||) over l tensors.

    Weak tensors count as much as strong ones: one cosine of everything is blind to query and key gradients, which tell tokens
    apart. Tensors that are zero but for rounding (a key's bias) have a direction that means nothing; they are left out.

    Args:
        floor: tensors shorter than this share of the whole update are left out.
        sizes: name -> ||g_l|| of those that count, where they are known already.

    Source: Balunovic et al. 2022 (LAMP): their cosine loss is a mean over layers.
    """

    floor: float = 1e-6
    sizes: Mapping[str, float] = field(default_factory=dict, repr=False)

    def __call__(self, found: Tensors, target: Tensors) -> Tensor:
        sizes = (self if self.sizes else self.fitted(target)).sizes
        parts = [
            (found[name] * target[name]).sum() / (found[name].norm().clamp(min=1e-30) * max(size, 1e-30))
            for name, size in sizes.items()
        ]
        return (1 - torch.stack(parts).mean()).clamp(min=0)

    def fitted(self, target: Tensors) -> Cosines:
        own = {name: float(tensor.double().norm()) for name, tensor in target.items()}
        whole = sum(size**2 for size in own.values()) ** 0.5
        return Cosines(self.floor, {name: size for name, size in own.items() if size >= self.floor * whole})
