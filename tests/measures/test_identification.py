"""Identification among decoys, and the interval of a median."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leakgauge.errors import OptionError, ShapeError
from leakgauge.measures import identification, median_interval
from leakgauge.randomness import rng


def test_a_near_guess_ranks_first_and_a_blank_one_does_not() -> None:
    truth, decoys = torch.rand(3, 1, 8, 8, generator=rng(0)), torch.rand(99, 1, 8, 8, generator=rng(1))
    near = identification(truth, truth + 0.05 * torch.randn(truth.shape, generator=rng(2)), decoys)
    assert near.rank.tolist() == [1, 1, 1]
    assert near.probability.tolist() == [0.01] * 3
    assert near.testable
    assert near.verdict == "3 of 3 private example(s) rank first among 99 decoys each."
    assert identification(truth, truth, decoys, distance="ssim").rank.tolist() == [1, 1, 1]
    blank = identification(truth, torch.full_like(truth, 0.5), decoys)
    assert (blank.rank > 1).all()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), decoys=st.integers(0, 30))
def test_rank_counts_the_nearer_decoys(seed: int, decoys: int) -> None:
    truth, guess, others = (torch.randn(n, 6, generator=rng(seed, n)) for n in (2, 2, decoys))
    guess = torch.randn(2, 6, generator=rng(seed, "guess"))
    found = identification(truth, guess, others)
    for index in range(2):
        own = float((truth[index] - guess[index]).double().square().mean())
        nearer = sum(float((other - guess[index]).double().square().mean()) <= own for other in others)
        assert found.rank[index] == 1 + nearer
    assert (found.probability >= 1 / (decoys + 1)).all()
    assert (found.probability <= 1).all()
    assert found.testable == (decoys >= 19)


def test_a_guess_that_knows_nothing_ranks_evenly() -> None:
    drawn = torch.randn(400, 21, 5, generator=rng(0))
    found = identification(drawn[:, 0], torch.randn(400, 5, generator=rng(1)), drawn[:, 1:])
    assert abs(float(found.rank.double().mean()) - 11.0) < 1.0
    assert float((found.probability <= 0.05).double().mean()) < 0.1


def test_ties_and_broken_records_count_against_the_example() -> None:
    truth, decoys = torch.zeros(1, 4), torch.zeros(20, 4)
    assert identification(truth, torch.ones(1, 4), decoys).rank.tolist() == [21]
    assert identification(truth, torch.full((1, 4), float("nan")), torch.ones(20, 4)).rank.tolist() == [21]


def test_identification_sentences() -> None:
    truth = torch.zeros(1, 4)
    assert identification(truth, truth, torch.ones(5, 4)).verdict.startswith("Not testable: 5 decoy(s)")
    with pytest.raises(OptionError, match="Did you mean 'ssim'"):
        identification(truth, truth, torch.ones(5, 4), distance="sim")
    with pytest.raises(ShapeError, match="decoys have shape"):
        identification(truth, truth, torch.ones(5, 3))
    with pytest.raises(ShapeError, match="guess"):
        identification(truth, torch.zeros(2, 4), torch.ones(5, 4))


def test_median_interval_holds_the_median_and_repeats() -> None:
    values = torch.randn(40, generator=rng(0))
    found = median_interval(values, seed=3)
    assert found.low <= found.median <= found.high
    assert found == median_interval(values, seed=3)
    ordered = values.double().sort().values
    assert found.median == pytest.approx(float((ordered[19] + ordered[20]) / 2))
    wide = median_interval(values, level=0.99, seed=3)
    assert wide.low <= found.low
    assert wide.high >= found.high


def test_median_interval_covers_about_as_often_as_it_says() -> None:
    hits = 0
    for trial in range(150):
        found = median_interval(torch.randn(25, generator=rng(trial)), seed=trial, resamples=300)
        hits += found.low <= 0 <= found.high
    assert 0.85 < hits / 150 <= 1.0


def test_median_interval_keeps_infinity_and_leaves_out_nan() -> None:
    exact = median_interval([math.inf, math.inf, math.inf, 20.0])
    assert (exact.median, exact.high) == (math.inf, math.inf)
    mixed = median_interval([math.inf, 30.0, 20.0, 10.0, math.nan])
    assert (mixed.count, mixed.left_out) == (4, 1)
    assert mixed.median == 25.0
    assert mixed.low >= 10.0
    assert not math.isnan(mixed.high)
    empty = median_interval([math.nan])
    assert math.isnan(empty.median)
    assert empty.count == 0
    one = median_interval([7.0])
    assert (one.low, one.median, one.high) == (7.0, 7.0, 7.0)


@pytest.mark.parametrize(
    ("wrong", "words"), [({"level": 1.0}, "level of the interval is 1.0"), ({"resamples": 0}, "resamples is 0")]
)
def test_median_interval_sentences(wrong: dict[str, float], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        median_interval([1.0], **wrong)  # type: ignore[arg-type]
