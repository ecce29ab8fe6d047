"""A layer of one's own, and the rule by which closed forms see through it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from leakgauge.chain import Part


class Scale(nn.Module):
    """Multiplies each value by a learnt number."""

    def __init__(self, start: float = 1.0) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(start))

    def forward(self, inputs: Tensor) -> Tensor:
        """The same shape."""
        return inputs * self.factor


def _scale(module: Scale, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Part:
    return Part("affine")


def rules() -> dict[type[nn.Module], object]:
    """Rules for layers of this package, by their type."""
    return {Scale: _scale}
