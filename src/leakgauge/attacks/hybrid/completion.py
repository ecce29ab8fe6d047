"""Goes on where a recursion stopped: all remaining layers together on the picture, then the prior in what stays open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from leakgauge.attacks.base import Limits
from leakgauge.attacks.hybrid.image_prior import PicturePrior
from leakgauge.attacks.hybrid.null_space import System, fill, projector
from leakgauge.attacks.hybrid.regularised import smooth_start
from leakgauge.attacks.recursive.candidate import Candidate
from leakgauge.attacks.recursive.joint import JointSettings, column_scale
from leakgauge.attacks.recursive.layer import by_reliability, stack_of
from leakgauge.attacks.recursive.problem import Problem
from leakgauge.attacks.recursive.sweep import Stop, equations_of, grey_input
from leakgauge.attacks.recursive.together import segment_of, solve_together, without_jumps
from leakgauge.core.reconstruction import LayerReport
from leakgauge.linalg import Preconditioner, lsmr

ROUNDS = 2  # of prior and joint step in turn, where the equations bend
WALL = 100.0  # weight of the squared output of a silent unit
EVALUATIONS = (300, 1000, 3000)  # of the prior
PRODUCTS = (12_000, 40_000, 160_000)  # of the joint steps, each about a gradient evaluation


@dataclass(frozen=True)
class Completion:
    """A picture with what is known about it.

    Args:
        value: (*input).
        errors: (R, *input) samples of its error; None where the equations leave part of it open.
        determined: whether all equations together have full rank.
        met: whether the equations are met to their expected errors; True as well where a layer that lacks equations stands
            open after all, which is no failure of a search.
        reports: rows of the per-layer table.
        evaluations: products with derivatives, and evaluations of the prior.
        notes: for the result.
        cause: one sentence.
    """

    value: Tensor
    errors: Tensor | None
    determined: bool
    met: bool
    reports: tuple[LayerReport, ...]
    evaluations: int
    notes: tuple[str, ...] = ()
    cause: str = ""


def complete(
    problem: Problem,
    best: Candidate,
    prior: PicturePrior,
    iterations: int,
    generator: torch.Generator,
    limits: Limits,
    watch: Callable[[int, Tensor, float], None],
) -> Completion:
    """The picture for a recursion that stopped, or whose result left the range of values."""
    stop = best.sweep.stop
    reports, products = best.sweep.reports, best.sweep.products
    if stop is None:
        assert best.value is not None
        return Completion(best.value, None, False, False, reports, products, cause="The solution leaves the range of values.")
    if stop.index < 0 or not any(link.kind in ("conv", "linear", "block") for link in problem.chain.links[: stop.index]):
        return _first_layer(problem, best, stop, prior, limits)
    settings = JointSettings(iterations=iterations, total=limits.evaluations(*PRODUCTS) // (2 + ROUNDS))
    start = grey_input(problem)
    found = solve_together(problem, stop, [start], generator, settings, watch)
    products += found.products
    links = problem.chain.links[: stop.index + 1]
    if not found.met and not limits.expired and not any(link.kind == "block" for link in links):
        eased = without_jumps(problem, links, stop.known) or segment_of(problem, links, stop.known)
        near, spent = smooth_start(problem, eased, start, prior.colour, settings)
        again = solve_together(problem, stop, [near], generator, settings, watch)
        products += spent + again.products
        if again.met or again.report.residual < found.report.residual:
            found = again
        if not found.met:  # better a smooth picture near the equations than a rough one that is no nearer
            found = replace(found, value=near)
    value, notes = found.value, []
    if found.met and found.missing:
        for _ in range(ROUNDS):
            value, count = _filled(problem, stop, value, prior, limits)
            products += count
            found = solve_together(problem, stop, [value], generator, settings, watch)
            value, products = found.value, products + found.products
        notes.append(f"about {found.missing:,} of {value.numel():,} values are the prior's, not the update's")
    determined = found.met and found.missing == 0
    cause = f"{stop.reason} " + (
        "Solved together with the layers before it."
        if determined
        else f"All layers together leave about {found.missing:,} values open; a prior filled them."
        if found.met
        else "Solving the layers together did not converge."
    )
    return Completion(
        value,
        found.errors if determined else None,
        determined,
        found.met or stop.solved is not None,
        (*reports, found.report),
        products,
        tuple(notes),
        cause,
    )


def _first_layer(problem: Problem, best: Candidate, stop: Stop, prior: PicturePrior, limits: Limits) -> Completion:
    """Linear equations on the picture itself, and the prior in their null space."""
    shape = grey_input(problem).shape
    if stop.index < 0 or stop.solved is None:
        view = stop.known
        system = System(
            lambda flat: view.seen(flat.reshape(-1, *shape)).flatten(1),
            lambda flat: view.seen_adjoint(flat.reshape(-1, *view.value.shape)).flatten(1),
            grey_input(problem).numel(),
        )
        start = grey_input(problem).flatten()
        off = (view.value.flatten() - system.apply(start[None])[0])[None]
        point = (start + lsmr(system.apply, system.adjoint, off).solution[0]).reshape(shape)
    else:
        stack = stack_of(by_reliability(equations_of(problem, stop.index, stop.known, best.sweep.noise)))
        system = System(stack.apply, stack.adjoint, stack.columns, stack.preconditioner())
        point = stop.solved.value.reshape(shape)
    project = projector(system, point.flatten())
    budget = limits.evaluations(*EVALUATIONS)
    value, count = fill(
        point, project, prior, problem.spec, iterations=budget, extra=_dead(problem, stop), expired=problem.expired
    )
    missing = stop.solved.report.rank_deficiency if stop.solved is not None else 0
    about = f"about {missing:,} of {value.numel():,} values are" if missing else "part of the values is"
    return Completion(
        value,
        None,
        False,
        True,
        best.sweep.reports,
        best.sweep.products + count,
        (f"{about} the prior's, not the update's",),
        f"{stop.reason} Nothing before it can make that good; a prior for natural pictures filled what is open.",
    )


def _dead(problem: Problem, stop: Stop) -> Callable[[Tensor], Tensor] | None:
    """A penalty on positive outputs of the first layer where its ReLU was silent; None for other activations."""
    links, known = problem.chain.links, stop.known
    follower = next((link for link in links[stop.index + 1 :] if link.kind not in ("identity", "reshape")), None)
    if stop.index < 0 or follower is None or follower.activation is None or not follower.activation.partial:
        return None
    silent = ~known.mask

    def penalty(inputs: Tensor) -> Tensor:
        outputs = problem.chain.run(inputs[None], problem.state, 0, stop.index + 1)[0]
        return WALL * (outputs.reshape(silent.shape) * silent).clamp(min=0).square().sum()

    return penalty


def _filled(problem: Problem, stop: Stop, value: Tensor, prior: PicturePrior, limits: Limits) -> tuple[Tensor, int]:
    segment = segment_of(problem, problem.chain.links[: stop.index + 1], stop.known)
    current = segment.linearised(value.flatten())
    even = Preconditioner.diagonal(column_scale(current, segment))
    project = projector(System(current.apply, current.adjoint, segment.unknowns, even), value.flatten())
    return fill(value, project, prior, problem.spec, iterations=limits.evaluations(*EVALUATIONS), expired=problem.expired)
