"""Measures of texts against slow and obvious oracles."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leakgauge.core.spec import ImageSpec
from leakgauge.core.text_spec import TextSpec
from leakgauge.errors import OptionError, ShapeError
from leakgauge.measures import rouge_l, rouge_n, score_texts, token_accuracy
from leakgauge.measures.text import bag
from leakgauge.truth import Batch

TOKENS = st.lists(st.integers(0, 4), max_size=7)


@given(TOKENS, TOKENS)
@settings(max_examples=80, deadline=None)
def test_rouge_l_is_the_longest_common_subsequence(one, other):
    longest = 0
    for size in range(1, min(len(one), len(other)) + 1):
        of_one = set(itertools.combinations(one, size))
        if of_one & set(itertools.combinations(other, size)):
            longest = size
    wanted = 2 * longest / (len(one) + len(other)) if longest else 0.0
    assert rouge_l(one, other) == pytest.approx(wanted)


@given(TOKENS, TOKENS, st.integers(1, 3))
@settings(max_examples=80, deadline=None)
def test_rouge_n_counts_common_phrases_as_often_as_both_hold_them(one, other, n):
    phrases, left = (
        [tuple(one[i : i + n]) for i in range(len(one) - n + 1)],
        [tuple(other[i : i + n]) for i in range(len(other) - n + 1)],
    )
    total, common = len(phrases) + len(left), 0
    for phrase in phrases:
        if phrase in left:
            left.remove(phrase)
            common += 1
    assert rouge_n(one, other, n) == pytest.approx(2 * common / total if common else 0.0)


def test_known_figures():
    truth, guess = [1, 2, 3, 4], [1, 2, 4, 3]
    assert token_accuracy(truth, guess) == 0.5
    assert rouge_n(truth, guess, 1) == 1.0
    assert rouge_n(truth, guess, 2) == pytest.approx(1 / 3)
    assert rouge_l(truth, guess) == 0.75
    assert bag([[1, 1, 2]], [[1, 2, 2, 5]]) == (0.5, pytest.approx(2 / 3))
    with pytest.raises(OptionError, match="expected at least 1"):
        rouge_n(truth, guess, 0)


def texts(task: str = "classification") -> Batch:
    ids = torch.tensor([[5, 6, 7, 8, 0, 0], [9, 8, 7, 6, 5, 4], [3, 3, 3, 0, 0, 0]])
    return Batch(ids, torch.tensor([0, 1, 1]), TextSpec(6, 10, 0, task))


def test_texts_are_assigned_whatever_their_order_and_padding_does_not_count():
    guess = torch.tensor([[3, 3, 3, 0, 0, 0, 0], [5, 6, 7, 8, 0, 0, 0], [9, 8, 7, 6, 5, 5, 0]])
    found = score_texts(texts(), guess, torch.tensor([1, 0, 0]))
    assert found.order.tolist() == [1, 2, 0]
    assert found.exact.tolist() == [1.0, 0.0, 1.0]
    assert found.token_accuracy.tolist() == [1.0, pytest.approx(5 / 6), 1.0]
    assert found.label_accuracy == pytest.approx(2 / 3)
    assert found.bag_recall == pytest.approx(12 / 13)
    assert found.matched == 3


def test_a_text_without_a_reconstruction_is_no_zero():
    found = score_texts(texts(), texts().inputs[:1])
    assert found.matched == 1
    assert found.exact[0] == 1
    assert all(math.isnan(value) for value in found.token_accuracy[1:].tolist())


def test_masked_labels_and_open_tokens_are_scored_apart():
    ids = torch.tensor([[2, 4, 5, 4]])
    labels = torch.tensor([[-100, 7, -100, 8]])
    batch = Batch(ids, labels, TextSpec(4, 10, 0, "masked"))
    found = score_texts(batch, torch.tensor([[2, 4, 6, 4]]), torch.tensor([[-100, 7, -100, 9]]))
    assert found.unmasked_accuracy.tolist() == [0.5]
    assert found.masked_accuracy.tolist() == [0.5]
    assert found.token_accuracy.tolist() == [0.75]


def test_pictures_and_numbers_are_refused():
    with pytest.raises(OptionError, match="no TextSpec"):
        score_texts(Batch(torch.zeros(1, 1, 2, 2), torch.zeros(1), ImageSpec((1, 2, 2))), torch.zeros(1, 4).long())
    with pytest.raises(ShapeError, match="expected token ids"):
        score_texts(texts(), torch.zeros(3, 6))
