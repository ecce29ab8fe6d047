"""Distances in a line-up: private example and decoys alike, each to the nearest reconstruction."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from verdict_cases import record

from leakgauge.audit.record import Pictures
from leakgauge.audit.text_record import Texts
from leakgauge.audit.verdict.decoys import Decoys
from leakgauge.audit.verdict.lineups import line_ups_of, missing_share, nearest_pixels
from leakgauge.audit.verdict.look_alikes import LookAlikes, Private
from leakgauge.measures.image import mse
from leakgauge.randomness import rng

TRUTH = torch.rand(2, 1, 4, 4, generator=rng(0, "truth"))
OTHERS = torch.rand(5, 1, 4, 4, generator=rng(0, "others"))


def decoys(private: int = 2, rows: tuple[int, ...] = (0, 1, 3)) -> Decoys:
    pool = LookAlikes(tuple(f"d{k}" for k in range(5)), ("",) * 5, OTHERS)
    people = tuple(Private(f"t{k}", f"patient {k}", "0", "x") for k in range(private))
    return Decoys(people, ("a.png", "b.png")[:private], (pool,), ((0, rows),) * private, frozenset(), "")


def pictures(guess: torch.Tensor) -> Pictures:
    return Pictures(guess=guess, truth=TRUTH)


def test_exact_reconstructions_in_any_order_are_at_zero() -> None:
    found = line_ups_of(replace(record([1.0, 1.0]), pictures=pictures(TRUTH.flip(0))), decoys())
    assert [line_up.truth for line_up in found] == [0.0, 0.0]
    assert [(line_up.record, line_up.name, line_up.patient) for line_up in found] == [
        ("t0", "a.png", "patient 0"),
        ("t1", "b.png", "patient 1"),
    ]
    assert found[0].others == ("d0", "d1", "d3")
    expected = [min(float(mse(OTHERS[k : k + 1], TRUTH[j : j + 1])) for j in range(2)) for k in (0, 1, 3)]
    assert found[0].decoys == pytest.approx(expected, rel=1e-5)


def test_everybody_counts_with_the_nearest_reconstruction() -> None:
    """The one assigned to another private example included: an assignment with the truth in sight would favour the truth."""
    guess = torch.stack([OTHERS[0], TRUTH[0]])
    found = line_ups_of(replace(record([1.0, 1.0]), pictures=pictures(guess)), decoys())
    assert found[0].truth == 0.0
    assert found[0].decoys[0] == found[1].decoys[0] == 0.0
    assert found[1].truth == pytest.approx(min(float(mse(TRUTH[1:], one[None])) for one in guess), rel=1e-5)


def test_truth_and_decoys_may_change_places() -> None:
    """The same distances come out whichever of the pictures is the private one."""
    guess = torch.rand(3, 1, 4, 4, generator=rng(1, "guess"))
    pool = torch.cat([TRUTH, OTHERS])
    apart = [nearest_pixels(picture[None], guess)[0] for picture in pool]
    assert nearest_pixels(pool, guess) == apart
    assert nearest_pixels(pool, guess.flip(0)) == apart


@pytest.mark.parametrize("guess", [torch.zeros(0, 1, 4, 4), torch.full((2, 1, 4, 4), math.nan)])
def test_nothing_returned_is_infinitely_far_and_has_no_decoys(guess: torch.Tensor) -> None:
    for line_up in line_ups_of(replace(record([1.0, 1.0]), pictures=pictures(guess)), decoys()):
        assert (line_up.truth, line_up.decoys, line_up.others) == (math.inf, (), ())
        assert line_up.record


def test_without_decoys_the_private_example_keeps_its_hash_and_distance() -> None:
    found = line_ups_of(replace(record([1.0, 1.0]), pictures=pictures(TRUTH)), decoys(rows=()))
    assert [(line_up.record, line_up.truth, line_up.decoys) for line_up in found] == [("t0", 0.0, ()), ("t1", 0.0, ())]


def test_a_failed_reconstruction_does_not_spoil_the_others() -> None:
    guess = TRUTH.clone()
    guess[1] = math.inf
    assert line_ups_of(replace(record([1.0, 1.0]), pictures=pictures(guess)), decoys())[0].truth == 0.0


def test_texts_by_the_share_of_tokens_that_are_missing() -> None:
    assert missing_share(("a", "b", "c", "d"), [("d", "a"), ("x",)]) == 0.5
    assert missing_share(("a", "a"), [("a",)]) == 0.5
    assert missing_share(("a", "b"), [("a",), ("b", "c", "a")]) == 0.0
    assert missing_share(("a",), []) == math.inf


def test_texts_without_special_tokens_and_brackets() -> None:
    pool = LookAlikes(("d0",), ("",), tokens=(("the", "cat"),))
    people = (Private("t0", "", "0", "x"),)
    held = Decoys(people, ("notes#0",), (pool,), ((0, (0,)),), frozenset({"[CLS]", "[SEP]"}), "")
    texts = Texts(guess=((" [CLS]", " the", " dog", " [SEP]"),), truth=((" [CLS]", " the", " \u27e6dog\u27e7", " [SEP]"),))
    (found,) = line_ups_of(replace(record([1.0]), texts=texts, scores=()), held)
    assert (found.distance, found.truth, found.decoys) == ("tokens", 0.0, (0.5,))
