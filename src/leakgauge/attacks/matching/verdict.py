"""From a finished search to a reconstruction: the chosen restart, its outcome and the check against the update."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from leakgauge.attacks.base import Limits
from leakgauge.attacks.matching.distance import adapts
from leakgauge.attacks.matching.driver import Trail
from leakgauge.attacks.matching.problem import Problem
from leakgauge.attacks.verify import agrees, relative_residual
from leakgauge.chain.counting import counting_bound_of
from leakgauge.core.observation import Observation
from leakgauge.core.reconstruction import CurvePoint, Frame, Outcome, Reconstruction, Stats, unverified

if TYPE_CHECKING:
    from leakgauge.attacks.matching.matching import GradientMatching


def conclude(
    attack: GradientMatching,
    seen: Observation,
    problem: Problem,
    trail: Trail,
    start: Tensor,
    limits: Limits,
    notes: tuple[str, ...],
) -> Reconstruction:
    """Chooses the restart with the lowest objective and says what can be known about it."""
    chosen = int(trail.values.argmin())
    point = trail.best[chosen]
    inputs, labels = problem.split(point)
    named = labels if labels.ndim == 1 else labels.argmax(1)
    residual = relative_residual(problem.update(point, "none"), problem.target.tensors)
    explains = agrees(residual, seen, attack.dtype)
    outcome, cause = _outcome(seen, problem, trail, chosen, start, explains, residual)
    count = seen.num_examples
    stats = Stats(
        evaluations=round(trail.evaluations),
        restarts=attack.restarts,
        objective=float(trail.values[chosen]),
        residual=residual,
        curve=_curve(trail, chosen),
        frames=tuple(Frame(at, best[chosen, : problem.pixels].reshape(problem.shape)) for at, best in trail.frames),
        restart_objectives=tuple(trail.values.tolist()),
        restart_outcomes=tuple(trail.outcomes),
        cause=cause,
        notes=notes,
        options={field.name: str(getattr(attack, field.name)) for field in dataclasses.fields(attack)},
    )
    return Reconstruction(
        inputs=inputs.detach().float().cpu(),
        labels=named.detach().cpu(),
        outcome=outcome,
        explains=explains,
        certified=unverified(count),
        confidence=torch.full((count,), 1.0 if explains else 0.0),
        stats=stats,
        seconds=limits.seconds,
        attack=attack.name,
    )


def _outcome(
    seen: Observation, problem: Problem, trail: Trail, chosen: int, start: Tensor, explains: bool, residual: float
) -> tuple[Outcome, str]:
    if not bool(torch.isfinite(trail.values).any()):
        if Outcome.TIMEOUT in trail.outcomes:
            return Outcome.TIMEOUT, "Stopped before the first gradient evaluation; the result is the start."
        return Outcome.NONFINITE, "No restart ever had a finite objective; the network or the update overflows."
    ended = trail.outcomes[chosen]
    if explains and _is_flat(problem, trail.best[chosen : chosen + 1]):
        return Outcome.SATURATED, "A quite different picture explains the update as well, to five digits."
    if explains:
        bound = counting_bound_of(seen)
        if bound.determinable is False:
            return Outcome.UNDERDETERMINED, bound.verdict
        return Outcome.CONVERGED, f"The recomputed update agrees with the observed one to {residual:.1e}."
    if _is_flat(problem, start):
        return Outcome.SATURATED, "Two different starting pictures cause the same update to five digits."
    if ended is Outcome.TIMEOUT:
        return ended, f"Stopped after {trail.evaluations:.0f} gradient evaluations."
    noisy = [record.name for record in seen.defences if adapts(record.name)]
    if noisy and residual < 1:
        return Outcome.INCONSISTENT, f"The update was rewritten by {', '.join(noisy)}; the best fit is {residual:.1e} away."
    if ended is Outcome.CONVERGED:
        return Outcome.CONVERGED, f"The search met its tolerance; the recomputed update is {residual:.1e} away."
    return ended, f"The best of {len(trail.values)} restart(s) is {residual:.1e} away from the update (relative norm)."


def _is_flat(problem: Problem, start: Tensor) -> bool:
    """Whether the update hardly depends on the input near the first of these points: the sign of saturated activations."""
    first = problem.update(start[0], "none")
    other = start[0].clone()
    other[: problem.pixels] = start[0, : problem.pixels].flip(0) * 0.5
    return relative_residual(problem.update(other, "none"), first) < 1e-5


def _curve(trail: Trail, chosen: int) -> tuple[CurvePoint, ...]:
    points = [CurvePoint(at, float(values[chosen])) for at, values in trail.curve]
    return tuple(point for point in points if point.objective != float("inf"))
