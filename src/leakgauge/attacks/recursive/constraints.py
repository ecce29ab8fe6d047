"""What both ways of completing a layer by the one before share: the iteration, and the completed row of the table."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from leakgauge.attacks.recursive.layer import Equations, Solved

ALLOWED = 10.0  # residual of the constraints, in what the error of the base solution does to them
SHORTEST = 1e-4  # of a step, below which no further halving is tried


@dataclass(frozen=True)
class Descent:
    """Where Gauss-Newton with step halving ended.

    Args:
        point: of the unknowns.
        slope: of the way back at the point, as `evaluate` gave it.
        size: length of the residual there.
        first: its length at the start.
    """

    point: Tensor
    slope: Tensor
    size: float
    first: float


def descend(
    point: Tensor,
    evaluate: Callable[[Tensor], tuple[Tensor, Tensor]],
    step: Callable[[Tensor, Tensor], Tensor],
    *,
    steps: int,
    enough: float,
    expired: Callable[[], bool],
) -> Descent | None:
    """Gauss-Newton steps, each halved until the residual falls; None if the clock ended it.

    Args:
        point: start.
        evaluate: point -> residual and slope.
        step: residual and slope -> full step.
        steps: at most.
        enough: the iteration ends when the residual falls by less than this factor.
        expired: polled before every step.
    """
    vector, slope = evaluate(point)
    size = first = float(vector.norm())
    for _ in range(steps):
        if expired():
            return None
        move, length, found = step(vector, slope), 1.0, math.inf
        while length > SHORTEST:
            trial, bent = evaluate(point + length * move)
            found = float(trial.norm())
            if found < size:
                break
            length /= 2
        if not found < size:
            break
        settled = found > enough * size or float((length * move).norm()) < 1e-12 * float(point.norm())
        point, vector, slope, size = point + length * move, trial, bent, found
        if settled:
            break
    return Descent(point, slope, size, first)


def completed(
    equations: Equations, solved: Solved, move: Tensor, errors: Tensor, constraints: int, condition: float, products: int
) -> Solved:
    """A deficient layer after `move` (n,) was added to its solution; `errors` (R, n) are those of the result."""
    report = replace(
        solved.report,
        method=f"{solved.report.method}, completed by {constraints} constraints of the layer before",
        equations=solved.report.equations + constraints,
        rank=equations.unknowns,
        condition=condition,
        predicted_error=float(errors.square().mean().sqrt()),
    )
    value = solved.value + move.reshape(solved.value.shape)
    return Solved(value, errors.reshape(solved.errors.shape), report, equations.unknowns, solved.products + products)
