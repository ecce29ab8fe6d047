"""A defence: numbers rounded to a grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from leakgauge.defences.base import TensorDefence
from leakgauge.errors import OptionError
from leakgauge.registry import described


@described(needs="a gradient or weight change; no claim of privacy", source="a sample")
@dataclass(frozen=True)
class RoundTo(TensorDefence):
    """Rounds each number of an update to the nearest multiple of a step.

    Args:
        step: distance between two numbers of the grid, > 0.
    """

    step: float
    name: ClassVar[str] = "round-to"

    def __post_init__(self) -> None:
        if not self.step > 0:
            raise OptionError(f"The step is {self.step!r}; expected a number > 0.")

    def rewrite(self, tensor: Tensor, generator: torch.Generator) -> Tensor:
        """The nearest multiples; no draws."""
        return torch.round(tensor / self.step) * self.step
