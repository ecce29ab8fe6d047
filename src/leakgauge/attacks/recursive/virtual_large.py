"""The completion of a deficient layer by the one before it, for layers too large for a dense basis of the complement.

Both unknowns stay: x', the input of the layer before, and t, the position in the null space. Gauss-Newton on
W x' - (a^-1(x0 + N t) - b), its steps by LSMR.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from leakgauge.attacks.recursive.before import Before
from leakgauge.attacks.recursive.known import SAMPLES
from leakgauge.attacks.recursive.layer import Equations, Solved
from leakgauge.attacks.recursive.problem import Problem
from leakgauge.chain.operators import LayerOperator
from leakgauge.linalg import Preconditioner, lsmr

STEPS = 40
PRODUCTS = 1500
PLANTED = 0.05


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
    expired: Callable[[], bool],
) -> Solved | None:
    """As `virtual.complete`, with the basis (n, d) of the null space at hand."""
    base, shape = solved.value.flatten(), solved.value.shape
    unknowns, products = math.prod(operator.input_shape), 0

    def target(t: Tensor) -> tuple[Tensor, Tensor]:
        return before.back((base + free @ t).reshape(shape), problem)

    inputs = guess.flatten()
    t = free.T @ (before.forward(operator.apply(guess[None])[0], problem).flatten() - base)
    values, slope = target(t)
    vector = operator.apply(inputs.reshape(1, *operator.input_shape)).flatten() - values
    size = first = float(vector.norm())
    pair = _Pair(operator, free, slope)
    for _ in range(STEPS):
        if expired():
            return None
        step = lsmr(
            pair.apply,
            pair.adjoint,
            -vector[None],
            precondition=pair.even(),
            tolerance=1e-6,
            iterations=PRODUCTS,
            expired=expired,
        )
        products += step.iterations
        move, length, found = step.solution[0], 1.0, math.inf
        while length > 1e-4:
            moved, turned = inputs + length * move[:unknowns], t + length * move[unknowns:]
            values, bent = target(turned)
            trial = operator.apply(moved.reshape(1, *operator.input_shape)).flatten() - values
            found = float(trial.norm())
            if found < size:
                break
            length /= 2
        if not found < size:
            break
        settled = found > 0.99 * size
        inputs, t, vector, size = moved, turned, trial, found
        pair = _Pair(operator, free, bent)
        if settled:
            break
    return _concluded(equations, solved, pair, t, size, first, unknowns, products, generator)


def _concluded(
    equations: Equations,
    solved: Solved,
    pair: _Pair,
    t: Tensor,
    size: float,
    first: float,
    unknowns: int,
    products: int,
    generator: torch.Generator,
) -> Solved | None:
    free = pair.free
    drift = solved.errors.flatten(1)  # (R, n) error of x0
    planted = torch.randn(1, unknowns + free.shape[1], generator=generator, dtype=torch.float64).to(free)
    even = pair.even()
    right = torch.cat([pair.apply(even.apply(planted)), drift * pair.slope])
    answer = lsmr(
        pair.apply,
        pair.adjoint,
        right,
        precondition=even,
        tolerance=1e-5,
        fit=torch.tensor([1e-6] + [1e-12] * SAMPLES),
        iterations=3 * PRODUCTS,
    )
    missed = float((answer.inner[0] - planted[0]).square().sum())
    allowed = 10 * float((drift * pair.slope).norm(dim=1).mean()) + 1e-12 * first
    if missed > PLANTED or size > allowed:
        return None
    # W x' - D N t = D e: the error of x0 moves t as well.
    errors = drift + answer.solution[1:, unknowns:] @ free.T
    spare = math.prod(pair.operator.output_shape) - unknowns
    report = replace(
        solved.report,
        method=f"{solved.report.method}, completed by {spare} constraints of the layer before",
        equations=solved.report.equations + spare,
        rank=equations.unknowns,
        condition=answer.condition,
        predicted_error=float(errors.square().mean().sqrt()),
    )
    value = (solved.value.flatten() + free @ t).reshape(solved.value.shape)
    return Solved(value, errors.reshape(solved.errors.shape), report, equations.unknowns, solved.products + products)
