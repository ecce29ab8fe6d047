"""Completes one deficient layer with the layer before it: R-GAP's virtual constraints, as equations.

The deficient layer leaves its input as x = x0 + N t, N a basis of its null space. The layer before maps fewer numbers to more,
z = W x' + b, so that z = a^-1(x0 + N t) must lie in the range of W (after b is taken off): with Q a basis of the complement,
Q^T (a^-1(x0 + N t) - b) = 0 is a small system for t. It is piecewise linear for LeakyReLU; Gauss-Newton with step halving
solves it.

Source: the count of virtual constraints is Zhu & Blaschko 2021, section 3.3; the equations are ours.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from leakgauge.attacks.recursive.before import Before
from leakgauge.attacks.recursive.constraints import ALLOWED, Descent, completed, descend
from leakgauge.attacks.recursive.layer import Equations, Solved, stack_of
from leakgauge.attacks.recursive.problem import Problem
from leakgauge.attacks.recursive.virtual_large import complete_iteratively
from leakgauge.chain.operators import operator_of
from leakgauge.linalg import DENSE, null_space

LARGEST = 1500  # missing directions up to which this is tried
STEPS = 60


def complete(
    problem: Problem,
    equations: Equations,
    solved: Solved,
    before: Before,
    guess: Tensor,
    generator: torch.Generator,
) -> Solved | None:
    """The input of a deficient layer, or None where the constraints do not suffice or the iteration fails.

    Args:
        problem: gradients and network.
        equations: of the deficient layer.
        solved: its solution of smallest norm.
        before: the earlier layer.
        guess: (*input) of the earlier layer, where the iteration starts.
        generator: of random directions.
    """
    missing = solved.report.rank_deficiency
    earlier = before.links[0]
    spare = math.prod(earlier.output_shape) - math.prod(earlier.input_shape)
    if missing > LARGEST or missing > 1.2 * spare:
        return None
    stack = stack_of(equations)
    base = solved.value.flatten()
    if len(base) > equations.dense:
        return None
    free = null_space(stack.apply, base, missing, generator, solved.factored or stack.factored())
    if free.shape[1] == 0 or free.shape[1] > spare or problem.expired():
        return None
    operator = operator_of(earlier, problem.state)
    if len(base) > DENSE:
        return complete_iteratively(problem, equations, solved, before, operator, free, guess, generator)

    def up(flat: Tensor) -> Tensor:
        return operator.adjoint(flat.reshape(-1, *operator.output_shape)).flatten(1)

    def down(flat: Tensor) -> Tensor:
        return operator.apply(flat.reshape(-1, *operator.input_shape)).flatten(1)

    outside = null_space(up, base, spare, generator)
    if outside.shape[1] < free.shape[1] or problem.expired():
        return None

    def residual(t: Tensor) -> tuple[Tensor, Tensor]:
        values, slope = before.back((base + free @ t).reshape(solved.value.shape), problem)
        return outside.T @ values, slope

    def step(vector: Tensor, slope: Tensor) -> Tensor:
        jacobian = outside.T @ (free * slope[:, None])
        move: Tensor = torch.linalg.lstsq(jacobian, -vector[:, None], driver="gels").solution  # gelsy is not deterministic
        return move[:, 0]

    start = free.T @ (before.forward(operator.apply(guess[None])[0], problem).flatten() - base)
    found = descend(start, residual, step, steps=STEPS, enough=0.999, expired=problem.expired)
    return None if found is None else _concluded(equations, solved, free, outside, found)


def _concluded(equations: Equations, solved: Solved, free: Tensor, outside: Tensor, found: Descent) -> Solved | None:
    """The completed layer, if the constraints are met to the error that the base solution carries."""
    jacobian = outside.T @ (free * found.slope[:, None])
    spectrum = torch.linalg.svdvals(jacobian)
    drift = solved.errors.flatten(1)  # (R, n) error of x0
    expected = (outside.T @ (drift * found.slope).T).T  # what it does to the constraints
    answer = torch.linalg.lstsq(jacobian, -expected.T, driver="gels").solution  # (d, R)
    allowed = ALLOWED * float(expected.norm(dim=1).mean()) + 1e-12 * found.first
    if not bool(spectrum[-1] > 1e-10 * spectrum[0]) or found.size > allowed:
        return None
    errors = drift + (free @ answer).T
    condition = float(spectrum[0] / spectrum[-1])
    return completed(equations, solved, free @ found.point, errors, outside.shape[1], condition, 1)
