"""The counting bound: known cases, and what more or less of an update does to it."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import leakgauge as lg
from leakgauge.chain.counting import counting_bound, counting_bound_of
from leakgauge.errors import ShapeError
from leakgauge.randomness import rng


def lenet() -> nn.Module:
    return lg.load_model("lenet-dlg", num_classes=10, input_shape=(3, 32, 32), seed=0)


def test_the_lenet_of_dlg_holds_three_pictures() -> None:
    """768 N of the linear layer and 912 + 3612 + 3612 of the convolutions against 3072 N."""
    for count, open_ in ((1, False), (3, False), (4, True), (16, True)):
        bound = lg.counting_bound(lenet(), (3, 32, 32), count)
        assert bound.unknowns == 3072 * count
        assert bound.equations == 8136 + 768 * min(count, 10)
        assert bound.determinable is not open_
        assert bound.largest_batch == 3
        assert ("cannot be determined" in bound.verdict) is open_
        assert "3" in bound.verdict


def test_a_wide_first_layer_holds_as_many_as_it_has_rows() -> None:
    model = lg.load_model("mlp:hidden=20", num_classes=4, input_shape=(1, 4, 4), seed=0)
    bound = counting_bound(model, (1, 4, 4), 8)
    assert bound.equations == 8 * 16 + 4 * 20
    assert bound.determinable
    assert counting_bound(model, (1, 4, 4), 30).determinable is False
    assert bound.largest_batch == 25  # 20 * 16 of the first layer and 4 * 20 of the last


def test_no_batch_at_all() -> None:
    bound = counting_bound(nn.Sequential(nn.Flatten(), nn.Linear(3, 2)), (1, 8, 8), 1)
    assert bound.largest_batch == 0
    assert not bound.determinable
    assert "no batch size could be" in bound.verdict


def test_only_what_is_shared_counts() -> None:
    model = lenet()
    full = counting_bound(model, (3, 32, 32), 2)
    names = {name for name, _ in model.named_parameters()}
    for name, parameter in model.named_parameters():
        part = counting_bound(model, (3, 32, 32), 2, shared=names - {name})
        lost = full.equations - part.equations
        assert lost == {"linear.weight": 2 * 768, "linear.bias": 0}.get(name, parameter.numel())
    assert counting_bound(model, (3, 32, 32), 2, shared=set()).equations == 0
    assert counting_bound(model, (3, 32, 32), 2, statistics=48).equations == full.equations + 48


def test_what_an_attacker_holds() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(144, 3))
    spec = lg.ImageSpec((1, 8, 8))
    batch = lg.Batch(torch.rand(3, 1, 8, 8, generator=rng(0)), torch.tensor([0, 1, 2]), spec)
    client = lg.Client(model, training=lg.LocalTraining(mode="train"), withhold=("0.weight",))
    update = client.train(batch)
    blind = lg.ThreatModel.honest_but_curious(batch_norm=False).observe(update, model, spec)
    seeing = lg.ThreatModel.honest_but_curious().observe(update, model, spec)
    expected = 4 + 8 + 3 * 144
    assert counting_bound_of(blind).equations == expected
    assert counting_bound_of(seeing).equations == expected + 8
    assert counting_bound_of(blind).unknowns == 3 * 64
    with pytest.raises(ShapeError, match="the observation has no spec"):
        counting_bound_of(lg.ThreatModel.honest_but_curious().observe(update, model, None))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=3), st.integers(1, 5), st.integers(1, 30))
def test_more_examples_never_carry_fewer_equations(widths: list[int], side: int, count: int) -> None:
    sizes = [side * side, *widths]
    model = nn.Sequential(nn.Flatten(), *[nn.Linear(a, b) for a, b in pairwise(sizes)])
    now, more = (counting_bound(model, (1, side, side), count + extra) for extra in (0, 1))
    assert now.equations <= more.equations
    assert now.largest_batch == more.largest_batch
    assert now.determinable == (count <= now.largest_batch)
    assert more.unknowns - now.unknowns == side * side


def test_an_empty_batch_is_refused() -> None:
    with pytest.raises(ShapeError, match="The batch size is 0; expected at least 1"):
        counting_bound(lenet(), (3, 32, 32), 0)
