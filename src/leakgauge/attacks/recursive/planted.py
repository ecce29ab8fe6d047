"""A planted input shows missing rank: what a least-squares solution does not give back of it lies in the null space."""

from __future__ import annotations

import math

import torch
from torch import Tensor

FOUND = 0.05  # squared distance up to which a planted input counts as found


def planted_input(columns: int, generator: torch.Generator, like: Tensor) -> Tensor:
    """(1, n) independent normal values, in the unknowns of the iteration."""
    return torch.randn(1, columns, generator=generator, dtype=torch.float64).to(like)


def missing_columns(found: Tensor, planted: Tensor) -> int:
    """How many of the n columns lack rank: 0 if (1, n) was found again, else about the squared distance, its expectation.

    All of them where the solution is not finite: then there is no equation.
    """
    missed = float((found - planted).square().sum())
    if not math.isfinite(missed):
        return planted.numel()
    return 0 if missed <= FOUND else max(round(missed), 1)
