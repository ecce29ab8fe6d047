"""The completion of a deficient layer by the one before it, for layers too large for a dense basis of the complement.

Both unknowns stay: x', the input of the layer before, and t, the position in the null space. Gauss-Newton on
W x' - (a^-1(x0 + N t) - b), its steps by LSMR.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from leakgauge.attacks.recursive.before import Before
from leakgauge.attacks.recursive.constraints import ALLOWED, Descent, completed, descend
from leakgauge.attacks.recursive.known import SAMPLES
from leakgauge.attacks.recursive.layer import Equations, Solved
from leakgauge.attacks.recursive.planted import missing_columns, planted_input
from leakgauge.attacks.recursive.problem import Problem
from leakgauge.chain.operators import LayerOperator
from leakgauge.linalg import Preconditioner, lsmr

STEPS = 40
PRODUCTS = 1500


@dataclass(frozen=True)
class _Pair:
    """[W, -D N] on (S, n' + d), with D the slope of the way back at the current point."""

    operator: LayerOperator
    free: Tensor  # (n, d)
    slope: Tensor  # (n,)

    def apply(self, flat: Tensor) -> Tensor:
        """(S, n' + d) -> (S, n)."""
        split = flat.shape[1] - self.free.shape[1]
        images = self.operator.apply(flat[:, :split].reshape(-1, *self.operator.input_shape)).flatten(1)
        return images - (flat[:, split:] @ self.free.T) * self.slope

    def adjoint(self, flat: Tensor) -> Tensor:
        """(S, n) -> (S, n' + d)."""
        inputs = self.operator.adjoint(flat.reshape(-1, *self.operator.output_shape)).flatten(1)
        return torch.cat([inputs, -((flat * self.slope) @ self.free)], 1)

    def even(self) -> Preconditioner:
        """Column scaling: the mean for W, each column of D N by itself."""
        like = self.free
        eye = torch.randn(4, *self.operator.output_shape, generator=torch.Generator().manual_seed(4), dtype=like.dtype).to(like)
        mean = float(self.operator.adjoint(eye).square().mean().sqrt())
        lengths = (self.free * self.slope[:, None]).norm(dim=0)
        unknowns = math.prod(self.operator.input_shape)
        return Preconditioner.diagonal(torch.cat([like.new_full((unknowns,), 1 / mean), 1 / lengths.clamp(min=1e-12)]))


def complete_iteratively(
    problem: Problem,
    equations: Equations,
    solved: Solved,
    before: Before,
    operator: LayerOperator,
    free: Tensor,
    guess: Tensor,
    generator: torch.Generator,
) -> Solved | None:
    """As `virtual.complete`, with the basis (n, d) of the null space at hand."""
    base, shape = solved.value.flatten(), solved.value.shape
    unknowns, products = math.prod(operator.input_shape), 0

    def residual(point: Tensor) -> tuple[Tensor, Tensor]:
        values, slope = before.back((base + free @ point[unknowns:]).reshape(shape), problem)
        return operator.apply(point[:unknowns].reshape(1, *operator.input_shape)).flatten() - values, slope

    def step(vector: Tensor, slope: Tensor) -> Tensor:
        nonlocal products
        pair = _Pair(operator, free, slope)
        found = lsmr(
            pair.apply,
            pair.adjoint,
            -vector[None],
            precondition=pair.even(),
            tolerance=1e-6,
            iterations=PRODUCTS,
            expired=problem.expired,
        )
        products += found.iterations
        return found.solution[0]

    t = free.T @ (before.forward(operator.apply(guess[None])[0], problem).flatten() - base)
    found = descend(torch.cat([guess.flatten(), t]), residual, step, steps=STEPS, enough=0.99, expired=problem.expired)
    return None if found is None else _concluded(equations, solved, operator, free, found, products, generator)


def _concluded(
    equations: Equations,
    solved: Solved,
    operator: LayerOperator,
    free: Tensor,
    found: Descent,
    products: int,
    generator: torch.Generator,
) -> Solved | None:
    pair, unknowns = _Pair(operator, free, found.slope), math.prod(operator.input_shape)
    drift = solved.errors.flatten(1)  # (R, n) error of x0
    planted, even = planted_input(unknowns + free.shape[1], generator, free), pair.even()
    answer = lsmr(
        pair.apply,
        pair.adjoint,
        torch.cat([pair.apply(even.apply(planted)), drift * found.slope]),
        precondition=even,
        tolerance=1e-5,
        fit=torch.tensor([1e-6] + [1e-12] * SAMPLES),
        iterations=3 * PRODUCTS,
        expired=equations.expired,
    )
    allowed = ALLOWED * float((drift * found.slope).norm(dim=1).mean()) + 1e-12 * found.first
    if missing_columns(answer.inner[:1], planted) or found.size > allowed:
        return None
    errors = drift + answer.solution[1:, unknowns:] @ free.T  # W x' - D N t = D e: the error of x0 moves t as well
    spare = math.prod(operator.output_shape) - unknowns
    return completed(equations, solved, free @ found.point[unknowns:], errors, spare, answer.condition, products)
