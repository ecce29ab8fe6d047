"""The security metric against its formula, worked values and a recovered counter-example."""

from __future__ import annotations

import pytest
import torch
from test_rank_profile import convolutions, named, picture
from torch import nn

import leakgauge as lg
from leakgauge.analysis.security import security
from leakgauge.errors import UnsupportedError

SHAPE = (3, 16, 16)


@pytest.mark.parametrize(
    ("layer", "total"),
    [((6, 4, 2, 0), -222), ((1, 3, 1, 0), -546), ((12, 3, 4, 1), -405), ((12, 5, 2, 0), -93), ((9, 3, 2, 1), -30)],
)
def test_one_convolution(layer: tuple[int, int, int, int], total: int) -> None:
    model = convolutions(layer)
    assert security(model, SHAPE).total == total
    seen = security(model, SHAPE, (picture(), 3))
    assert seen.total == total
    assert seen.deficit == -total
    assert (security(model, SHAPE).method, seen.method) == ("count", "numerical")


def test_the_most_negative_metric_of_a_network_that_is_recovered() -> None:
    """-683 and -512: the metric says secure, and gradient matching finds the picture."""
    wide, narrow = convolutions((16, 3, 1, 1), (16, 3, 2, 1), (32, 3, 2, 1)), convolutions((16, 3, 1, 1), (16, 3, 2, 1))
    assert security(wide, SHAPE).total == pytest.approx(-2 / 3 * 1024)
    assert security(wide, SHAPE, (picture(), 3)).total == -683
    assert security(narrow, SHAPE, (picture(), 3)).total == -512


def test_the_counter_example_is_recovered() -> None:
    torch.manual_seed(0)
    model = convolutions((16, 3, 1, 1), (16, 3, 2, 1), (32, 3, 2, 1))
    spec = lg.ImageSpec(SHAPE)
    update = lg.Client(model).train(lg.Batch(picture(), torch.tensor([3]), spec), seed=0)
    seen = lg.ThreatModel.honest_but_curious(labels=True).observe(update, model, spec)
    guess = lg.attack(seen, "dlg", seed=0)
    assert float((guess.inputs - picture()).square().mean()) < 1e-6


def test_the_formula_over_a_known_network() -> None:
    model = lg.load_model("cnn6-d", num_classes=10, input_shape=(3, 32, 32), seed=0)
    found, profile = security(model, (3, 32, 32)), named("cnn6-d")
    depth = len(profile.layers)
    assert depth == 7
    assert [layer.weight for layer in found.layers] == [(depth - 1 - number) / (depth - 1) for number in range(depth - 1)]
    assert found.total == pytest.approx(-280 * 5 / 6)
    assert found.total == sum(layer.contribution for layer in found.layers)
    assert [layer.name for layer in found.layers if layer.contribution] == ["conv2"]


def test_a_solvable_network_has_zero() -> None:
    for name, shape in (("lenet-dlg", (3, 32, 32)), ("mlp", (1, 8, 8))):
        found = security(lg.load_model(name, num_classes=10, input_shape=shape, seed=0), shape)
        assert found.total == found.deficit == 0
        assert str(found.total) == str(found.deficit) == "0.0"


def test_a_single_layer_has_no_terms() -> None:
    found = security(nn.Sequential(nn.Flatten(), nn.Linear(768, 2)), SHAPE)
    assert found.layers == ()
    assert found.total == 0


def test_nothing_to_count() -> None:
    with pytest.raises(UnsupportedError, match=r"can count no layer.*not injective"):
        security(nn.GELU(), SHAPE)
