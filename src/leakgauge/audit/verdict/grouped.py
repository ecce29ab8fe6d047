"""A test of many private examples together: do they rank low more often than chance allows?

The statistic is the mean over private examples of -log(rank / line-up size), averaged over seeds. Its distribution under
chance comes from draws: each private example's place is taken by an example drawn at random from its line-up, no example twice in
one draw, so that decoys which several line-ups share, and reconstructions that resemble everything, are accounted for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from leakgauge.audit.verdict.suspects import Numbers, Table

CHUNK = 2_000_000  # marks of drawn examples held in memory at once
TRIES = 50


@dataclass(frozen=True)
class Together:
    """Private examples that share their conditions.

    Args:
        line_ups: how many were ranked: one per private example and cell.
        first: how many of them the private example leads, equals counted against it.
        expected: how many by chance.
        p: how often chance alone gives a mean as large; NaN for no line-ups.
    """

    line_ups: int
    first: int
    expected: float
    p: float


def together(tables: Mapping[str, Table], resamples: int, generator: torch.Generator) -> Together:
    """Tests all private examples of these tables at once.

    Args:
        tables: by hash.
        resamples: draws; p is at least 1 / (resamples + 1).
        generator: of the draws.
    """
    ordered = [tables[record] for record in sorted(tables)]
    if not ordered:
        return Together(0, 0, 0.0, float("nan"))
    sizes = [(len(table.keys), 1 + len(table.others)) for table in ordered]
    first = sum(
        int((table.distances[:, 1:size] > table.distances[:, :1]).all(1).sum())
        for table, (_, size) in zip(ordered, sizes, strict=True)
    )
    scores = [_scores(table) for table in ordered]
    names: dict[str, int] = {}
    places, values = [], []
    for table, score in zip(ordered, scores, strict=True):
        known = dict(zip((table.record, *table.others, *table.mates), score.tolist(), strict=True))
        for other, own in zip(ordered, scores, strict=True):  # those that no cell compares keep the score of their own line-up
            if other.record not in known and not known.keys().isdisjoint(other.others):
                known[other.record] = float(own[0])
        places.append(np.array([names.setdefault(name, len(names)) for name in known]))
        values.append(np.array(list(known.values())))
    observed = sum(score[0] for score in scores)
    reached, done = 0, 0
    while done < resamples:
        count = min(resamples - done, max(1, CHUNK // len(names)))
        reached += int((_drawn(places, values, len(names), count, generator) >= observed - 1e-9).sum())
        done += count
    return Together(
        line_ups=sum(cells for cells, _ in sizes),
        first=first,
        expected=sum(cells / size for cells, size in sizes),
        p=(reached + 1) / (resamples + 1),
    )


def _scores(table: Table) -> Numbers:
    """-log(rank / size) of the private example, its decoys and its mates, averaged over the cells that hold them."""
    rows = []
    for row in table.distances:
        known = np.sort(row[~np.isnan(row)])
        ranks = np.searchsorted(known, row, side="right")
        rows.append(np.where(np.isnan(row), np.nan, -np.log(ranks / len(known))))
    result: Numbers = np.nanmean(np.stack(rows), axis=0)
    return result


def _drawn(
    places: Sequence[np.ndarray],
    values: Sequence[Numbers],
    elements: int,
    count: int,
    generator: torch.Generator,
) -> Numbers:
    """Sums of scores over private examples, each replaced by an example of its line-up that no other has taken."""
    taken, rows = np.zeros((count, elements), dtype=bool), np.arange(count)
    total = np.zeros(count)
    for own, score in zip(places, values, strict=True):
        chosen = torch.randint(len(own), (count,), generator=generator).numpy()
        for _ in range(TRIES):
            again = np.flatnonzero(taken[rows, own[chosen]])
            if len(again) == 0:
                break
            chosen[again] = torch.randint(len(own), (len(again),), generator=generator).numpy()
        taken[rows, own[chosen]] = True
        total += score[chosen]
    return total
