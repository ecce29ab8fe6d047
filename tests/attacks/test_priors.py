"""Priors against loops, and where they vanish."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from leakgauge.attacks.matching.priors import (
    BatchNormPrior,
    Box,
    Context,
    GroupConsistency,
    L2Norm,
    TotalVariation,
    total_variation,
)
from leakgauge.core import ImageSpec, LocalTraining, ThreatModel
from leakgauge.federated.client import Client
from leakgauge.local import Network
from leakgauge.randomness import rng
from leakgauge.truth import Batch

SPEC = ImageSpec((2, 5, 6), mean=(0.4, 0.5), std=(0.3, 0.2))


def context(spec: ImageSpec | None = SPEC) -> Context:
    return Context(Network(nn.Flatten()), spec, {})


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 5), st.integers(1, 5), st.integers(0, 1000))
def test_total_variation_against_loops(count: int, channels: int, height: int, width: int, seed: int) -> None:
    images = torch.randn(count, channels, height, width, generator=rng(seed, "tv"), dtype=torch.float64)
    array = images.numpy()
    across = [
        abs(array[n, c, i, j + 1] - array[n, c, i, j])
        for n in range(count) for c in range(channels) for i in range(height) for j in range(width - 1)
    ]  # fmt: skip
    down = [
        abs(array[n, c, i + 1, j] - array[n, c, i, j])
        for n in range(count) for c in range(channels) for i in range(height - 1) for j in range(width)
    ]  # fmt: skip
    expected = (np.mean(across) if across else 0.0) + (np.mean(down) if down else 0.0)
    assert float(total_variation(images)) == pytest.approx(expected, rel=1e-12, abs=1e-15)
    assert float(TotalVariation(0.3)(images, context())) == pytest.approx(0.3 * expected, rel=1e-12, abs=1e-15)


def test_the_box_is_zero_inside_and_quadratic_outside() -> None:
    inside = SPEC.normalise(torch.rand(3, *SPEC.shape, generator=rng(0), dtype=torch.float64))
    assert float(Box(2.0)(inside, context())) == 0
    pixels = torch.full((1, *SPEC.shape), 0.5, dtype=torch.float64)
    pixels[0, 0, 0, 0], pixels[0, 1, 0, 0] = 1.3, -0.2
    excess = ((0.3 / 0.3) ** 2 + (0.2 / 0.2) ** 2) / pixels.numel()
    assert float(Box(2.0)(SPEC.normalise(pixels), context())) == pytest.approx(2 * excess)
    assert float(Box()(SPEC.normalise(pixels), context(None))) == 0


def test_the_norm_is_smallest_at_mid_grey() -> None:
    grey = SPEC.normalise(torch.full((1, *SPEC.shape), 0.5, dtype=torch.float64))
    assert float(L2Norm(1.0)(grey, context())) == pytest.approx(0, abs=1e-20)
    assert float(L2Norm(1.0)(grey + 0.1, context())) == pytest.approx(0.01)


def test_the_batch_norm_prior_vanishes_at_the_true_batch_in_train_mode() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Tanh(), nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4), nn.Flatten(),
                          nn.Linear(24, 3)).double()  # fmt: skip
    pixels = torch.rand(4, *SPEC.shape, generator=rng(0), dtype=torch.float64)
    batch = Batch(SPEC.normalise(pixels), torch.tensor([0, 1, 2, 0]), SPEC)
    update = Client(model, training=LocalTraining(mode="train", dtype="float64")).train(batch)
    seen = ThreatModel.honest_but_curious().observe(update, model, SPEC)
    assert set(seen.batch_norm) == {"1", "4"}
    there = Context(Network(seen.model, "train"), SPEC, seen.batch_norm)
    prior = BatchNormPrior(0.1)
    assert float(prior(batch.inputs, there)) < 1e-18
    assert float(prior(batch.inputs.flip(0), there)) < 1e-18
    assert float(prior(batch.inputs * 0.9, there)) > 1e-4
    assert float(prior(batch.inputs, Context(there.network, SPEC, {}))) == 0
    both = torch.stack([batch.inputs, batch.inputs * 0.9])
    pulled = torch.func.vmap(lambda one: prior(one, there))(both)
    torch.testing.assert_close(pulled, torch.stack([prior(one, there) for one in both]), rtol=1e-9, atol=1e-18)


def test_group_consistency_pulls_towards_the_mean() -> None:
    group = GroupConsistency(0.5)
    points = torch.tensor([[0.0, 0.0], [2.0, 4.0]], requires_grad=True)
    pull = group.pull(points)
    torch.testing.assert_close(pull, torch.tensor([1.25, 1.25]))
    (slope,) = torch.autograd.grad(pull.sum(), points)
    torch.testing.assert_close(slope, torch.tensor([[-0.5, -1.0], [0.5, 1.0]]))
    assert torch.equal(group.pull(torch.ones(3, 4)), torch.zeros(3))
