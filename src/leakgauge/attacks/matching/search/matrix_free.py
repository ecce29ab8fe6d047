"""Gauss-Newton without a Jacobian: each step solves its least squares by products with derivatives (LSMR)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from leakgauge.linalg import lsmr
from leakgauge.local.derivatives import directional


@dataclass(frozen=True)
class MatrixFree:
    """Configuration.

    Args:
        iterations: steps at most.
        products: inner iterations per step at most; each is one product with the Jacobian and one with its transpose.
        damping: of the first step, relative to the largest singular value met; it follows the success of the steps.
        enough: relative decrease of the value below which a step counts as stalled; two in a row end the iteration.
    """

    iterations: int = 12
    products: int = 60
    damping: float = 1e-3
    enough: float = 0.05


@dataclass(frozen=True)
class Descent:
    """Where the iteration ended: point, squared length of the residual, and inner products spent."""

    point: Tensor
    value: float
    products: int


def descend(
    residual: Callable[[Tensor], Tensor],
    point: Tensor,
    settings: MatrixFree,
    *,
    expired: Callable[[], bool] = lambda: False,
    goal: float = 0.0,
    budget: float = float("inf"),
) -> Descent:
    """Minimises ||residual||^2 from a point by damped Gauss-Newton steps with a halving line search.

    Args:
        residual: (D,) -> (m,), differentiable in both modes under torch.func.
        point: (D,).
        settings: see `MatrixFree`.
        expired: polled between products.
        goal: value at which the iteration ends.
        budget: inner products at most.

    Source: Nocedal & Wright 2006, sections 10.3 and 7.1 (inexact steps).
    """
    with torch.no_grad():
        vector = residual(point)
    value, spent, stalled, damping = float(vector.double().square().sum()), 0, 0, settings.damping
    for _ in range(settings.iterations):
        if expired() or not value > goal or spent >= budget or stalled >= 2:
            break
        here = point
        pull = _transposed(residual, here)

        def push(rows: Tensor, here: Tensor = here) -> Tensor:
            return directional(residual, here, rows[0])[None].detach()

        def back(rows: Tensor, pull: Callable[[Tensor], Tensor] = pull) -> Tensor:
            return pull(rows[0])[None]

        inner = int(min(settings.products, max(1.0, budget - spent)))
        scale = float(back(vector[None]).norm() / vector.norm().clamp(min=1e-30))
        found = lsmr(push, back, -vector[None], damping=damping * scale, tolerance=1e-4, iterations=inner, expired=expired)
        spent += found.iterations
        move, factor, accepted = found.solution[0], 1.0, False
        for _ in range(6):
            candidate = here + factor * move
            with torch.no_grad():
                there = residual(candidate)
            length = float(there.double().square().sum())
            if length < value:
                accepted = True
                break
            factor *= 0.5
        if not accepted:
            damping, stalled = damping * 10, stalled + 1
            continue
        stalled = stalled + 1 if length > (1 - settings.enough) * value else 0
        damping = damping * 0.3 if factor == 1.0 else damping * 2
        point, vector, value = candidate.detach(), there, length
    return Descent(point, value, spent)


def _transposed(residual: Callable[[Tensor], Tensor], point: Tensor) -> Callable[[Tensor], Tensor]:
    """v -> J^T v at a point; the forward pass is made once."""
    leaf = point.detach().requires_grad_()
    with torch.enable_grad():
        vector = residual(leaf)
    return lambda cotangent: torch.autograd.grad(vector, leaf, cotangent, retain_graph=True)[0]
