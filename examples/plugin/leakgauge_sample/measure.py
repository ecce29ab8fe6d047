"""A measure: do the edges of two pictures agree?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from leakgauge.measures import Measure


@dataclass(frozen=True)
class Edges(Measure):
    """Correlation of horizontal and vertical differences, 1 for the same edges; higher is nearer."""

    name: ClassVar[str] = "edges"
    unit: ClassVar[str] = ""
    range: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    higher_is_better: ClassVar[bool] = True

    def __call__(self, truth: Tensor, guess: Tensor) -> Tensor:
        """(N,) of two (N, C, H, W)."""
        rows = [torch.cat([one.diff(dim=-1).flatten(1), one.diff(dim=-2).flatten(1)], dim=1) for one in (truth, guess)]
        return torch.nn.functional.cosine_similarity(*rows)
