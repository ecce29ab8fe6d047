"""Equations with a smoothness penalty beside them, faded out step by step: a start for a search that would get stuck."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from leakgauge.attacks.hybrid.image_prior import smooth_rows, smooth_rows_adjoint
from leakgauge.attacks.recursive.joint import JointSettings, solve_jointly
from leakgauge.attacks.recursive.problem import Problem
from leakgauge.attacks.recursive.segment import Linearised, Segment

WEIGHTS = (1.0, 0.1, 1e-2, 1e-3, 1e-4)  # of the penalty, relative to the residual at the start
ROUGH = 0.1  # difference of neighbouring pixels, in ranges, at which weight 1 costs as much as that residual
ITERATIONS = 6  # linearisations at each weight


@dataclass(frozen=True)
class Regularised:
    """A segment with rows weight * D x, D the differences of neighbouring pixels and of their colours.

    Args:
        segment: the equations.
        shape: (C, H, W) of the picture.
        weight: of the rows, >= 0.
        colour: of colour differences.
    """

    segment: Segment
    shape: tuple[int, ...]
    weight: float
    colour: float

    @property
    def unknowns(self) -> int:
        """Values of the picture."""
        return self.segment.unknowns

    @property
    def equations(self) -> int:
        """Rows, those of the penalty included."""
        return self.segment.equations + 2 * self.segment.unknowns

    def residual(self, point: Tensor) -> Tensor:
        """(n,) -> (m,)."""
        return torch.cat([self.segment.residual(point), self._rows(point[None])[0]])

    def linearised(self, point: Tensor) -> Linearised:
        """The residual with its derivative."""
        inner = self.segment.linearised(point)
        size = len(inner.residual)
        return Linearised(
            torch.cat([inner.residual, self._rows(point[None])[0]]),
            lambda flat: torch.cat([inner.apply(flat), self._rows(flat)], 1),
            lambda flat: inner.adjoint(flat[:, :size]) + self._rows_adjoint(flat[:, size:]),
        )

    def _rows(self, flat: Tensor) -> Tensor:
        return self.weight * smooth_rows(flat.reshape(-1, *self.shape), self.colour).flatten(1)

    def _rows_adjoint(self, flat: Tensor) -> Tensor:
        rows = flat.reshape(len(flat), 2, *self.shape)
        return self.weight * smooth_rows_adjoint(rows, self.colour).flatten(1)


def smooth_start(
    problem: Problem,
    segment: Segment,
    start: Tensor,
    colour: float,
    settings: JointSettings,
) -> tuple[Tensor, int]:
    """A picture (C, H, W) near the solutions of a segment, found along a path of fading smoothness; and products spent."""
    shape, point, spent = tuple(start.shape), start.flatten(), 0
    low, high = problem.spec.bounds(start[None])
    spread = float((high - low).mean())
    unit = float(segment.residual(point).norm()) / (ROUGH * spread * point.numel() ** 0.5)
    share = replace(settings, iterations=ITERATIONS, total=max(settings.total // len(WEIGHTS), 1))
    for weight in WEIGHTS:
        if problem.expired():
            break
        found = solve_jointly(Regularised(segment, shape, weight * unit, colour), point, share, problem.expired)
        point, spent = found.point, spent + found.products
    return point.reshape(shape), spent
