"""The correction for many private examples: its rate by simulation, its bound by enumeration, its laws by generated cases."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom
from verdict_cases import line_up, played, spread

from leakgauge.audit.verdict.stepdown import adjusted
from leakgauge.audit.verdict.suspects import Suspect, suspects_of, tables_of

RATE = 0.05
FEWEST = 19


def alone(count: int) -> list[list[int]]:
    return [[place] for place in range(count)]


CASES = {
    "one guess for all": {"batches": alone(10), "decoys": 19, "guess": "common"},
    "a guess each": {"batches": alone(10), "decoys": 19, "guess": "random"},
    "five attacks each": {"batches": alone(6), "decoys": 40, "guess": "random", "attacks": 5},
    "a batch of 16": {"batches": [list(range(16))], "decoys": 40, "guess": "random"},
    "a batch of 16, one guess": {"batches": [list(range(16))], "decoys": 40, "guess": "common"},
    "two batches and each alone": {
        "batches": [list(range(8)), list(range(8, 16)), *alone(16)], "decoys": 40, "guess": "random",
    },
    "a large source": {"batches": alone(10), "decoys": 60, "listed": 40, "guess": "common"},
    "half of them leak": {"batches": alone(10), "decoys": 30, "guess": "common", "leaked": range(5)},
    "half of a batch leaks": {"batches": [list(range(8)), [6], [7]], "decoys": 60, "guess": "common", "leaked": range(4)},
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_false_identifications_keep_the_rate(name: str) -> None:
    """Family-wise, among those that do not leak, within the 99 % limit of a binomial at the stated rate."""
    generator, runs, alarms = np.random.default_rng(7), 150, 0
    leaked = set(CASES[name].get("leaked", ()))
    for _ in range(runs):
        cells, names = played(generator, **CASES[name])
        found = adjusted(suspects_of(tables_of(cells)), FEWEST)
        alarms += min(found[record] for place, record in names.items() if place not in leaked) <= RATE
    assert alarms <= binom.ppf(0.99, runs, RATE)


def test_what_leaks_is_identified_beside_what_does_not() -> None:
    cells, names = played(np.random.default_rng(1), alone(10), 30, "common", leaked=range(5))
    found = adjusted(suspects_of(tables_of(cells)), FEWEST)
    assert {place for place, record in names.items() if found[record] <= RATE} >= set(range(5))


def test_without_what_line_ups_share_the_rate_would_not_hold() -> None:
    """The same guess for ten private examples of one class: decoys that are taken for different ones raise alarms too often."""
    generator, runs, alarms = np.random.default_rng(7), 100, 0
    for _ in range(runs):
        cells, _ = played(generator, alone(10), 19, "common")
        private = {one.record for _, line_ups in cells for one in line_ups}
        apart = []
        for key, (one,) in cells:
            decoys = [at for at, name in zip(one.decoys, one.others, strict=True) if name not in private]
            apart.append((key, [line_up(key, one.truth, decoys)]))
        alarms += min(adjusted(suspects_of(tables_of(apart)), FEWEST).values()) <= RATE
    assert alarms > binom.ppf(0.9999, runs, RATE)


def test_the_bound_is_above_the_exact_chance() -> None:
    """Three private examples out of seven examples: every way in which these could have been the private ones, counted."""
    generator = np.random.default_rng(3)
    for _ in range(30):
        leads = generator.standard_normal((3, 7)).round(1)  # ties on purpose
        names = [f"{place}" for place in range(7)]
        suspects = {
            names[row]: Suspect(
                names[row], leads[row, row], tuple(names[k] for k in range(7) if k != row), np.delete(leads[row], row), {}
            )
            for row in range(3)
        }
        top = max(suspects, key=lambda record: (suspects[record].own, record))
        limit = (suspects[top].own, top)
        ways = list(permutations(range(7), 3))
        exact = np.mean([max((leads[row, way[row]], names[row]) for row in range(3)) >= limit for way in ways])
        assert adjusted(suspects, 1)[top] >= exact - 1e-12


distances = st.lists(st.floats(0.01, 1.0), min_size=20, max_size=30)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0.0, 1.0), distances), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_corrected_p_is_no_smaller_and_order_does_not_matter(drawn: list[tuple[float, list[float]]], shuffler: object) -> None:
    cells = [
        (f"cell-{place}", [line_up(f"record-{place % 4}", truth, decoys[:20])]) for place, (truth, decoys) in enumerate(drawn)
    ]
    suspects = suspects_of(tables_of(cells))
    found = adjusted(suspects, FEWEST)
    assert all(found[record] >= suspect.p >= 1 / (suspect.decoys + 1) for record, suspect in suspects.items())
    shuffled = list(cells)
    shuffler.shuffle(shuffled)  # type: ignore[attr-defined]
    assert adjusted(suspects_of(tables_of(shuffled)), FEWEST) == found


@settings(max_examples=40, deadline=None)
@given(st.lists(distances, min_size=1, max_size=5), st.floats(0.0, 1.0))
def test_one_more_record_never_lowers_a_p(held: list[list[float]], truth: float) -> None:
    cells = [(f"cell-{place}", [line_up(f"record-{place}", 0.02, decoys[:20])]) for place, decoys in enumerate(held)]
    before = adjusted(suspects_of(tables_of(cells)), FEWEST)
    after = adjusted(suspects_of(tables_of([*cells, ("more", [line_up("more", truth, spread(25))])])), FEWEST)
    assert all(after[record] >= value for record, value in before.items())


def test_too_few_decoys_are_not_tested() -> None:
    cells = [("few", [line_up("few", 1e-9, spread(18))]), ("enough", [line_up("enough", 1e-9, spread(19))])]
    assert adjusted(suspects_of(tables_of(cells)), FEWEST) == {"enough": 0.05}
