"""Defences that share less: pruning and lower precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from leakgauge.defences.base import Defence
from leakgauge.errors import OptionError


@dataclass(frozen=True)
class Prune(Defence):
    """Sets the smallest entries of each tensor, by magnitude, to zero (Zhu et al. 2019, section 5.3).

    Args:
        fraction: share of the entries that is set to zero, in [0, 1).
    """

    fraction: float
    name: ClassVar[str] = "prune"

    def __post_init__(self) -> None:
        if not 0 <= self.fraction < 1:
            raise OptionError(f"Prune.fraction is {self.fraction!r}; expected a number in [0, 1).")

    def rewrite(self, tensor: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG002 - no draws
        count = int(self.fraction * tensor.numel())
        if count == 0:
            return tensor
        smallest = tensor.abs().reshape(-1).argsort(stable=True)[:count]
        flat = tensor.reshape(-1).clone()
        flat[smallest] = 0
        return flat.reshape(tensor.shape)


@dataclass(frozen=True)
class HalfPrecision(Defence):
    """Rounds every shared number to 16-bit floating point (Zhu et al. 2019, section 5.1)."""

    name: ClassVar[str] = "half-precision"

    def rewrite(self, tensor: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG002 - no draws
        return tensor.to(torch.float16).to(tensor.dtype)
