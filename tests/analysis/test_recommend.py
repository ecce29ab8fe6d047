"""Recommendations: built as they say, the changed network must leave open what was promised."""

from __future__ import annotations

import pytest
from test_rank_profile import convolutions
from torch import nn

import leakgauge as lg
from leakgauge.analysis.rank_profile import rank_profile
from leakgauge.analysis.recommend import recommendations
from leakgauge.errors import OptionError

SHAPE = (3, 16, 16)


def test_sufficient_ones_come_first_and_cheapest_first() -> None:
    found = recommendations(lg.load_model("cnn6", num_classes=10, input_shape=(3, 32, 32), seed=0), (3, 32, 32))
    costs = [one.cost for one in found if one.sufficient]
    assert costs == sorted(costs)
    assert [one.sufficient for one in found] == sorted((one.sufficient for one in found), reverse=True)
    assert {one.kind for one in found} >= {"channels", "stride", "pooling", "activation", "depth"}
    for one in found:
        assert one.share == one.undetermined / 3072
        assert one.cost == pytest.approx(abs(one.parameters - 1) + abs(one.outputs - 1))
        assert one.sufficient == (one.share >= 0.5)
        assert one.sentence.endswith(".")
    assert all("no protection by themselves" in one.sentence for one in found if one.kind == "depth")


def test_a_promise_is_kept_by_the_changed_network() -> None:
    model = convolutions((12, 3, 1, 1))
    found = {one.kind: one for one in reversed(recommendations(model, SHAPE)) if one.sufficient}
    channels = int(found["channels"].change.split()[0])
    stride = int(found["stride"].change.split()[1])
    changed = {
        "channels": convolutions((channels, 3, 1, 1)),
        "stride": convolutions((12, 3, stride, 1)),
    }
    for kind, network in changed.items():
        assert rank_profile(network, SHAPE).undetermined == found[kind].undetermined
        weights = [sum(parameter.numel() for parameter in one.parameters()) for one in (network, model)]
        assert found[kind].parameters == pytest.approx(weights[0] / weights[1], rel=1e-2)
    more = rank_profile(convolutions((channels + 1, 3, 1, 1)), SHAPE).undetermined
    assert more is not None
    assert more < 384, "one channel more would not be enough"


def test_pooling_in_front_is_counted_and_its_limit_named() -> None:
    model = convolutions((12, 3, 2, 1))
    pooled = next(one for one in recommendations(model, SHAPE) if one.kind == "pooling")
    assert pooled.change.endswith("and stride 1 instead of 2 after it")
    assert pooled.outputs == 1
    assert "a picture of 8x8 can still come back" in pooled.sentence
    first, *rest = convolutions((12, 3, 1, 1))
    built = nn.Sequential(nn.AvgPool2d(2), first, *list(rest)[:-1], nn.Linear(768, 10))
    assert rank_profile(built, SHAPE).undetermined == pooled.undetermined


def test_a_linear_first_layer() -> None:
    found = recommendations(lg.load_model("mlp", num_classes=10, input_shape=(1, 28, 28), seed=0), (1, 28, 28))
    bias = next(one for one in found if one.kind == "bias")
    assert "whatever its width" in bias.sentence
    assert not bias.sufficient
    pooled = next(one for one in found if one.kind == "pooling")
    assert (pooled.undetermined, pooled.sufficient) == (784 - 196, True)
    assert "channels" not in {one.kind for one in found}
    small = lg.load_model("mlp", num_classes=10, input_shape=(1, 14, 14), seed=0)
    large = lg.load_model("mlp", num_classes=10, input_shape=(1, 28, 28), seed=0)
    sizes = [sum(parameter.numel() for parameter in one.parameters()) for one in (small, large)]
    assert pooled.parameters == pytest.approx(sizes[0] / sizes[1])


def test_no_change_is_needed_or_possible() -> None:
    (only,) = recommendations(convolutions((12, 3, 4, 1)), SHAPE)
    assert (only.kind, only.sufficient, only.undetermined) == ("none", True, 405)
    assert recommendations(convolutions((12, 3, 4, 1)), SHAPE, threshold=0.6)[0].kind != "none"
    (unknown,) = recommendations(nn.Sequential(nn.GELU(), nn.Flatten(), nn.Linear(768, 2)), SHAPE)
    assert (unknown.kind, unknown.sufficient) == ("none", False)
    assert "cannot be counted" in unknown.sentence


@pytest.mark.parametrize("threshold", [0, -1, 1.5])
def test_a_threshold_out_of_range(threshold: float) -> None:
    with pytest.raises(OptionError, match="threshold above 0 and at most 1"):
        recommendations(convolutions((12, 3, 1, 1)), SHAPE, threshold=threshold)
