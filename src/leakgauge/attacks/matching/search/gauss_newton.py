"""Levenberg-Marquardt with the exact Jacobian of the update, for networks of a few thousand unknowns.

Matching an unmodified update is a least-squares problem whose residual vanishes at the truth, so that Gauss-Newton steps
converge quadratically where L-BFGS creeps along the ill-conditioned valley. The Jacobian comes from batched
forward-mode derivatives of the replayed update (torch.func), the step from a float64 Cholesky factor.

Source: Levenberg 1944; Marquardt 1963; damping rule of Nocedal & Wright 2006, algorithm 4.1 and section 10.3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from leakgauge.local.derivatives import directional

JVP_COST = 0.25  # share of a gradient evaluation that one column of the Jacobian counts for; `make bench` measures it
EXACT_BELOW = 1e-4  # damping under which float32 products would drown the smallest eigenvalues
CHORDS = 8


@dataclass(frozen=True)
class GaussNewton:
    """Configuration of the refinement.

    Args:
        iterations: Jacobians computed at most.
        unknowns: largest number of unknowns it is used for.
        numbers: largest Jacobian, in numbers (memory is 4 bytes each, twice for a moment).
        chunk: forward-mode products in one batch.
    """

    iterations: int = 12
    unknowns: int = 6200
    numbers: int = 400_000_000
    chunk: int = 512

    def applies(self, unknowns: int, equations: int) -> bool:
        """Whether the Jacobian is small enough."""
        return unknowns <= self.unknowns and unknowns * equations <= self.numbers


@dataclass
class Step:
    """One Levenberg-Marquardt iteration: the point it reached and what it cost.

    Args:
        point: (D,) after the step.
        value: squared length of the residual there.
        evaluations: cost in gradient evaluations.
        moved: False where no damping gave a lower value: the end of the road in this arithmetic.
    """

    point: Tensor
    value: float
    evaluations: float
    moved: bool


class LevenbergMarquardt:
    """The iteration, one step at a time, so that the caller keeps budget and clock.

    Args:
        residual: (D,) -> (m,), differentiable under torch.func.
        point: (D,) start.
        settings: sizes.
        expired: polled between batches of products.
    """

    def __init__(
        self,
        residual: Callable[[Tensor], Tensor],
        point: Tensor,
        settings: GaussNewton,
        expired: Callable[[], bool],
    ) -> None:
        self.residual, self.point, self.settings, self.expired = residual, point, settings, expired
        with torch.no_grad():
            self.vector = residual(point)
        self.value = float(self.vector.double().square().sum())
        self.damping = max(min(self.value, 1.0), 1e-12)

    def step(self) -> Step | None:
        """One Jacobian and all that can be had from it; None when the clock ran out in the middle."""
        jacobian = self._jacobian()
        if jacobian is None:
            return None
        cost = JVP_COST * len(self.point)
        exact = self.damping < EXACT_BELOW
        gram = _gram(jacobian, exact)
        slope = (jacobian @ self.vector).double()
        mean = float(gram.diagonal().mean())
        for _ in range(8):
            damped = gram.clone()
            damped.diagonal().add_((self.damping + 1e-13) * mean)
            factor, failed = torch.linalg.cholesky_ex(damped)
            if int(failed) != 0:
                if not exact:
                    gram, exact = _gram(jacobian, True), True
                else:
                    self.damping *= 10
                continue
            move = -torch.cholesky_solve(slope[:, None], factor)[:, 0]
            value, vector, point = self._at(move)
            cost += 1
            predicted = self.value - float((self.vector + move.to(jacobian) @ jacobian).double().square().sum())
            if value < self.value:
                gain = (self.value - value) / max(predicted, 1e-300)
                self.damping *= 0.1 if gain > 0.75 else (0.5 if gain > 0.25 else 2.0)
                self.point, self.vector, self.value = point, vector, value
                del gram, damped, jacobian
                cost += self._chords(factor)
                return Step(self.point, self.value, cost, moved=True)
            self.damping *= 5
        return Step(self.point, self.value, cost, moved=False)

    def _at(self, move: Tensor) -> tuple[float, Tensor, Tensor]:
        point = (self.point.double() + move).to(self.point)
        with torch.no_grad():
            vector = self.residual(point)
        return float(vector.double().square().sum()), vector, point

    def _chords(self, factor: Tensor) -> int:
        """Further steps with the same factor and fresh slopes, as long as each at least halves the value; returns their cost."""
        for count in range(CHORDS):
            leaf = self.point.detach().requires_grad_()
            with torch.enable_grad():
                (slope,) = torch.autograd.grad(self.residual(leaf), leaf, self.vector)
            value, vector, point = self._at(-torch.cholesky_solve(slope.double()[:, None], factor)[:, 0])
            before = self.value
            if value < before:
                self.point, self.vector, self.value = point, vector, value
            if not value < 0.5 * before:
                return count + 1
        return CHORDS

    def _jacobian(self) -> Tensor | None:
        """(D, m): row i is the derivative of the residual in unknown i."""
        size = len(self.point)
        product = torch.func.vmap(lambda direction: directional(self.residual, self.point, direction))
        rows = []
        with torch.no_grad():
            for first in range(0, size, self.settings.chunk):
                if self.expired():
                    return None
                last = min(first + self.settings.chunk, size)
                directions = torch.zeros(last - first, size, dtype=self.point.dtype, device=self.point.device)
                directions[torch.arange(last - first), torch.arange(first, last)] = 1
                rows.append(product(directions))
        return torch.cat(rows)


def _gram(rows: Tensor, exact: bool, blocks: int = 8) -> Tensor:
    """rows @ rows^T in float64, each pair of blocks once; `exact` also multiplies in float64."""
    size = len(rows)
    edges = [size * index // blocks for index in range(blocks + 1)]
    gram = torch.empty(size, size, dtype=torch.float64, device=rows.device)
    for index in range(blocks):
        first, last = edges[index], edges[index + 1]
        left, right = rows[first:], rows[first:last]
        part = left.double() @ right.double().T if exact else (left @ right.T).double()
        gram[first:, first:last] = part
        gram[first:last, first:] = part.T
    return gram
