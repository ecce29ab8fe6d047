"""Suspects: for each private example, how far ahead it and its decoys are, over all cells that attack it.

Under the hypothesis that the reconstructions tell nothing about which of them is the private one, private example and decoys
are exchangeable, in all cells at once. Everything here is a fixed function of an example, the same for private ones and
decoys, so that ranks by it are uniform under that hypothesis, whatever the reconstructions are and however many there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from leakgauge.audit.verdict.lineup import LineUp

FLOOR = {"mse": 1e-10, "tokens": 1e-2}  # nearer than this is as near as this
LEAST_SCALE = 0.05  # of log distances: smaller differences are no lead
UPPER = 0.84  # a normal distribution has this share below one standard deviation
Numbers = NDArray[np.float64]
Cells = Sequence[tuple[str, Sequence[LineUp]]]
Seen = tuple[str, LineUp, dict[str, float]]  # key of the cell, the line-up, distances of its mates


@dataclass(frozen=True)
class Table:
    """One private example, its decoys and its mates in all cells that attack it.

    Args:
        record: its hash.
        keys: of the cells.
        distance: 'mse' or 'tokens'.
        others: hashes of the decoys that are known in all of the cells.
        mates: hashes of private examples that share a batch with it and could have been its decoys.
        distances: (cells, 1 + decoys + mates), the private example first; NaN for a mate that is not in a cell's batch.
    """

    record: str
    keys: tuple[str, ...]
    distance: str
    others: tuple[str, ...]
    mates: tuple[str, ...]
    distances: Numbers = field(repr=False)


@dataclass(frozen=True)
class Suspect:
    """One private example among its decoys.

    Args:
        record: its hash.
        own: its lead (see `leads`), the largest over cells.
        others: hashes of its decoys.
        leads: (m,) of the decoys, the largest over cells.
        mates: leads of its mates, by hash.
        cell: key of the cell where its own lead is largest.
    """

    record: str
    own: float
    others: tuple[str, ...]
    leads: Numbers = field(repr=False)
    mates: Mapping[str, float] = field(repr=False)
    cell: str = ""

    @property
    def decoys(self) -> int:
        """How many."""
        return len(self.others)

    @property
    def rank(self) -> int:
        """1 = ahead of all decoys; equals count against it."""
        return 1 + int((self.leads >= self.own).sum())

    @property
    def p(self) -> float:
        """How often an example that does not stand out ranks so well; at least 1 / (decoys + 1)."""
        return self.rank / (self.decoys + 1)


def tables_of(cells: Cells, fewest: int = 1) -> dict[str, Table]:
    """The private examples with enough decoys, by hash, in the order of their hashes.

    Cells that have too few in common with the others are left out, those with fewer decoys first: a choice by numbers of
    decoys alone, whatever their distances.

    Args:
        cells: key and line-ups of each cell.
        fewest: decoys that a private example must have in common in all its cells.
    """
    found: dict[str, list[Seen]] = {}
    for key, line_ups in sorted(cells, key=lambda entry: entry[0]):
        ready = [(line_up, frozenset(hashes(line_up))) for line_up in line_ups if line_up.decoys]
        for line_up, others in ready:
            mates = {
                other.record: other.truth
                for other, beside in ready
                if other.record != line_up.record and other.record not in others and not others.isdisjoint(beside)
            }
            found.setdefault(line_up.record, []).append((key, line_up, mates))
    kept = {record: _alike(found[record], fewest) for record in sorted(found)}
    return {record: _table(record, seen) for record, seen in kept.items() if seen}


def suspects_of(tables: Mapping[str, Table]) -> dict[str, Suspect]:
    """How far ahead the private example of each table is, in its best cell; decoys have their best cells too."""
    found = {}
    for record, table in tables.items():
        rows = np.stack([leads(row, table.distance) for row in table.distances])
        best = np.fmax.reduce(rows)
        beside = best[1 + len(table.others) :].tolist()
        found[record] = Suspect(
            record,
            float(best[0]),
            table.others,
            best[1 : 1 + len(table.others)],
            dict(zip(table.mates, beside, strict=True)),
            table.keys[int(rows[:, 0].argmax())],
        )
    return found


def leads(distances: Numbers, distance: str) -> Numbers:
    """How far each distance lies below the middle of all, on a logarithmic scale, in units of their upper spread.

    Median and upper spread, since several private examples of a batch may lie far below the others. The floor under
    distances and spread is fixed, so that this treats all alike.

    Args:
        distances: (n,), of one private example, its decoys and its mates; NaN is left out.
        distance: 'mse' or 'tokens'.
    """
    logs = np.log(np.maximum(distances, FLOOR[distance]))
    ordered = np.sort(logs)  # NaN comes last
    ordered = ordered[: len(ordered) - int(np.isnan(logs).sum())]
    middle = _quantile(ordered, 0.5)
    result: Numbers = (middle - logs) / max(_quantile(ordered, UPPER) - middle, LEAST_SCALE)
    return result


def _quantile(ordered: Numbers, share: float) -> float:
    """Of sorted numbers, linear between two, as numpy's, which is far slower on a few hundred."""
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return float(ordered[low] + (place - low) * (ordered[high] - ordered[low]))


def hashes(line_up: LineUp) -> tuple[str, ...]:
    """Of the decoys; made up from the record's own where a line-up has none, for decoys that nobody shares."""
    return line_up.others or tuple(f"{line_up.record}/{place}" for place in range(len(line_up.decoys)))


def _alike(seen: Sequence[Seen], fewest: int) -> list[Seen]:
    """The cells that have enough decoys in common, in their order."""
    kept: list[int] = []
    common: frozenset[str] = frozenset()
    for place in sorted(range(len(seen)), key=lambda place: (-len(seen[place][1].decoys), seen[place][0])):
        others = frozenset(hashes(seen[place][1]))
        shared = others if not kept else common & others
        if len(shared) >= fewest:
            kept, common = [*kept, place], shared
    return [seen[place] for place in sorted(kept)]


def _table(record: str, seen: Sequence[Seen]) -> Table:
    common = hashes(seen[0][1])
    if any(hashes(line_up) != common for _, line_up, _ in seen):
        everywhere = frozenset.intersection(*(frozenset(hashes(line_up)) for _, line_up, _ in seen))
        common = tuple(name for name in common if name in everywhere)
    mates = tuple(sorted({name for _, _, beside in seen for name in beside} - set(common)))
    rows = []
    for _, line_up, beside in seen:
        known = dict(zip(hashes(line_up), line_up.decoys, strict=True)) | beside
        rows.append([line_up.truth, *(known[name] for name in common), *(known.get(name, np.nan) for name in mates)])
    return Table(record, tuple(key for key, _, _ in seen), seen[0][1].distance, common, mates, np.array(rows))
