"""One recursion for each pair of values that the last layer allows; twins are recognised, and the range of values decides."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from leakgauge.attacks.recursive.problem import Problem
from leakgauge.attacks.recursive.start import Start, last_linear, starts
from leakgauge.attacks.recursive.sweep import Sweep, sweep

OUTSIDE = 0.05  # share of the range by which a value may leave it
CONTRADICTED = 1e-2


@dataclass(frozen=True)
class Candidate:
    """A recursion from one root of the last layer.

    Args:
        start: the root.
        sweep: its recursion.
        value: (*input), or None where the recursion stopped.
        errors: (R, *input) samples of its error, or None.
        outside: largest distance of a value from the possible range, in ranges; 0 inside.
    """

    start: Start
    sweep: Sweep
    value: Tensor | None
    errors: Tensor | None
    outside: float

    @property
    def plausible(self) -> bool:
        """Whether the values lie in the possible range, up to a little."""
        return self.value is None or self.outside <= OUTSIDE


def candidates(problem: Problem, generator: torch.Generator, *, virtual: bool) -> list[Candidate]:
    """Every root that its own recursion does not contradict, plausible ones first.

    Two roots with one label of a network without biases and with positively homogeneous activations are twins: the second
    picture is a multiple of the first and meets every equation as well, so that it is not computed again.
    """
    index = last_linear(problem)
    found: list[Candidate] = []
    roots = starts(problem, index, generator)
    reject = max(CONTRADICTED, 1e3 * problem.rounding) if len(roots) > 1 else float("inf")
    for root in roots:
        twin = _twin_of(problem, root, found)
        if twin is not None:
            found.append(twin)
            continue
        result = sweep(problem, root, index, generator, virtual=virtual, reject=reject)
        if result.stop is not None and result.stop.contradicted:
            continue
        found.append(Candidate(root, result, result.value, result.errors, _outside(problem, result.value)))
    return sorted(found, key=lambda one: one.outside)


def homogeneous(problem: Problem) -> bool:
    """Whether scaling the input by c > 0 scales every layer's output by c."""
    for link in problem.chain.links:
        if link.kind in ("block", "affine") or link.bias is not None:
            return False
        if link.activation is not None and not link.activation.homogeneous:
            return False
    return True


def _twin_of(problem: Problem, root: Start, found: list[Candidate]) -> Candidate | None:
    if root.scale is None or not homogeneous(problem):
        return None
    for one in found:
        assert one.start.scale is not None
        ratio = root.scale / one.start.scale
        if one.start.label == root.label and ratio > 0 and one.value is not None and one.errors is not None:
            value = one.value * ratio
            reports = tuple(replace(row, predicted_error=row.predicted_error * ratio) for row in one.sweep.reports)
            again = replace(one.sweep, reports=reports)
            return replace(one, start=root, sweep=again, value=value, errors=one.errors * ratio, outside=_outside(problem, value))
    return None


def _outside(problem: Problem, value: Tensor | None) -> float:
    if value is None:
        return 0.0
    low, high = problem.spec.bounds(value[None])
    spread = (high - low).clamp(min=1e-12)
    beyond = torch.maximum((low - value) / spread, (value - high) / spread)
    return max(float(beyond.max()), 0.0)
