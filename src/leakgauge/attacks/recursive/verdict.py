"""From a recursion to a reconstruction: recomputed update, twins, error radius, outcome."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from leakgauge.attacks.base import Limits
from leakgauge.attacks.recursive.candidate import Candidate
from leakgauge.attacks.recursive.nudge import nudge, on_grid
from leakgauge.attacks.recursive.polish import polish
from leakgauge.attacks.recursive.problem import Problem
from leakgauge.attacks.recursive.sweep import grey_input
from leakgauge.attacks.recursive.together import Joined
from leakgauge.attacks.verify import agrees, recomputed
from leakgauge.core.observation import Observation
from leakgauge.core.reconstruction import LayerReport, Outcome, Reconstruction, Stats, unverified

RADIUS = 1e-3  # largest error radius of a certificate, as a share of the range (DESIGN rule 2)
NUDGES = 3
BLURRED = 1.2e-4  # error radius of a recursion from which all equations are used once more
SAFETY = 5.0  # the radius is this many times the expected error


def conclude(
    seen: Observation,
    problem: Problem,
    found: list[Candidate],
    joined: Joined | None,
    limits: Limits,
    name: str,
    options: dict[str, Any],
    *,
    grid: bool,
) -> Reconstruction:
    """The reconstruction of the best candidate, with its twin beside it where the range of values cannot decide.

    Args:
        seen: what the attacker holds.
        problem: the same, prepared.
        found: candidates, the most plausible first.
        joined: what solving several layers together gave, or None.
        limits: the clock.
        name: of the attack.
        options: its options.
        grid: whether pixels that lie on the 8-bit grid within their error are rounded to it.
    """
    if not found:
        return _nothing(seen, limits, name, options)
    plausible = [one for one in found if one.plausible and one.value is not None]
    kept = plausible[:2] if len(plausible) > 1 else [plausible[0] if plausible else found[0]]
    if len(kept) == 1 and joined is None and not limits.expired and _blurred(problem, kept[0]):
        kept = [polish(problem, kept[0]) or kept[0]]
    best = kept[0]
    fallback = fallback_of(problem, best)
    inputs = torch.stack([one.value if one.value is not None else fallback for one in kept])
    labels = torch.tensor([one.start.label for one in kept])
    residual = recomputed(seen, problem.target, inputs[:1], labels[:1])
    notes: list[str] = []
    if best.value is not None:
        inputs, residual, notes = _refined(seen, problem, best, inputs, labels, residual, grid)
    explains = agrees(residual, seen, "float64")
    complete = best.value is not None and (joined is None or (joined.met and joined.missing == 0))
    radius = radius_of(problem, best.errors) if complete and best.errors is not None else float("inf")
    certified = unverified(len(inputs))
    if complete and explains and radius <= RADIUS and len(kept) == 1 and best.plausible:
        certified[:] = True
    if len(kept) > 1 and explains:
        outcome, cause = (
            Outcome.UNDERDETERMINED,
            "Two inputs within the range explain the update equally well; both are returned.",
        )
    else:
        outcome, cause = _outcome(best, joined, explains, residual, radius, bool(certified.all()), limits)
    layers = best.sweep.reports + ((joined.report,) if joined is not None else ())
    stats = Stats(
        evaluations=best.sweep.products + (joined.products if joined is not None else 0),
        residual=residual,
        cause=cause,
        notes=(*_notes(found, kept, radius), *notes),
        options=options,
        layers=layers,
        radius=radius,
    )
    shown = inputs if float(inputs.abs().max()) < 1e30 else torch.zeros_like(inputs)  # float32 could not hold it
    return _result(shown, labels, outcome, explains, certified, stats, limits, name)


def _blurred(problem: Problem, best: Candidate) -> bool:
    """Whether the recursion lost so many digits that a further step is worth its seconds."""
    return best.value is not None and best.errors is not None and radius_of(problem, best.errors) > BLURRED


def _refined(
    seen: Observation, problem: Problem, best: Candidate, inputs: Tensor, labels: Tensor, residual: float, grid: bool
) -> tuple[Tensor, float, list[str]]:
    """Moves within the error that bring the recomputed update nearer to the observed one: nothing else decides."""
    notes: list[str] = []
    assert best.errors is not None
    within = radius_of(problem, best.errors)
    for _ in range(NUDGES):
        nudged = nudge(problem, best, inputs[:1])
        if nudged is not None and radius_of(problem, nudged - inputs[:1]) > SAFETY * within:  # further than the error allows
            break
        nearer = float("inf") if nudged is None else recomputed(seen, problem.target, nudged, labels[:1])
        if nudged is None or not nearer < 0.9 * residual:
            break
        inputs, residual = torch.cat([nudged, inputs[1:]]), nearer
    rounded = on_grid(problem, best, inputs[:1]) if grid else None
    nearer = float("inf") if rounded is None else recomputed(seen, problem.target, rounded, labels[:1])
    if rounded is not None and nearer < residual:
        inputs, residual = torch.cat([rounded, inputs[1:]]), nearer
        notes.append("all values lie on the grid of 8-bit pixels within their expected error, and were rounded to it")
    return inputs, residual, notes


class Completed(Protocol):
    """What another way of completing a recursion hands over; see `hybrid.completion.Completion`."""

    @property
    def value(self) -> Tensor: ...
    @property
    def errors(self) -> Tensor | None: ...
    @property
    def determined(self) -> bool: ...
    @property
    def met(self) -> bool: ...
    @property
    def reports(self) -> tuple[LayerReport, ...]: ...
    @property
    def evaluations(self) -> int: ...
    @property
    def notes(self) -> tuple[str, ...]: ...
    @property
    def cause(self) -> str: ...


def concluded_with(
    seen: Observation,
    problem: Problem,
    label: int,
    completed: Completed,
    limits: Limits,
    name: str,
    options: dict[str, Any],
) -> Reconstruction:
    """The reconstruction of a completed recursion."""
    inputs, labels = completed.value[None], torch.tensor([label])
    residual = recomputed(seen, problem.target, inputs, labels)
    explains = agrees(residual, seen, "float64")
    radius = radius_of(problem, completed.errors) if completed.determined and completed.errors is not None else float("inf")
    certified = unverified(1)
    certified[:] = explains and completed.met and radius <= RADIUS
    if limits.expired:
        outcome = Outcome.TIMEOUT
    elif bool(certified.all()):
        outcome = Outcome.DETERMINED
    elif completed.met and not completed.determined:
        outcome = Outcome.UNDERDETERMINED
    elif not completed.met:
        outcome = Outcome.STEP_LIMIT
    else:
        outcome = Outcome.CONVERGED if explains else Outcome.INCONSISTENT
    shown = () if radius == float("inf") else (f"error radius {radius:.1e} of the range ({SAFETY:.0f} expected errors)",)
    stats = Stats(
        evaluations=completed.evaluations,
        residual=residual,
        cause=f"{completed.cause} The recomputed update is {residual:.1e} away (relative norm).".strip(),
        notes=(*completed.notes, *shown),
        options=options,
        layers=completed.reports,
        radius=radius,
    )
    return _result(inputs, labels, outcome, explains, certified, stats, limits, name)


def radius_of(problem: Problem, errors: Tensor) -> float:
    """Error radius from samples (R, *input): `SAFETY` times their root mean square, as a share of the range."""
    low, high = problem.spec.bounds(errors[:1])
    return SAFETY * float((errors / (high - low)).square().mean().sqrt())


def fallback_of(problem: Problem, best: Candidate) -> Tensor:
    """(*input) for a recursion that stopped: what the first layer's own equations give beside mid-grey, else mid-grey."""
    grey = grey_input(problem)
    stop = best.sweep.stop
    if stop is not None and stop.solved is not None and stop.solved.value.numel() == grey.numel():
        return stop.solved.value.reshape(grey.shape)
    return grey


