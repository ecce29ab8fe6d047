"""One layer: its input from the gradient equations K x = g and the weight equations W x = z - b, by estimated error."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from leakgauge.attacks.recursive.known import SAMPLES, Known
from leakgauge.attacks.recursive.planted import missing_columns, planted_input
from leakgauge.attacks.recursive.stack import Evened, Stack
from leakgauge.chain.link import Link
from leakgauge.chain.operators import LayerOperator, block_is_small
from leakgauge.core.reconstruction import LayerReport
from leakgauge.linalg import DENSE, Preconditioner, lsmr

WELL = 1e-11  # smallest eigenvalue of a gradient block's Gram matrix, relative to its largest, that counts as full rank
GRAM = 2200  # largest block solved by its Gram matrix
TOLERANCE = 1e-4  # of the data's solution, relative to the noise that the residual shows
PLANTED_FIT = 1e-6
ROUGH = 1e-3  # error samples need two digits
PATIENCE = 900  # iterations before a dense factor takes over, where it fits


@dataclass(frozen=True)
class Equations:
    """The system of one layer.

    Args:
        link: the layer.
        operator: its W and K.
        known: at its output, z; the cotangent is k.
        gradient: (*weight) observed, or None if withheld.
        noise: expected error of the gradient's entries.
        spread: the same with what doubt about k adds, for weights; equal to `noise` where there is none.
        bias: (outputs) of the layer, shaped to broadcast, or None.
        centre: (*input) where directions without equations are left; zero if None.
        dense: unknowns up to which a dense factor may be made.
        expired: polled by the long parts.
    """

    link: Link
    operator: LayerOperator = field(repr=False)
    known: Known = field(repr=False)
    gradient: Tensor | None = field(repr=False)
    noise: float
    spread: float = 0.0
    bias: Tensor | None = field(default=None, repr=False)
    centre: Tensor | None = field(default=None, repr=False)
    dense: int = DENSE
    expired: Callable[[], bool] = field(default=lambda: False, repr=False)

    @property
    def unknowns(self) -> int:
        """Values of the layer's input."""
        return math.prod(self.operator.input_shape)


@dataclass(frozen=True)
class Solved:
    """Input of a layer.

    Args:
        value: (*input).
        errors: (R, *input) samples of its error.
        report: row of the per-layer table.
        rank: numerical rank, or what a planted input says of it.
        products: products with the layer's operator.
        noise: error of the gradient's entries that the residual shows; None where there are too few equations to tell.
        factored: the inverse of the dense factor of the normal matrix, where one was made.
    """

    value: Tensor
    errors: Tensor
    report: LayerReport
    rank: int
    products: int = 1
    noise: float | None = None
    factored: Preconditioner | None = field(default=None, repr=False)

    @property
    def deficient(self) -> bool:
        """Whether the layer's own equations leave part of its input open."""
        return self.rank < math.prod(self.value.shape)


def solve(equations: Equations, generator: torch.Generator, *, accept: float = 1e-4) -> Solved:
    """The input of a layer: gradient equations alone where they suffice, else both kinds; the better by estimated error.

    Args:
        equations: the layer's system.
        generator: draws planted inputs and error samples.
        accept: estimated error, relative to the input's root mean square, at which gradient equations alone are taken.
    """
    alone = _by_gradient(equations, generator)
    if alone is not None and alone.report.predicted_error <= accept * float(alone.value.square().mean().sqrt()):
        return alone
    both = _by_both(equations, generator)
    if alone is not None and (both.deficient or alone.report.predicted_error <= both.report.predicted_error):
        return alone
    return both


def _by_gradient(equations: Equations, generator: torch.Generator) -> Solved | None:
    """From K x = g alone, block by block; None where K lacks columns of rank or is too large for a direct solve."""
    operator, known, gradient = equations.operator, equations.known, equations.gradient
    if gradient is None or not block_is_small(operator):
        return None
    block = operator.gradient_block(known.cotangent)  # (G, rows, columns)
    if block.shape[2] > GRAM or block.shape[1] < block.shape[2]:
        return None
    gram = block.transpose(1, 2) @ block
    spectrum = torch.linalg.eigvalsh(gram)  # (G, columns), ascending
    if not bool((spectrum[:, 0] > WELL * spectrum[:, -1]).all()):
        return None
    factor = torch.linalg.cholesky(gram)

    def least_squares(gradients: Tensor) -> Tensor:
        right = operator.split(gradients)
        found = torch.cholesky_solve(block.transpose(1, 2) @ right, factor)
        for _ in range(2):  # refinement takes back what the squared condition cost
            found = found + torch.cholesky_solve(block.transpose(1, 2) @ (right - block @ found), factor)
        return operator.joined(found, len(gradients))

    value = least_squares(gradient[None])[0]
    off = gradient - operator.weight_gradient(value[None], known.cotangent)[0]
    rows, unknowns = gradient.numel(), equations.unknowns
    shown = float(off.norm()) / (rows - unknowns) ** 0.5 if rows > 1.5 * unknowns else None
    drift = _gradient_errors(equations, value, max(equations.noise, shown or 0.0), generator)
    errors = least_squares(drift)
    report = LayerReport(
        name=equations.link.name,
        method="gradient equations",
        unknowns=unknowns,
        equations=rows,
        rank=unknowns,
        condition=float((spectrum[:, -1] / spectrum[:, 0]).max().sqrt()),
        residual=float(off.norm() / gradient.norm().clamp(min=1e-300)),
        predicted_error=float(errors.square().mean().sqrt()),
    )
    return Solved(value, errors, report, unknowns, noise=shown)


