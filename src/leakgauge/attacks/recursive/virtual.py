"""Completes one deficient layer with the layer before it: R-GAP's virtual constraints, as equations.

The deficient layer leaves its input as x = x0 + N t, N a basis of its null space. The layer before maps fewer numbers to more,
z = W x' + b, so that z = a^-1(x0 + N t) must lie in the range of W (after b is taken off): with Q a basis of the complement,
Q^T (a^-1(x0 + N t) - b) = 0 is a small system for t. It is piecewise linear for LeakyReLU; Gauss-Newton with step halving
solves it.

Source: the count of virtual constraints is Zhu & Blaschko 2021, section 3.3; the equations are ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from leakgauge.attacks.recursive.before import Before
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
    expired: Callable[[], bool] = lambda: False,
) -> Solved | None:
    """The input of a deficient layer, or None where the constraints do not suffice or the iteration fails.

    Args:
        problem: gradients and network.
        equations: of the deficient layer.
        solved: its solution of smallest norm.
        before: the earlier layer.
        guess: (*input) of the earlier layer, where the iteration starts.
        generator: of random directions.
        expired: polled.
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
    if free.shape[1] == 0 or free.shape[1] > spare or expired():
        return None
    operator = operator_of(earlier, problem.state)
    if len(base) > DENSE:
        return complete_iteratively(problem, equations, solved, before, operator, free, guess, generator, expired)

    def up(flat: Tensor) -> Tensor:
        return operator.adjoint(flat.reshape(-1, *operator.output_shape)).flatten(1)

    def down(flat: Tensor) -> Tensor:
        return operator.apply(flat.reshape(-1, *operator.input_shape)).flatten(1)

    outside = null_space(up, base, spare, generator)
    if outside.shape[1] < free.shape[1] or expired():
        return None

    def residual(t: Tensor) -> tuple[Tensor, Tensor]:
        values, slope = before.back((base + free @ t).reshape(solved.value.shape), problem)
        return outside.T @ values, slope

    start = before.forward(operator.apply(guess[None])[0], problem).flatten()
    t = free.T @ (start - base)
    vector, slope = residual(t)
    size, first = float(vector.norm()), float(vector.norm())
    jacobian = outside.T @ (free * slope[:, None])
    for _ in range(STEPS):
        if expired():
            return None
        move = torch.linalg.lstsq(jacobian, -vector[:, None], driver="gels").solution[:, 0]
        length, found = 1.0, math.inf
        while length > 1e-4:
            trial, bent = residual(t + length * move)
            found = float(trial.norm())
            if found < size:
                break
            length /= 2
        if not found < size:
            break
        settled = found > 0.999 * size or float((length * move).norm()) < 1e-12 * float(t.norm())
        t, vector, slope, size = t + length * move, trial, bent, found
        jacobian = outside.T @ (free * slope[:, None])
        if settled:
            break
    return _concluded(equations, solved, free, outside, jacobian, t, slope, size, first)


def _concluded(
    equations: Equations,
    solved: Solved,
    free: Tensor,
    outside: Tensor,
    jacobian: Tensor,
    t: Tensor,
    slope: Tensor,
    size: float,
    first: float,
) -> Solved | None:
    """The completed layer, if the constraints are met to the error that the base solution carries."""
    spectrum = torch.linalg.svdvals(jacobian)
    drift = solved.errors.flatten(1)  # (R, n) error of x0
    expected = (outside.T @ (drift * slope).T).T  # what it does to the constraints
    answer = torch.linalg.lstsq(jacobian, -expected.T, driver="gels").solution  # (d, R)
    errors = drift + (free @ answer).T
    allowed = 10 * float(expected.norm(dim=1).mean()) + 1e-12 * first
    unknowns = equations.unknowns
    full = bool(spectrum[-1] > 1e-10 * spectrum[0])
    if not full or size > allowed:
        return None
    report = replace(
        solved.report,
        method=f"{solved.report.method}, completed by {outside.shape[1]} constraints of the layer before",
        equations=solved.report.equations + outside.shape[1],
        rank=unknowns,
        condition=float(spectrum[0] / spectrum[-1]),
        predicted_error=float(errors.square().mean().sqrt()),
    )
    value = (solved.value.flatten() + free @ t).reshape(solved.value.shape)
    return Solved(value, errors.reshape(solved.errors.shape), report, unknowns, solved.products + 1)
