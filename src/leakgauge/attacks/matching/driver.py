"""The one loop around every search: budget, clock, best so far, curve, filmstrip, dropping of hopeless restarts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from leakgauge.attacks.base import Limits, Progress
from leakgauge.attacks.matching.search.base import SearchState
from leakgauge.core.reconstruction import Outcome

HOPELESS = 100.0  # a restart is dropped when its objective is this many times the best one, past a third of the budget
FRAMES = 12


class Objective(Protocol):
    """What a search minimises."""

    def evaluate(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Objectives (A,) and gradients (A, D) of A candidates (A, D)."""
        ...


@dataclass
class Trail:
    """What a search left behind; R restarts, D unknowns.

    Args:
        best: (R, D) best point of each restart, by its own objective.
        values: (R,) objective there, float64.
        outcomes: how each restart ended.
        evaluations: spent in all.
        curve: (evaluations, (R,) best objectives) now and then.
        frames: (evaluations, (R, D) best points) at a few instants.
    """

    best: Tensor
    values: Tensor
    outcomes: list[Outcome]
    evaluations: float = 0.0
    curve: list[tuple[int, Tensor]] = field(default_factory=list)
    frames: list[tuple[int, Tensor]] = field(default_factory=list)

    @staticmethod
    def begun(start: Tensor) -> Trail:
        """An empty trail for starting points (R, D)."""
        values = torch.full((len(start),), float("inf"), dtype=torch.float64)
        return Trail(start.clone(), values, [Outcome.STEP_LIMIT] * len(start))

    def note(self, rows: Tensor, points: Tensor, values: Tensor) -> None:
        """Keeps the points that are better than what their restarts had."""
        values = values.double().cpu()
        better = torch.isfinite(values) & (values < self.values[rows])
        self.best[rows[better]] = points[better.to(points.device)].to(self.best.dtype)
        self.values[rows[better]] = values[better]

    def mark(self) -> None:
        """Adds a point to the curve."""
        self.curve.append((int(self.evaluations), self.values.clone()))

    def shoot(self) -> None:
        """Adds a frame to the filmstrip."""
        self.frames.append((int(self.evaluations), self.best.detach().cpu().clone()))


def drive(problem: Objective, state: SearchState, trail: Trail, limits: Limits, budget: int, tolerance: float) -> None:
    """Runs a search until its budget, its tolerance, the clock or its own end; `trail` is extended in place.

    Args:
        problem: what is evaluated.
        state: the search.
        trail: where results go.
        limits: clock, progress, cancellation.
        budget: gradient evaluations over all restarts for this call.
        tolerance: the search ends when a restart's objective is at most this.
    """
    spent, until = 0, trail.evaluations + budget
    instants = {round(budget * (index / FRAMES) ** 2) for index in range(FRAMES)}
    waiting = sorted(instants)
    marks = 0
    while len(rows := state.active) > 0 and spent < budget:
        if limits.expired:
            for row in rows.tolist():
                trail.outcomes[row] = Outcome.TIMEOUT
            break
        points = state.ask()
        values, slopes = problem.evaluate(points)
        spent += len(points)
        trail.evaluations += len(points)
        trail.note(rows, points, values)
        state.tell(values, slopes)
        for row in set(rows.tolist()) - set(state.active.tolist()):
            finite = bool(torch.isfinite(trail.values[row]))
            trail.outcomes[row] = Outcome.CONVERGED if finite and trail.values[row] <= tolerance else _ended(finite)
        if waiting and spent >= waiting[0]:
            trail.shoot()
            waiting = [instant for instant in waiting if instant > spent]
        if spent * 60 // budget > marks or spent == len(points):
            marks = spent * 60 // budget
            trail.mark()
            best = float(trail.values.min())
            limits.progress(Progress(int(trail.evaluations), int(until), best, limits.seconds))
        if bool((trail.values <= tolerance).any()):
            break
        if spent > budget / 3:
            _drop_hopeless(state, trail)
    for row in range(len(trail.values)):
        if trail.values[row] <= tolerance:
            trail.outcomes[row] = Outcome.CONVERGED


def _drop_hopeless(state: SearchState, trail: Trail) -> None:
    rows = state.active
    if len(rows) > 1:
        far = rows[trail.values[rows] > HOPELESS * trail.values.min()]
        if len(far) > 0:
            state.drop(far)


def _ended(finite: bool) -> Outcome:
    """A search that ends by itself has no way down left; without one finite value it never had one."""
    return Outcome.STEP_LIMIT if finite else Outcome.NONFINITE
