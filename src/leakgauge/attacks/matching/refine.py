"""Levenberg-Marquardt after the search, on the most promising restarts, within budget and clock."""

from __future__ import annotations

from leakgauge.attacks.base import Limits, Progress
from leakgauge.attacks.matching.driver import Trail
from leakgauge.attacks.matching.problem import Problem
from leakgauge.attacks.matching.search.gauss_newton import JVP_COST, GaussNewton, LevenbergMarquardt
from leakgauge.core.reconstruction import Outcome
from leakgauge.local.derivatives import lacks_derivative

ENOUGH = 1e-9  # a stalled iteration at this relative squared residual has reached rounding; above it the next restart is tried


def refine(problem: Problem, trail: Trail, settings: GaussNewton, limits: Limits, total: int, tolerance: float) -> list[str]:
    """Refines restarts in the order of their objectives until one is done; extends `trail` and returns notes."""
    residual = problem.residual()
    assert residual is not None
    order = trail.values.argsort().tolist()
    share = (total - trail.evaluations) / max(len(order), 1)
    for position, row in enumerate(order):
        if limits.expired:
            trail.outcomes[row] = Outcome.TIMEOUT
            break
        if not bool(trail.values[row].isfinite()):
            continue
        until = min(total, trail.evaluations + share * (1 if position else max(1.0, 0.5 * len(order))))
        try:
            iteration = LevenbergMarquardt(residual, trail.best[row].clone(), settings, lambda: limits.expired)
            _iterate(iteration, trail, row, problem, limits, until, total, tolerance, settings)
        except (NotImplementedError, RuntimeError) as error:
            if "out of memory" in str(error):
                return ["The refinement was left out: the Jacobian does not fit in memory."]
            if not lacks_derivative(error):
                raise
            return ["The refinement was left out: the network has an operation without forward-mode derivatives."]
        if trail.values[row] <= max(tolerance, ENOUGH):
            break
    return []


def _iterate(
    iteration: LevenbergMarquardt,
    trail: Trail,
    row: int,
    problem: Problem,
    limits: Limits,
    until: float,
    total: int,
    tolerance: float,
    settings: GaussNewton,
) -> None:
    slow = 0
    for _ in range(settings.iterations):
        if trail.evaluations + JVP_COST * problem.size > until:
            return
        before = iteration.value
        step = iteration.step()
        if step is None:
            trail.outcomes[row] = Outcome.TIMEOUT
            return
        trail.evaluations += step.evaluations + 1
        value = float(problem.value(step.point, "none").detach())  # the whole objective; the steps know its projection
        if value < float(trail.values[row]):
            trail.best[row] = step.point
            trail.values[row] = value
        trail.mark()
        trail.shoot()
        limits.progress(Progress(int(trail.evaluations), total, float(trail.values.min()), limits.seconds))
        if step.value <= tolerance or not step.moved:
            done = step.value <= max(tolerance, ENOUGH)
            trail.outcomes[row] = Outcome.CONVERGED if done else Outcome.INCONSISTENT
            return
        slow = slow + 1 if step.value > 0.7 * before else 0
        if slow >= 3:  # creeping: another restart is the better use of the budget
            return