def _outcome(
    best: Candidate, joined: Joined | None, explains: bool, residual: float, radius: float, certified: bool, limits: Limits
) -> tuple[Outcome, str]:
    if limits.expired:
        return Outcome.TIMEOUT, "Stopped before every layer was solved."
    stop = best.sweep.stop
    if best.value is None:
        assert stop is not None
        return Outcome.UNDERDETERMINED, f"{stop.reason} Nothing before it can make that good."
    if joined is not None and joined.missing:
        return Outcome.UNDERDETERMINED, f"All layers together leave about {joined.missing:,} input values open."
    if joined is not None and not joined.met:
        reason = stop.reason if stop is not None else ""
        lacking = stop is not None and stop.solved is not None
        ended = Outcome.UNDERDETERMINED if lacking else Outcome.STEP_LIMIT
        return ended, f"{reason} Solving the layers together did not converge; the update is {residual:.1e} away."
    if certified:
        return Outcome.DETERMINED, f"Every layer has full rank; error radius {radius:.1e} of the range; residual {residual:.1e}."
    if not explains:
        return Outcome.INCONSISTENT, f"The best solution is {residual:.1e} away from the update (relative norm)."
    return Outcome.CONVERGED, f"The update is explained, but the error may reach {radius:.1e} of the range."


def _notes(found: list[Candidate], kept: list[Candidate], radius: float) -> tuple[str, ...]:
    notes = [f"error radius {radius:.1e} of the range ({SAFETY:.0f} expected errors)"] if radius < float("inf") else []
    if len(found) > 1:
        scales = ", ".join(f"{one.start.scale:.4g}" for one in found if one.start.scale is not None)
        if len(kept) > 1:
            notes.append(
                f"the last layer allows twin solutions (scales {scales}), both within the range of values: both are returned"
            )
        else:
            notes.append(f"the last layer allows twin solutions (scales {scales}); the range of values decides")
    return tuple(notes)


def _nothing(seen: Observation, limits: Limits, name: str, options: dict[str, Any]) -> Reconstruction:
    assert seen.pictures is not None
    inputs = seen.pictures.normalise(torch.full((1, *seen.pictures.shape), 0.5))
    stats = Stats(cause="No input of the last layer agrees with its gradient and the loss.", options=options)
    return _result(inputs, None, Outcome.INCONSISTENT, False, unverified(1), stats, limits, name)


def _result(
    inputs: Tensor,
    labels: Tensor | None,
    outcome: Outcome,
    explains: bool,
    certified: Tensor,
    stats: Stats,
    limits: Limits,
    name: str,
) -> Reconstruction:
    return Reconstruction(
        inputs=inputs.float().cpu(),
        labels=labels,
        outcome=outcome,
        explains=explains,
        certified=certified,
        confidence=certified.float(),
        stats=stats,
        seconds=limits.seconds,
        attack=name,
    )
