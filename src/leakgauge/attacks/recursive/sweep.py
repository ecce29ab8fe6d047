"""The recursion from the last layer to the input; it stops at the first layer whose own equations do not suffice."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from leakgauge.attacks.recursive.before import layer_before
from leakgauge.attacks.recursive.kinks import settle
from leakgauge.attacks.recursive.known import Known, NotSeparable, through
from leakgauge.attacks.recursive.layer import Equations, Solved, by_reliability, solve
from leakgauge.attacks.recursive.planted import missing_columns, planted_input
from leakgauge.attacks.recursive.problem import NoiseLevel, Problem
from leakgauge.attacks.recursive.start import Start
from leakgauge.attacks.recursive.virtual import complete
from leakgauge.chain.operators import operator_of
from leakgauge.core.reconstruction import LayerReport
from leakgauge.linalg import lsmr


@dataclass(frozen=True)
class Stop:
    """Where the recursion could not go on.

    Args:
        index: of the link.
        known: at its output.
        reason: one sentence.
        solved: what its own equations give, the missing directions left at zero; None where they cannot be set up.
        contradicted: whether the start was rejected.
    """

    index: int
    known: Known
    reason: str
    solved: Solved | None = None
    contradicted: bool = False


@dataclass(frozen=True)
class Sweep:
    """Result of a recursion.

    Args:
        value: (*input) of the network, or None if it stopped before.
        errors: (R, *input) samples of its error.
        reports: rows of the per-layer table, output side first.
        stop: where it stopped, or None.
        products: products with layer operators.
        noise: expected errors of the gradients, as the layers showed them.
        sides: position of a kinked activation -> (*shape) bool, whether its input is positive.
    """

    value: Tensor | None
    errors: Tensor | None
    reports: tuple[LayerReport, ...]
    stop: Stop | None
    products: int
    noise: NoiseLevel
    sides: dict[int, Tensor] = field(default_factory=dict)


def sweep(
    problem: Problem,
    start: Start,
    index: int,
    generator: torch.Generator,
    *,
    virtual: bool = True,
    reject: float = float("inf"),
) -> Sweep:
    """Goes back from the input of link `index`, the last layer, to the input of the network.

    Args:
        problem: gradients and network.
        start: what the last layer gave.
        index: of the last layer.
        generator: of planted inputs and error samples.
        virtual: complete deficient layers with the layer before them where its equations allow it.
        reject: relative residual of a layer above which the start cannot be right.
    """
    known, products = start.known, 0
    reports: list[LayerReport] = []
    sides: dict[int, Tensor] = {}
    latest: int | None = None  # the activation right behind the layer that is solved
    links, noise = problem.chain.links, NoiseLevel(problem)
    weight = links[index].weight
    assert weight is not None
    noise.measured(weight, start.residual * problem.size(weight))

    def stopped(stop: Stop) -> Sweep:
        return Sweep(None, None, tuple(reports), stop, products, noise)

    for position in range(index - 1, -1, -1):
        link = links[position]
        if link.kind not in ("conv", "linear"):
            try:
                known = through(known, link, problem.state)
                if known.flips is not None and link.activation is not None:
                    sides[position], latest = known.value > 0, position
            except NotSeparable as error:
                return stopped(Stop(position, known, f"{error}."))
            continue
        if problem.expired():
            return stopped(Stop(position, known, "The time was up."))
        equations = equations_of(problem, position, known, noise)
        solved = solve(by_reliability(equations), generator)
        if known.flips is not None and bool(known.flips.any()) and not solved.deficient:
            before = known.cotangent
            solved, known = settle(equations, solved, generator)
            if latest is not None and before.shape == sides[latest].shape:
                sides[latest] = sides[latest] ^ (before != known.cotangent)
        if solved.noise is not None and link.weight is not None:
            noise.measured(link.weight, solved.noise)
        reports.append(solved.report)
        products += solved.products
        if solved.report.residual > reject:
            reason = f"The equations of {link.name!r} contradict each other (relative residual {solved.report.residual:.1e})."
            return stopped(Stop(position, known, reason, contradicted=True))
        if solved.deficient:
            better = _completed(problem, position, known, noise, solved, generator) if virtual else None
            if better is not None:
                solved = better
                reports[-1] = better.report
        if solved.deficient:
            missing = solved.report.rank_deficiency
            reason = f"{link.name!r} has about {missing:,} equations too few for its {solved.report.unknowns:,} input values."
            return stopped(Stop(position, known, reason, solved))
        known = after(problem, position, known, solved)
    if known.view is not None or not bool(known.mask.all()):
        whole = _from_view(problem, known, generator)
        if whole is not None:
            value, errors, report = whole
            return Sweep(value, errors, (*reports, report), None, products, noise, sides)
        return stopped(Stop(-1, known, "The network pools its input before any weight sees it."))
    return Sweep(known.value, known.errors, tuple(reports), None, products, noise, sides)


def _from_view(problem: Problem, known: Known, generator: torch.Generator) -> tuple[Tensor, Tensor, LayerReport] | None:
    """The input from what padding or pooling before the first weights shows of it; None where that is not all of it."""
    shape, size = problem.spec.shape, grey_input(problem).numel()

    def apply(flat: Tensor) -> Tensor:
        return known.seen(flat.reshape(-1, *shape)).flatten(1)

    def adjoint(flat: Tensor) -> Tensor:
        return known.seen_adjoint(flat.reshape(-1, *known.value.shape)).flatten(1)

    planted = planted_input(size, generator, known.value)
    rows = torch.cat([(known.value * known.mask).reshape(1, -1), apply(planted), known.errors.flatten(1)])
    found = lsmr(apply, adjoint, rows, tolerance=1e-12, fit=1e-12, iterations=500)
    if missing_columns(found.solution[1:2], planted):
        return None
    errors = found.solution[2:].reshape(-1, *shape)
    report = LayerReport(
        name="input",
        method="values behind padding or pooling",
        unknowns=size,
        equations=int(known.mask.sum()),
        rank=size,
        condition=found.condition,
        residual=float(found.residual[0] / rows[0].norm().clamp(min=1e-300)),
        predicted_error=float(errors.square().mean().sqrt()),
    )
    return found.solution[0].reshape(shape), errors, report


def _completed(
    problem: Problem,
    position: int,
    known: Known,
    noise: NoiseLevel,
    solved: Solved,
    generator: torch.Generator,
) -> Solved | None:
    before = layer_before(problem, position)
    if before is None:
        return None
    first = before.links[0]
    guess = _middle(problem, problem.chain.links.index(first))
    if guess is None:
        guess = torch.zeros(first.input_shape, dtype=solved.value.dtype, device=solved.value.device)
    return complete(problem, by_reliability(equations_of(problem, position, known, noise)), solved, before, guess, generator)


def grey_input(problem: Problem) -> Tensor:
    """(*input) the middle of the range of values."""
    return problem.spec.normalise(torch.full((1, *problem.spec.shape), 0.5)).to(next(iter(problem.state.values())))[0]


def _middle(problem: Problem, position: int) -> Tensor | None:
    """Mid-grey, shaped as the input of a layer that sees the picture itself; None for later layers."""
    links = problem.chain.links
    if any(link.kind not in ("reshape", "identity") for link in links[:position]):
        return None
    return grey_input(problem).reshape(links[position].input_shape)


def equations_of(problem: Problem, position: int, known: Known, noise: NoiseLevel) -> Equations:
    """The system of the layer at `position`, of whose output `known` is known."""
    link = problem.chain.links[position]
    operator = operator_of(link, problem.state)
    assert link.weight is not None
    bias = None if link.bias is None else problem.state[link.bias]
    if bias is not None:
        bias = bias.reshape(-1, *[1] * (len(operator.output_shape) - 1))
    shared = link.weight in problem.gradients
    return Equations(
        link=link,
        operator=operator,
        known=known,
        gradient=problem.gradients[link.weight] if shared else None,
        noise=noise.expected(link.weight) if shared else 0.0,
        bias=bias,
        centre=_middle(problem, position),
        dense=problem.dense,
        expired=problem.expired,
    )


def after(problem: Problem, position: int, known: Known, solved: Solved) -> Known:
    """What is known at the input of a solved layer."""
    operator = operator_of(problem.chain.links[position], problem.state)
    size = max(solved.report.predicted_error, 1e-16 * float(solved.value.square().mean().sqrt()))
    return Known(
        value=solved.value,
        mask=torch.ones_like(solved.value, dtype=torch.bool),
        sigma=torch.full_like(solved.value, size if size < float("inf") else 1.0),
        errors=solved.errors,
        cotangent=operator.adjoint(known.cotangent[None])[0],
        cotangent_errors=operator.adjoint(known.cotangent_errors),
        cotangent_sigma=operator.squared().adjoint(known.cotangent_sigma.square()[None])[0].sqrt(),
    )
