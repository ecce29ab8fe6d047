"""The test of many private examples together, against every way in which they could have been the private ones."""

from __future__ import annotations

from itertools import permutations

import numpy as np
from scipy.stats import binom
from verdict_cases import line_up, played, spread

from leakgauge.audit.verdict.grouped import _scores, together
from leakgauge.audit.verdict.suspects import tables_of
from leakgauge.randomness import rng


def test_p_agrees_with_all_ways_counted() -> None:
    """Three private examples of one batch among eight: 336 ways."""
    generator = np.random.default_rng(2)
    for seed in range(4):
        cells, _ = played(generator, [[0, 1, 2]], 5, "random")
        tables = tables_of(cells)
        ordered = [tables[record] for record in sorted(tables)]
        scores = [dict(zip((table.record, *table.others, *table.mates), _scores(table), strict=True)) for table in ordered]
        names = sorted(scores[0])
        assert all(sorted(score) == names for score in scores)
        observed = sum(score[table.record] for score, table in zip(scores, ordered, strict=True))
        sums = [sum(score[name] for score, name in zip(scores, way, strict=True)) for way in permutations(names, 3)]
        exact = np.mean(np.array(sums) >= observed - 1e-9)
        assert abs(together(tables, 10_000, rng(seed)).p - exact) < 0.015


def test_false_alarms_keep_the_rate() -> None:
    generator, runs = np.random.default_rng(11), 120
    for batches, guess in (([[k] for k in range(8)], "common"), ([list(range(8)), *[[k] for k in range(8)]], "random")):
        alarms = sum(
            together(tables_of(played(generator, batches, 25, guess)[0]), 300, rng(run)).p <= 0.05 for run in range(runs)
        )
        assert alarms <= binom.ppf(0.99, runs, 0.05)


def test_counts_of_those_that_lead() -> None:
    tables = tables_of([("x", [line_up("a", 0.01, spread(19))]), ("y", [line_up("b", 0.1, spread(19))])])
    found = together(tables, 500, rng(0))
    assert (found.line_ups, found.first, found.expected) == (2, 1, 0.1)


def test_weak_leaks_add_up() -> None:
    """No rank is below 3 among 20, and fifteen of them together are no chance."""
    cells = [(f"{k}", [line_up(f"{k}", spread(19)[1] + 1e-4, spread(19))]) for k in range(15)]
    assert together(tables_of(cells), 2000, rng(0)).p < 0.001


def test_nothing_to_test() -> None:
    assert np.isnan(together({}, 100, rng(0)).p)
