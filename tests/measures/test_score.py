"""Assignment and scores: order, fewer and more records than examples, labels, clamping."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from leakgauge.core import ImageSpec, Outcome, Reconstruction, Stats
from leakgauge.errors import OptionError, ShapeError
from leakgauge.measures import assign, mse, score, score_tensor
from leakgauge.randomness import rng
from leakgauge.truth import Batch

SPEC = ImageSpec((3, 8, 8), mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))


def a_batch(count: int = 4, spec: ImageSpec = SPEC) -> Batch:
    pixels = torch.rand((count, *spec.shape), generator=rng(0, "score"))
    return Batch(spec.normalise(pixels), torch.arange(count), spec)


def as_guess(inputs: Tensor, labels: Tensor | None = None) -> Reconstruction:
    count = len(inputs)
    return Reconstruction(
        inputs, labels, Outcome.CONVERGED, True, torch.ones(count, dtype=torch.bool), torch.ones(count), Stats(), 0.0
    )


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), wanted=st.integers(1, 4), found=st.integers(0, 5))
def test_assignment_is_the_best_of_all(seed: int, wanted: int, found: int) -> None:
    truth, guess = torch.randn(wanted, 5, generator=rng(seed, 0)), torch.randn(found, 5, generator=rng(seed, 1))
    order = assign(truth, guess)
    cost = (truth[:, None] - guess[None]).double().square().mean(2)
    used = order[order >= 0].tolist()
    assert len(used) == len(set(used)) == min(wanted, found)
    got = sum(float(cost[row, column]) for row, column in enumerate(order.tolist()) if column >= 0)
    if found >= wanted:
        options = [sum(float(cost[r, c]) for r, c in enumerate(p)) for p in itertools.permutations(range(found), wanted)]
    else:
        options = [sum(float(cost[r, c]) for c, r in enumerate(p)) for p in itertools.permutations(range(wanted), found)]
    assert got == pytest.approx(min(options))


def test_assignment_puts_broken_records_last() -> None:
    truth = torch.randn(2, 3, generator=rng(0))
    guess = torch.cat([torch.full((1, 3), float("nan")), truth.flip(0)])
    assert assign(truth, guess).tolist() == [2, 1]
    assert assign(truth, guess[:1]).tolist().count(-1) == 1
    with pytest.raises(ShapeError, match="examples of shape"):
        assign(truth, torch.zeros(2, 4))


def test_a_shuffled_batch_scores_as_exact() -> None:
    batch = a_batch(spec=ImageSpec((3, 8, 8)))
    order = torch.tensor([2, 0, 3, 1])
    scores = score(batch, as_guess(batch.inputs[order], batch.labels[order]))
    assert order[scores.order].tolist() == [0, 1, 2, 3]
    assert scores.matched == 4
    assert scores.label_accuracy == 1.0
    assert (scores.mse == 0).all()
    assert (scores.psnr == float("inf")).all()
    torch.testing.assert_close(scores.ssim, torch.ones(4, dtype=torch.float64))
    assert scores.lpips is None


def test_values_are_denormalised_and_clamped_and_the_unclamped_stands_beside() -> None:
    batch = a_batch(1)
    pixels = SPEC.denormalise(batch.inputs) + 0.7
    scores = score_tensor(batch, SPEC.normalise(pixels))
    torch.testing.assert_close(scores.mse, mse(SPEC.denormalise(batch.inputs).clamp(0, 1), pixels.clamp(0, 1)), rtol=1e-5, atol=0)
    torch.testing.assert_close(scores.mse_unclamped, torch.tensor([0.49], dtype=torch.float64), rtol=1e-5, atol=0)
    torch.testing.assert_close(scores.psnr, -10 * scores.mse.log10())
    assert math.isnan(scores.label_accuracy)


def test_fewer_records_than_examples_leave_nan() -> None:
    batch = a_batch(3)
    scores = score(batch, as_guess(batch.inputs[2:3], torch.tensor([0])))
    assert scores.order.tolist() == [-1, -1, 0]
    assert scores.matched == 1
    assert scores.mse.isnan().tolist() == scores.ssim.isnan().tolist() == [True, True, False]
    assert scores.label_accuracy == 0.0
    empty = score(batch, as_guess(batch.inputs[:0], torch.zeros(0, dtype=torch.long)))
    assert empty.matched == 0
    assert empty.psnr.isnan().all()
    assert math.isnan(empty.label_accuracy)


def test_more_records_than_examples_are_left_out() -> None:
    batch = a_batch(2)
    scores = score_tensor(batch, torch.cat([batch.inputs + 1.0, batch.inputs]), torch.tensor([9, 9, 0, 0]))
    assert scores.order.tolist() == [2, 3]
    assert scores.label_accuracy == 0.5


def test_soft_labels_count_by_their_largest_entry() -> None:
    batch = a_batch(2)
    soft = Batch(batch.inputs, torch.tensor([[0.9, 0.1], [0.2, 0.8]]), SPEC)
    assert score_tensor(soft, batch.inputs, torch.tensor([0, 1])).label_accuracy == 1.0


def test_sentences() -> None:
    batch = a_batch(2)
    with pytest.raises(OptionError, match="range of its values is not known"):
        score_tensor(Batch(batch.inputs, batch.labels, None), batch.inputs)
    with pytest.raises(ShapeError, match="2 inputs and 3 labels"):
        score_tensor(batch, batch.inputs, torch.zeros(3))
    with pytest.raises(ShapeError, match="examples of shape"):
        score_tensor(batch, torch.zeros(2, 3, 4, 4))
