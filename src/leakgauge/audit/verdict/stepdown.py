"""The correction for having looked at many private examples: step-down on the largest lead.

Let t_i(e) be the lead that example e takes in the line-up of private example i (`suspects`), x_i the private example itself and
D_i its decoys. For a set K of private examples and a threshold c, reconstructions that tell nothing about any of them put at
most

    E_K(c) = sum over i in K of  #{ e in {x_i} + D_i + M_i(K) : t_i(e) >= c } / (|D_i| + 1)

private examples at c or above on average. M_i(K) are those of K that could have been decoys of i and are not, as they share a
batch with it: a reconstruction that resembles everything would lead with any of them. The chance that the largest of the leads
reaches c is at most E_K(c) (union bound; Westfall & Young 1993 draw that chance by permutation, which line-ups that share
decoys do not allow). E_K(c) only grows with K, so stepping down (Romano & Wolf 2005) controls the chance of any false
identification, whatever the other private examples leak.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from leakgauge.audit.verdict.suspects import Suspect

HALF = 0.5


def adjusted(suspects: Mapping[str, Suspect], fewest: int) -> dict[str, float]:
    """Each private example's p corrected for all of them; never below its own.

    Equal leads are put in the order of the hashes, which no outcome changes.

    Args:
        suspects: by hash.
        fewest: those with fewer decoys are not tested and left out.
    """
    tested = {record: suspect for record, suspect in suspects.items() if suspect.decoys >= fewest}
    order = sorted(tested, key=lambda record: (tested[record].own, record), reverse=True)
    sets = {record: frozenset(suspect.others) for record, suspect in tested.items()}
    beside = {record: _kin(tested[record], tested, sets) for record in order}
    ready = {record: np.sort(tested[record].leads) for record in order}
    highest = {record: max([tested[record].own, ready[record][-1], *beside[record].values()]) for record in order}
    found: dict[str, float] = {}
    left, reached = set(order), 0.0
    for record in order:
        limit = (tested[record].own, record)
        expected = 0.0
        for other in left if reached < 1 else ():
            if highest[other] < limit[0]:
                continue
            count = _at_least(ready[other], limit[0], other >= record)
            count += (tested[other].own, other) >= limit
            count += sum((lead, other) >= limit for mate, lead in beside[other].items() if mate in left)
            expected += count / (tested[other].decoys + 1)
        reached = min(1.0, max(reached, expected))
        found[record] = max(reached, tested[record].p)
        left.discard(record)
    return found


def _at_least(leads: np.ndarray, limit: float, equal: bool) -> int:
    """How many of the sorted leads are above the limit, or at it where `equal`."""
    return len(leads) - int(np.searchsorted(leads, limit, side="left" if equal else "right"))


def _kin(suspect: Suspect, suspects: Mapping[str, Suspect], sets: Mapping[str, frozenset[str]]) -> dict[str, float]:
    """Leads that other private examples, which are no decoys of this one but might be, take in its line-up.

    Those of its batch are known. For those that the choice of decoys left out, their lead in their own line-up stands in: it
    is what they would have here if both were the same.
    """
    known, own = dict(suspect.mates), sets[suspect.record]
    for record, other in suspects.items():
        if record in known or record in own or record == suspect.record:
            continue
        if _alike(own, sets[record]):
            known[record] = other.own
    return known


@lru_cache(maxsize=4096)
def _alike(one: frozenset[str], other: frozenset[str]) -> bool:
    """Whether two sets of decoys have half of the smaller in common."""
    shared = len(one & other)
    return shared > 0 and shared >= HALF * min(len(one), len(other))
