"""Decides on which side of a kink doubtful values lie, so that the gradient equations of their filters can be used.

A value z of a LeakyReLU that is zero within its error leaves its output gradient k open between two numbers. With a first
solution x the equations are linear in x and in how far each doubtful k is from the assumed side:
K x + sum_j delta_j (k'_j - k_j) patch_j(x) = g, with delta_j 0 or 1. The delta are eliminated, x is solved for, the delta
follow, and those that clearly are 0 or 1 are settled.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from leakgauge.attacks.recursive.known import Known
from leakgauge.attacks.recursive.layer import Equations, Solved, by_reliability, solve, stack_of
from leakgauge.linalg import lsmr

MOST = 500  # doubtful values treated at once, those with the largest effect first
ROUNDS = 4
ITERATIONS = 600
EMPTY = 4.0  # expected errors below which a patch counts as zero
FELT = 3.0  # expected errors by which the other side must move the gradient to matter
CLEAR = 0.3  # a delta within this of 0 or 1 is settled


@dataclass(frozen=True)
class _Doubts:
    """Doubtful values of a layer's output.

    Args:
        where: (M,) flat indices.
        change: (M,) of k, to the other side.
    """

    where: Tensor
    change: Tensor


def settle(equations: Equations, first: Solved, generator: torch.Generator) -> tuple[Solved, Known]:
    """The layer's input with doubtful sides settled as far as the equations tell, and what is then known at its output.

    Args:
        equations: of the layer, not yet weighted by reliability.
        first: their solution weighted by reliability.
        generator: for error samples.
    """
    best, known = first, equations.known
    for _ in range(ROUNDS):
        doubts = _doubts(equations)
        if doubts is None or equations.gradient is None:
            break
        deltas, matter = _deltas(equations, doubts, best)
        if deltas is None or not bool(_clear(deltas).any()):
            break
        equations = _with(equations, doubts, deltas)
        if not matter:  # none of the sides changes an equation of this layer: the solution stands
            known = equations.known
            break
        found = solve(by_reliability(equations), generator)
        if found.deficient or found.report.predicted_error > 1.5 * best.report.predicted_error:
            break
        better = found.report.predicted_error < 0.9 * best.report.predicted_error
        best, known = found, equations.known
        if not better and not bool((deltas > 0.5).any()):
            break
    return best, known


def _doubts(equations: Equations) -> _Doubts | None:
    flips = equations.known.flips
    if flips is None:
        return None
    where = flips.flatten().nonzero()[:, 0]
    if not len(where):
        return None
    change = flips.flatten()[where]
    order = change.abs().argsort(descending=True)[:MOST]
    return _Doubts(where[order], change[order])


def _deltas(equations: Equations, doubts: _Doubts, solved: Solved) -> tuple[Tensor | None, bool]:
    """(M,) how far each doubtful k is from the assumed side to the other, and whether any of them matters to an equation.

    Where the patch that a value sees is zero within its error, the value is zero: its side is that of zero, which counts as
    negative. None where the equations cannot tell.
    """
    operator, known, value = equations.operator, equations.known, solved.value
    assert equations.gradient is not None
    left = _without(equations, doubts)
    factor = _filter_weights(left)
    columns = []
    for index, change in zip(doubts.where.tolist(), doubts.change.tolist(), strict=True):
        single = torch.zeros_like(known.cotangent).flatten()
        single[index] = change
        columns.append(operator.weight_gradient(value[None], single.reshape(known.cotangent.shape))[0] * factor)
    patches = torch.stack(columns)
    lengths = patches.flatten(1).norm(dim=1)
    size = equations.gradient[0].numel() ** 0.5
    empty = lengths <= EMPTY * size * solved.report.predicted_error * doubts.change.abs()
    matters = (lengths > FELT * equations.noise) & ~empty
    positive = known.value.flatten()[doubts.where] > 0
    deltas = (empty & positive).to(value)
    if not bool(matters.any()):
        return deltas, False
    stack = stack_of(by_reliability(left))
    patches = patches[matters]
    system = stack.evened()
    shift = 0.0 if equations.bias is None else known.seen(equations.bias.expand(operator.output_shape)[None])[0]
    right = system.right(stack.right((known.value - shift)[None], (equations.gradient * factor)[None]))
    nothing = torch.zeros_like(known.value).expand(len(patches), *known.value.shape)
    factors = torch.linalg.qr(system.right(stack.right(nothing, patches)).T)
    basis: Tensor = factors.Q  # (m, M)
    triangle: Tensor = factors.R
    usable = triangle.diagonal().abs() > 1e-9 * triangle.diagonal().abs().max()
    if not bool(usable.all()):
        return None, True

    def free(rows: Tensor) -> Tensor:
        return rows - (rows @ basis) @ basis.T

    found = lsmr(
        lambda y: free(system.apply(y)), lambda u: system.adjoint(free(u)), free(right), tolerance=1e-4, iterations=ITERATIONS
    )
    rest = right - system.apply(found.solution)
    deltas[matters] = torch.linalg.solve_triangular(triangle, (rest @ basis).T, upper=True)[:, 0]
    return deltas, True


def _filter_weights(equations: Equations) -> Tensor:
    """(C_out, 1, ...) the weights that `by_reliability` gives the filters' gradient rows."""
    assert equations.gradient is not None
    weighted = by_reliability(equations)
    assert weighted.gradient is not None
    plain, scaled = equations.gradient.flatten(1).norm(dim=1), weighted.gradient.flatten(1).norm(dim=1)
    factor = torch.where(plain > 0, scaled / plain.clamp(min=1e-300), 1.0)
    return factor.reshape(-1, *[1] * (equations.gradient.ndim - 1))


def _clear(deltas: Tensor) -> Tensor:
    return (deltas.abs() < CLEAR) | ((deltas - 1).abs() < CLEAR)


def _without(equations: Equations, doubts: _Doubts) -> Equations:
    """The equations as if the doubts treated here were none, so that their filters keep their weight."""
    sigma = equations.known.cotangent_sigma.flatten().clone()
    errors = equations.known.cotangent_errors.flatten(1).clone()
    sigma[doubts.where] = 0.0
    errors[:, doubts.where] = 0.0
    known = replace(
        equations.known,
        cotangent_sigma=sigma.reshape(equations.known.cotangent_sigma.shape),
        cotangent_errors=errors.reshape(equations.known.cotangent_errors.shape),
    )
    return replace(equations, known=known)


def _with(equations: Equations, doubts: _Doubts, deltas: Tensor) -> Equations:
    """The equations after the clear deltas were settled: k changed where delta is near 1, no doubt left where it is clear."""
    known = equations.known
    clear = _clear(deltas)
    turned = clear & (deltas > 0.5)
    cotangent = known.cotangent.flatten().clone()
    assert known.flips is not None
    flips = known.flips.flatten().clone()
    cotangent[doubts.where[turned]] += doubts.change[turned]
    flips[doubts.where[turned]] *= -1.0
    settled = _Doubts(doubts.where[clear], doubts.change[clear])
    flips[settled.where] = 0.0
    known = replace(known, cotangent=cotangent.reshape(known.cotangent.shape), flips=flips.reshape(known.cotangent.shape))
    return _without(replace(equations, known=known), settled)
