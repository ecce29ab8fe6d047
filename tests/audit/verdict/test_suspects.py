"""How far ahead of its decoys a private example is: exact under exchange, and the same however cells are ordered."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from verdict_cases import line_up, played, spread

from leakgauge.audit.verdict.suspects import leads, suspects_of, tables_of


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.3, 0.5, 0.9]), min_size=21, max_size=21), min_size=1, max_size=4))
def test_whoever_is_the_private_one_p_keeps_its_rate(cells: list[list[float]]) -> None:
    """Each of 21 examples taken for the private one in turn, in all cells at once: p <= a for at most a share a of them."""
    chances = []
    for private in range(21):
        rows = []
        for place, values in enumerate(cells):
            decoys = [value for k, value in enumerate(values) if k != private]
            others = [f"{k}" for k in range(21) if k != private]
            rows.append((f"cell-{place}", [line_up("private", values[private], decoys, others=others)]))
        chances.append(suspects_of(tables_of(rows))["private"].p)
    ordered = np.sort(chances)
    assert (ordered >= np.arange(1, 22) / 21 - 1e-12).all()


def test_p_is_uniform_under_the_null() -> None:
    generator, chances = np.random.default_rng(5), []
    for _ in range(400):
        cells, _ = played(generator, [[0]], 39, "random", attacks=3)
        chances += [suspect.p for suspect in suspects_of(tables_of(cells)).values()]
    for level in (0.05, 0.25, 0.5, 0.75):
        share = np.mean(np.array(chances) <= level + 1e-9)
        assert abs(share - level) <= 2.58 * np.sqrt(level * (1 - level) / 400)


def test_equals_count_against_it() -> None:
    found = suspects_of(tables_of([("cell", [line_up("a", 0.1, [0.1] * 3 + spread(20, 0.2, 0.4))])]))["a"]
    assert (found.rank, found.decoys) == (4, 23)


def test_the_best_of_several_cells_counts_for_decoys_too() -> None:
    """Ahead in one cell, while another decoy is as far ahead in another: rank 2, not 1."""
    others = [f"{k}" for k in range(25)]
    first = line_up("a", 1e-4, spread(25), others=others)
    values = spread(25)
    values[7] = 1e-6
    second = line_up("a", 0.1, values, others=others)
    assert suspects_of(tables_of([("x", [first])]))["a"].rank == 1
    both = suspects_of(tables_of([("x", [first]), ("y", [second])]))["a"]
    assert (both.rank, both.cell) == (2, "x")


def test_only_decoys_that_all_cells_know_are_compared() -> None:
    """A cell with a larger batch has fewer decoys."""
    first = line_up("a", 0.1, spread(25), others=[f"{k}" for k in range(25)])
    second = line_up("a", 0.1, spread(20), others=[f"{k}" for k in range(5, 25)][::-1])
    (table,) = tables_of([("x", [first]), ("y", [second])]).values()
    assert table.others == tuple(f"{k}" for k in range(5, 25))
    assert table.distances[1, 1:].tolist() == spread(20)[::-1]


def test_a_cell_with_few_decoys_does_not_spoil_another() -> None:
    """A batch of one class has few decoys left; the cell that attacks the record alone has all of them."""
    alone = line_up("a", 0.1, spread(19), others=[f"{k}" for k in range(19)])
    batch = line_up("a", 0.1, spread(4), others=[f"{k}" for k in range(4)])
    (table,) = tables_of([("a batch", [batch]), ("alone", [alone])], 19).values()
    assert (table.keys, len(table.others)) == (("alone",), 19)
    assert tables_of([("a batch", [batch])], 19) == {}


def test_mates_are_those_of_the_batch_with_decoys_in_common() -> None:
    one = line_up("a", 0.1, spread(20), others=[f"{k}" for k in range(20)])
    two = line_up("b", 0.2, spread(20), others=[f"{k}" for k in range(20)], place=1)
    other = line_up("c", 0.3, spread(20), others=[f"z{k}" for k in range(20)], place=2)
    tables = tables_of([("x", [one, two, other])])
    assert [tables[name].mates for name in "abc"] == [("b",), ("a",), ()]


def test_a_mate_that_leaks_does_not_hide_another() -> None:
    """Half of a batch's class leaks, and each of them is still far ahead."""
    values = np.array([1e-6] * 8 + spread(19))
    assert leads(values, "mse")[0] > 10
    assert np.allclose(leads(values * 3, "mse"), leads(values, "mse"))  # the unit of a distance does not matter


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(1e-6, 1.0), min_size=2, max_size=40), st.integers(0, 3))
def test_leads_are_what_quantiles_say(values: list[float], missing: int) -> None:
    given_ones = np.array([*values, *[np.nan] * missing])
    logs = np.log(values)
    middle, upper = np.quantile(logs, (0.5, 0.84))
    expected = (middle - logs) / max(upper - middle, 0.05)
    assert np.allclose(leads(given_ones, "mse")[: len(values)], expected)
    assert np.isnan(leads(given_ones, "mse")[len(values) :]).all()
