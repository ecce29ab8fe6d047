"""The joint step: Gauss-Newton on the input of several links at once, with steps from damped, matrix-free least squares.

Source of the step control: Nocedal & Wright 2006, section 10.3 (Levenberg-Marquardt), with the damping lowered as the model
of the residual proves right.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from leakgauge.attacks.recursive.segment import Linearised, Segment
from leakgauge.linalg import Preconditioner, lsmr

SIGNS = 16  # random rows that estimate the columns' lengths


@dataclass(frozen=True)
class JointSettings:
    """Limits of the joint step.

    Args:
        iterations: linearisations at most.
        products: iterations of the inner least-squares solver at most, for one step.
        total: iterations of the inner solver at most, in all.
        tolerance: of the inner solver.
        gain: the iteration ends when the residual falls by less than this factor twice in a row.
    """

    iterations: int = 60
    products: int = 400
    total: int = 12_000
    tolerance: float = 1e-8
    gain: float = 0.98


@dataclass(frozen=True)
class JointSolution:
    """Where the joint step ended.

    Args:
        point: (n,).
        residual: length of the weighted residual there.
        start: its length at the start.
        iterations: linearisations.
        products: products with the derivative and its transpose.
        expired: whether the clock ended it.
    """

    point: Tensor
    residual: float
    start: float
    iterations: int
    products: int
    expired: bool


def solve_jointly(
    segment: Segment,
    start: Tensor,
    settings: JointSettings,
    expired: Callable[[], bool] = lambda: False,
    watch: Callable[[int, Tensor, float], None] = lambda *_: None,
) -> JointSolution:
    """Minimises the segment's weighted residual from a starting point (n,)."""
    point = start
    current = segment.linearised(point)
    value = first = float(current.residual.norm())
    damping, products, slow, count = 1e-2, 0, 0, 0
    while count < settings.iterations and products < settings.total and slow < 3 and value > 0 and not expired():
        count += 1
        scale = Preconditioner.diagonal(column_scale(current, segment))
        moved = False
        for _ in range(6):
            step = lsmr(
                current.apply,
                current.adjoint,
                -current.residual[None],
                precondition=scale,
                damping=damping,
                tolerance=settings.tolerance,
                iterations=min(settings.products, max(settings.total - products, 1)),
                expired=expired,
            )
            products += step.iterations
            move = step.solution[0]
            trial = point + move
            found = float(segment.residual(trial).norm())
            predicted = float(step.residual[0])
            if found < value:
                gain = (value**2 - found**2) / max(value**2 - predicted**2, 1e-300)
                slow = slow + 1 if found > settings.gain * value else 0
                damping *= 0.1 if gain > 0.75 else (0.5 if gain > 0.25 else 2.0)
                damping = max(damping, 1e-12)
                point, value, moved = trial, found, True
                break
            damping = max(damping * 8, 1e-10)
        watch(count, point, value)
        if not moved:
            break
        current = segment.linearised(point)
    return JointSolution(point, value, first, count, products, expired())


def column_scale(current: Linearised, segment: Segment) -> Tensor:
    """(n,) one over the estimated lengths of the derivative's columns."""
    like = current.residual
    draws = torch.randint(0, 2, (SIGNS, len(like)), generator=torch.Generator().manual_seed(2)).to(like) * 2 - 1
    squares = current.adjoint(draws).square().mean(0)
    assert len(squares) == segment.unknowns
    return squares.clamp(min=float(squares.max()) * 1e-6).rsqrt()
