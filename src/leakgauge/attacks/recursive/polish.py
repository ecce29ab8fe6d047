"""One more step with all equations of all layers at once, where the recursion lost digits on its way down.

The recursion uses each layer's equations once and hands the result on; a steep inverse (LeakyReLU with a small slope, a nearly
saturated sigmoid) multiplies its error. At a point that is right to a few digits the equations of all layers are linear in the
input, and their least-squares solution, each weighted by its expected error, takes that back.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from leakgauge.attacks.recursive.candidate import Candidate
from leakgauge.attacks.recursive.known import SAMPLES, Known, through
from leakgauge.attacks.recursive.problem import Problem
from leakgauge.attacks.recursive.segment import PlainSegment, weights_of
from leakgauge.attacks.recursive.start import last_linear
from leakgauge.chain.link import Link
from leakgauge.linalg import DENSE, cholesky_preconditioner, lsmr

ROWS = 40_000  # equations up to which the dense normal matrix is a matter of seconds
STEPS = 2
CHUNK = 256


def polish(problem: Problem, best: Candidate) -> Candidate | None:
    """The candidate after Gauss-Newton steps on all equations; None where it does not fit or does not help."""
    if best.value is None or best.errors is None:
        return None
    known, links = _features(problem, best)
    if any(link.kind in ("block", "pool") for link in links) or known.view is not None:
        return None
    weights = weights_of(problem, known, links, best.sweep.noise.expected)
    segment = PlainSegment(problem, links, known, weights)
    if segment.unknowns > DENSE or segment.equations > ROWS:
        return None
    point = best.value.flatten()
    current = segment.linearised(point)
    value = first = float(current.residual.norm())
    eye = torch.eye(segment.unknowns, dtype=point.dtype, device=point.device)
    factored = None
    for _ in range(STEPS):
        if factored is None:
            factored = cholesky_preconditioner(
                torch.cat([current.adjoint(current.apply(part)) for part in torch.split(eye, CHUNK)])
            )
        step = lsmr(
            current.apply, current.adjoint, -current.residual[None], precondition=factored, tolerance=1e-4, iterations=100
        ).solution[0]
        trial = segment.linearised(point + step)
        found = float(trial.residual.norm())
        if not found < value:
            break
        settled = found > 0.9 * value
        point, current, value = point + step, trial, found
        if settled:
            break
    if not value < first or factored is None:
        return None
    draws = torch.randn(SAMPLES, len(current.residual), generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    draws = draws.to(point) * max(value / segment.equations**0.5, 1.0)
    answer = lsmr(current.apply, current.adjoint, draws, precondition=factored, tolerance=1e-3, iterations=100)
    shape = best.value.shape
    return replace(best, value=point.reshape(shape), errors=answer.solution.reshape(SAMPLES, *shape))


def _features(problem: Problem, best: Candidate) -> tuple[Known, tuple[Link, ...]]:
    """What is known behind the last activation, and the links from the input up to there."""
    known, position = best.start.known, last_linear(problem) - 1
    links = problem.chain.links
    while position >= 0 and links[position].kind in ("reshape", "identity"):
        known = through(known, links[position], problem.state)
        position -= 1
    return known, links[: position + 1]
