"""The closed form for a linear first layer."""

from __future__ import annotations

import pytest
import torch
from attack_cases import lenet, observe, pictures
from torch import nn

import leakgauge as lg
from leakgauge.core import Outcome
from leakgauge.errors import UnsupportedError


def mlp(hidden: int = 32, activation: str = "relu", seed: int = 0) -> nn.Module:
    return lg.load_model(f"mlp:hidden={hidden},activation={activation}", num_classes=4, input_shape=(1, 8, 8), seed=seed)


@pytest.mark.parametrize("activation", ["relu", "sigmoid", "tanh"])
@pytest.mark.parametrize(
    "protocol", [{}, {"lr": 0.1}, {"lr": 0.1, "momentum": 0.9, "nesterov": True}, {"reduction": "sum"}], ids=str
)
def test_one_example_is_exact_and_certified(activation: str, protocol: dict) -> None:
    batch = pictures(1)
    guess = lg.attack(observe(mlp(activation=activation), batch, **protocol), "linear-layer")
    tolerance = 1e-6 if "lr" not in protocol else 1e-5
    assert float((guess.inputs - batch.inputs).abs().max()) < tolerance
    assert guess.labels is not None
    assert guess.labels.tolist() == batch.labels.tolist()
    assert guess.certified.all()
    assert guess.explains
    assert guess.outcome is Outcome.DETERMINED


def test_double_precision_is_exact_to_rounding() -> None:
    batch = pictures(1)
    guess = lg.attack(observe(mlp(), batch, dtype="float64"), "linear-layer")
    assert float((guess.inputs - batch.inputs).abs().max()) < 1e-6  # the result itself is float32
    assert guess.stats.residual < 1e-10


def test_examples_are_isolated_by_neurons_of_their_own() -> None:
    """A wide ReLU layer whose neurons look at random directions and rarely fire: many are active for one example only."""
    batch = pictures(3, seed=1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 600), nn.ReLU(), nn.Linear(600, 4))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        weight = torch.randn(600, 64, generator=generator)
        model[1].weight.copy_(weight)
        values = batch.inputs.flatten(1) @ weight.T  # (3, 600)
        model[1].bias.copy_(-values.topk(2, dim=0).values.mean(0) * (torch.arange(600) % 3 != 2) - 0.0)
    guess = lg.attack(observe(model, batch), "linear-layer")
    assert len(guess) == 3
    off = torch.cdist(guess.inputs.flatten(1), batch.inputs.flatten(1))
    assert sorted(off.argmin(1).tolist()) == [0, 1, 2]
    assert float(off.amin(1).max()) < 1e-3
    assert "3 of 3 examples were isolated" in guess.stats.notes[0]


def test_mixtures_are_not_returned() -> None:
    guess = lg.attack(observe(mlp(16, "sigmoid"), pictures(3)), "linear-layer")
    assert len(guess) == 0
    assert guess.outcome is not Outcome.DETERMINED
    assert not guess.explains


def test_noise_is_not_certified() -> None:
    seen = observe(mlp(), pictures(1), defences=(lg.GaussianNoise(1e-2),))
    guess = lg.attack(seen, "linear-layer")
    assert not guess.certified.any()
    assert guess.outcome is Outcome.INCONSISTENT


def unsupported(name: str) -> lg.Observation:
    if name == "conv":
        return observe(lenet(), pictures(1))
    if name == "steps":
        return observe(mlp(), pictures(1), lr=0.1, steps=2)
    if name == "withheld":
        return observe(mlp(), pictures(1), withhold=("linear1.bias",))
    model = mlp()
    with torch.no_grad():
        model.get_parameter("linear1.bias").fill_(-100.0)
    return observe(model, pictures(1))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("conv", r"first layer with weights is 'conv1' \(Conv2d\). Use a matching attack"),
        ("steps", "needs one gradient over the whole batch; the client took several local steps"),
        ("withheld", "needs weight and bias gradient of 'linear1'; they were not both shared"),
        ("dead", "bias gradient of 'linear1' is zero: no neuron of it was active"),
    ],
)
def test_what_it_cannot_treat_is_said(name: str, words: str) -> None:
    with pytest.raises(UnsupportedError, match=words):
        lg.attack(unsupported(name), "linear-layer")