def _gradient_errors(equations: Equations, value: Tensor, noise: float, generator: torch.Generator) -> Tensor:
    """(R, *weight) samples of the error of g - K x: rounding or noise of g, and the error of k."""
    known, operator = equations.known, equations.operator
    draws = torch.randn(SAMPLES, *operator.weight_shape, generator=generator, dtype=torch.float64).to(value) * noise
    turned = [operator.weight_gradient(value[None], one)[0] for one in known.cotangent_errors]
    return draws - torch.stack(turned)


def by_reliability(equations: Equations) -> Equations:
    """The same equations with the gradient rows of every filter weighted by one over their expected error.

    An output gradient k whose activation may lie on either side of its kink spoils the rows of its own filter and no others.
    The rows of a filter are linear in its k and its g, so that a weight is a factor on both.
    """
    gradient, known = equations.gradient, equations.known
    if gradient is None:
        return equations
    strength = known.cotangent.flatten(1).square().sum(1) if known.cotangent.ndim > 1 else known.cotangent.square()
    doubt = known.cotangent_sigma.flatten(1).square().sum(1) if known.cotangent.ndim > 1 else known.cotangent_sigma.square()
    if not bool(strength.sum() > 0):
        return equations
    size = gradient.square().mean() / strength.mean()  # mean square of the input, as for white inputs: g = K x
    expected = (equations.noise**2 + size * doubt).sqrt()
    middle = expected.median()
    factor = torch.where(expected > middle, middle / expected.clamp(min=1e-300), 1.0)
    column = factor.reshape(-1, *[1] * (known.cotangent.ndim - 1))
    own = replace(known, cotangent=known.cotangent * column, cotangent_errors=known.cotangent_errors * column)
    weighted = gradient * factor.reshape(-1, *[1] * (gradient.ndim - 1))
    return replace(equations, known=own, gradient=weighted, spread=float(middle))


def stack_of(equations: Equations) -> Stack:
    """Both kinds of equations."""
    noise = max(equations.spread, equations.noise)
    return Stack(equations.operator, equations.known, equations.gradient is not None, noise)


def _by_both(equations: Equations, generator: torch.Generator) -> Solved:
    """From K x = g and W x = z - b together, matrix-free."""
    operator, known = equations.operator, equations.known
    stack = stack_of(equations)
    shift = 0.0 if equations.bias is None else known.seen(equations.bias.expand(operator.output_shape)[None])[0]
    right = stack.right((known.value - shift)[None], None if equations.gradient is None else equations.gradient[None])
    middle = None if equations.centre is None else equations.centre.reshape(1, -1)
    if middle is not None:
        right = right - stack.apply(middle)
    planted = planted_input(stack.columns, generator, right)
    system, fit = stack.evened(), torch.tensor([1e-15, PLANTED_FIT])
    rows = torch.cat([system.right(right), system.apply(planted)])
    found = lsmr(system.apply, system.adjoint, rows, tolerance=TOLERANCE, fit=fit, iterations=PATIENCE, expired=equations.expired)
    products, factored = found.iterations, None
    missing = missing_columns(found.solution[1:], planted)
    if not bool(found.converged.all()) or (missing and stack.columns <= DENSE):
        tight = stack.columns <= equations.dense  # a system that looks deficient may only be badly conditioned
        if tight:
            factored = stack.factored()
            system = Evened.of(stack, factored)
            rows = torch.cat([right, system.apply(planted)])
        fit = torch.tensor([1e-15, 1e-10 if tight else PLANTED_FIT])
        found = lsmr(
            system.apply, system.adjoint, rows, tolerance=TOLERANCE, fit=fit, iterations=2 * PATIENCE, expired=equations.expired
        )
        products += found.iterations
        missing = missing_columns(found.solution[1:], planted)
    flat = torch.nan_to_num(system.even.apply(found.solution), nan=0.0, posinf=0.0, neginf=0.0)
    value = (flat[0] if middle is None else flat[0] + middle[0]).reshape(operator.input_shape)
    drift = known.errors
    gradients = None if equations.gradient is None else _gradient_errors(equations, value, equations.noise, generator)
    right_of_errors = system.right(stack.right(drift, gradients))
    errors = lsmr(system.apply, system.adjoint, right_of_errors, tolerance=ROUGH, iterations=500)
    count = int(known.mask.sum()) + (0 if equations.gradient is None else equations.gradient.numel())
    rank = equations.unknowns if not missing else max(min(equations.unknowns - missing, count), 0)
    samples = system.even.apply(errors.solution).reshape(SAMPLES, *operator.input_shape)
    report = LayerReport(
        name=equations.link.name,
        method="gradient and weight equations" if equations.gradient is not None else "weight equations",
        unknowns=equations.unknowns,
        equations=count,
        rank=rank,
        condition=found.condition,
        residual=float((stack.apply(flat[:1]) - right).norm() / right.norm().clamp(min=1e-300)),
        predicted_error=float(samples.square().mean().sqrt()) if rank == equations.unknowns else float("inf"),
    )
    return Solved(value, samples, report, rank, products + errors.iterations, factored=factored)
