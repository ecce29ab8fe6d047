"""Completes a recursion that stopped: the layers from the input to where it stopped, solved together."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from leakgauge.attacks.recursive.generic import GenericSegment
from leakgauge.attacks.recursive.joint import JointSettings, JointSolution, column_scale, solve_jointly
from leakgauge.attacks.recursive.known import SAMPLES, Known
from leakgauge.attacks.recursive.planted import missing_columns, planted_input
from leakgauge.attacks.recursive.problem import Problem
from leakgauge.attacks.recursive.segment import PlainSegment, Segment, Weights, weights_of
from leakgauge.attacks.recursive.sweep import Stop
from leakgauge.chain.link import Link
from leakgauge.core.reconstruction import LayerReport
from leakgauge.linalg import Preconditioner, lsmr

CHECK = 1500  # iterations that look for missing rank and carry the error
SLOWER = 16  # a product by automatic differentiation costs as much as so many by hand
FITS = 5.0  # residual, in expected errors, up to which the equations count as met


@dataclass(frozen=True)
class Joined:
    """Input of the network from several layers together.

    Args:
        value: (*input).
        errors: (R, *input) samples of its error; zeros where rank is missing.
        report: row of the per-layer table.
        met: whether the equations are met to their expected errors.
        missing: input values that the equations leave open at the solution, estimated with a planted direction.
        products: products with the derivative.
        expired: whether the clock ended it.
    """

    value: Tensor
    errors: Tensor
    report: LayerReport
    met: bool
    missing: int
    products: int
    expired: bool


def solve_together(
    problem: Problem,
    stop: Stop,
    starts: list[Tensor],
    generator: torch.Generator,
    settings: JointSettings,
    watch: Callable[[int, Tensor, float], None] = lambda *_: None,
) -> Joined:
    """Solves the links before a stop, and the one it stopped at, for the network's input.

    Args:
        problem: gradients and network.
        stop: where the recursion stopped.
        starts: points (*input) to begin at, the next one where the equations were not met from the one before.
        generator: draws planted directions and errors.
        settings: limits of the iteration.
        watch: told (iteration, point, residual).
    """
    links = problem.chain.links[: stop.index + 1]
    segment = segment_of(problem, links, stop.known)
    if isinstance(segment, GenericSegment):
        settings = replace(settings, total=max(settings.total // SLOWER, 50))
    smooth = without_jumps(problem, links, stop.known)
    best: JointSolution | None = None
    products = 0
    for start in starts:
        begin = start.flatten()
        if smooth is not None:
            near = solve_jointly(smooth, begin, settings, problem.expired, watch)
            products, begin = products + near.products, near.point
        found = solve_jointly(segment, begin, settings, problem.expired, watch)
        products += found.products
        if best is None or found.residual < best.residual:
            best = found
        if problem.expired() or best.residual <= FITS * segment.equations**0.5:
            break
    assert best is not None
    return _concluded(problem, segment, links, stop.known, best, products, generator)


def segment_of(problem: Problem, links: tuple[Link, ...], known: Known) -> Segment:
    """The equations of a run of links."""
    weights = weights_of(problem, known, links, problem.noise)
    kind = GenericSegment if any(link.kind == "block" for link in links) else PlainSegment
    return kind(problem, links, known, weights)


def without_jumps(problem: Problem, links: tuple[Link, ...], known: Known) -> Segment | None:
    """The equations that depend continuously on the input, where others jump as a kinked activation changes its side.

    The loss gradient behind a LeakyReLU jumps with the sign of its input, and with it the weight gradients of all layers
    before. The known values and the gradient of the last layer do not: a search that begins with them alone is not held up.
    """
    kinked = [index for index, link in enumerate(links) if link.activation is not None and link.activation.homogeneous]
    if not kinked or any(link.kind == "block" for link in links):
        return None
    early = {name for link in links[: kinked[-1]] for name in link.parameters}
    weights = weights_of(problem, known, links, problem.noise)
    gradients = {name: 0.0 if name in early else weight for name, weight in weights.gradients.items()}
    return PlainSegment(problem, links, known, Weights(weights.values, gradients))


def _concluded(
    problem: Problem,
    segment: Segment,
    links: tuple[Link, ...],
    known: Known,
    found: JointSolution,
    products: int,
    generator: torch.Generator,
) -> Joined:
    unknowns, shape = segment.unknowns, links[0].input_shape
    chi = found.residual / segment.equations**0.5
    if chi > FITS:  # not a solution: neither its rank nor its error would mean anything
        return _unmet(segment, links, found, products)
    current = segment.linearised(found.point)
    even = Preconditioner.diagonal(column_scale(current, segment))
    planted = planted_input(unknowns, generator, found.point)
    right = torch.cat([current.apply(even.apply(planted)), _drift(problem, segment, links, known, found, generator)])
    fit = torch.full((len(right),), 1e-7)
    answer = lsmr(
        current.apply,
        current.adjoint,
        right,
        precondition=even,
        tolerance=1e-6,
        fit=fit,
        iterations=CHECK,
        expired=problem.expired,
    )
    missing = missing_columns(answer.inner[:1], planted)
    errors = torch.nan_to_num(answer.solution[1:], nan=math.inf) * max(chi, 1.0)
    report = LayerReport(
        name=f"{links[0].name} to {links[-1].name}",
        method="all equations of these layers together",
        unknowns=unknowns,
        equations=segment.equations,
        rank=unknowns - missing,
        condition=answer.condition,
        residual=found.residual / max(found.start, 1e-300),
        predicted_error=float(errors.square().mean().sqrt()) if missing == 0 else math.inf,
    )
    return Joined(
        value=found.point.reshape(shape),
        errors=errors.reshape(SAMPLES, *shape),
        report=report,
        met=True,
        missing=missing,
        products=products + answer.iterations,
        expired=found.expired,
    )


def _unmet(segment: Segment, links: tuple[Link, ...], found: JointSolution, products: int) -> Joined:
    unknowns, shape = segment.unknowns, links[0].input_shape
    report = LayerReport(
        name=f"{links[0].name} to {links[-1].name}",
        method="all equations of these layers together",
        unknowns=unknowns,
        equations=segment.equations,
        rank=min(unknowns, segment.equations),
        condition=math.inf,
        residual=found.residual / max(found.start, 1e-300),
        predicted_error=math.inf,
    )
    return Joined(
        value=found.point.reshape(shape),
        errors=torch.full((SAMPLES, *shape), math.inf, dtype=found.point.dtype, device=found.point.device),
        report=report,
        met=False,
        missing=max(unknowns - segment.equations, 0),
        products=products,
        expired=found.expired,
    )


def _drift(
    problem: Problem, segment: Segment, links: tuple[Link, ...], known: Known, found: JointSolution, generator: torch.Generator
) -> Tensor:
    """(R, m) samples of the error of the weighted equations: of the known values, of the gradients, of the loss gradient."""
    assert isinstance(segment, PlainSegment | GenericSegment)
    weights: Weights = segment.weights
    rows = []
    here = segment.residual(found.point)
    for sample in range(SAMPLES):
        noise = torch.randn(len(here), generator=generator, dtype=torch.float64).to(here)
        noise[: known.value.numel()] = (known.errors[sample] * weights.values).flatten()
        turned = replace(known, cotangent=known.cotangent + known.cotangent_errors[sample])
        other = type(segment)(problem, links, turned, weights)
        rows.append(noise - (other.residual(found.point) - here))
    return torch.stack(rows)
