"""An empirical lower bound on epsilon for one round: planted neighbours, told apart from what leaves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from scipy import stats
from torch import Tensor

from leakgauge.audit.filters.calls import Caller
from leakgauge.audit.filters.claim import Claim, gaussian_epsilon
from leakgauge.audit.filters.planted import Planted, Planter
from leakgauge.audit.filters.record import EpsilonBound, TensorFacts

DELTA = 1e-5
LEVEL = 0.999
APART = 0.5  # neighbours are at most so many standard deviations apart, where a claim is small enough to be contradicted
PROJECTION, BITS = "projection onto the difference", "entries that leave bit for bit"


def epsilon_bound(
    caller: Caller, planter: Planter, claim: Claim, tensors: Sequence[TensorFacts], trials: int
) -> EpsilonBound | None:
    """Tells planted neighbours apart, or None where no Gaussian noise is claimed or the filter fails.

    The neighbours differ along random signs on the tensor with the least noise (or on all parameters), by APART standard
    deviations of the claimed noise, or by twice the claimed clip where that is less: what holds for the claimed sensitivity holds
    for every smaller distance. One half of the trials picks the threshold of the projection; the other half, on which the
    Clopper-Pearson limits are taken, is not looked at before. The level is shared among the tests.

    Args:
        caller, planter: the filter, and what is planted.
        claim: with its standard deviation.
        tensors: what was measured, to find the weakest one.
        trials: calls for each neighbour, >= 4.

    Source: Jagielski, Ullman & Oprea 2020 (lower bound from a distinguishing test); Clopper & Pearson 1934.
    """
    if claim.family != "gaussian" or not claim.std:
        return None
    distance = APART * claim.std
    if claim.clip_norm is not None:
        distance = min(distance, 2 * claim.clip_norm)
    direction = planter.direction(_weakest(planter, claim, tensors))
    plus, minus = planter.along(direction, distance / 2), planter.along(direction, -distance / 2)
    found: list[list[tuple[float, float]]] = []
    for planted in (plus, minus):
        rows = []
        for _ in range(trials):
            sent = caller.send("neighbours", planted)
            if sent is None:
                return None
            rows.append(_statistics(sent, direction, plus, minus))
        found.append(rows)
    alpha = (1 - LEVEL) / 4  # two tests, two limits each
    half = trials // 2
    first, second = ([row[0] for row in rows] for rows in found)
    threshold = max({*first[:half], *second[:half]}, key=lambda cut: _lower(first[:half], second[:half], cut, alpha))
    bounds = {
        PROJECTION: _lower(first[half:], second[half:], threshold, alpha),
        BITS: _lower([row[1] for row in found[0]], [row[1] for row in found[1]], 0.5, alpha),
    }
    test = max(bounds, key=lambda name: bounds[name])
    claimed = gaussian_epsilon(distance, claim.std, DELTA)
    return EpsilonBound(claimed, max(0.0, bounds[test]), DELTA, distance, 2 * trials, LEVEL, test)


def _weakest(planter: Planter, claim: Claim, tensors: Sequence[TensorFacts]) -> tuple[str, ...]:
    """The parameter with clearly less noise than claimed, or with entries that leave as planted; else all parameters."""
    assert claim.std is not None
    weak = [
        facts
        for facts in tensors
        if facts.name in planter.parameters and facts.sent and (facts.noise_std < 0.5 * claim.std or facts.unchanged > 0.01)
    ]
    return (min(weak, key=lambda facts: (facts.noise_std, -facts.unchanged)).name,) if weak else planter.parameters


def _statistics(
    sent: Mapping[str, Tensor], direction: Mapping[str, Tensor], plus: Planted, minus: Planted
) -> tuple[float, float]:
    projection, bits = 0.0, 0
    for name, signs in direction.items():
        if name in sent:
            leaves = sent[name].double()
            projection += float(((leaves - plus.before[name].double()) * signs).sum())
            bits += int((leaves == plus.after[name].double()).sum()) - int((leaves == minus.after[name].double()).sum())
    return projection, float(bits)


def _lower(first: Sequence[float], second: Sequence[float], threshold: float, alpha: float) -> float:
    """Lower limit of epsilon from the event 'at or above the threshold', under the first neighbour and under the second."""
    hits, alarms = (sum(value >= threshold for value in values) for values in (first, second))
    power = float(stats.beta.ppf(alpha, hits, len(first) - hits + 1)) if hits else 0.0
    error = float(stats.beta.ppf(1 - alpha, alarms + 1, len(second) - alarms)) if alarms < len(second) else 1.0
    return math.log((power - DELTA) / error) if power > DELTA else 0.0
