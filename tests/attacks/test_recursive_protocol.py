"""The closed form under other protocols: what it takes, what it refuses and why, and updates that are not exact."""

from __future__ import annotations

import dataclasses
import time
from collections import OrderedDict

import pytest
import torch
from attack_cases import observe, pictures
from test_recursive import SHAPE, closed, convolutions, exact, mse, seeded
from torch import nn

import leakgauge as lg
from leakgauge.core import Outcome
from leakgauge.errors import UnsupportedError

ONE = (12, 5, 2, 2)


@pytest.mark.parametrize(
    "protocol",
    [
        {"lr": 0.1},
        {"lr": 0.1, "weight_decay": 0.01},
        {"lr": 0.1, "momentum": 0.9, "nesterov": True},
        {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
        {"lr": 0.1, "schedule": (0.5,)},
        {"lr": 0.1, "proximal": 0.1},
        {"lr": 0.1, "batch_size": 4},
        {"clip_norm": 0.01},
        {"lr": 0.1, "clip_norm": 0.01},
        {"reduction": "sum"},
        {"label_smoothing": 0.1},
        {"class_weights": (2.0,) * 10},
    ],
    ids=str,
)
def test_one_local_step_is_one_gradient(protocol: dict[str, object]) -> None:
    exact(convolutions(ONE), pictures(shape=SHAPE, classes=10), dtype="float64", **protocol)


def test_one_local_step_in_float32() -> None:
    seen = observe(convolutions(ONE), pictures(shape=SHAPE, classes=10), lr=0.1, weight_decay=0.01)
    assert seen.kind == "delta"
    guess = lg.attack(seen, "recursive")
    assert mse(pictures(shape=SHAPE, classes=10), guess) <= 1e-8
    assert guess.certified.all()


def test_labels_may_be_granted() -> None:
    batch = pictures(shape=SHAPE, classes=10)
    assert mse(batch, lg.attack(observe(convolutions(ONE), batch, labels=True), "recursive")) <= 1e-8


@pytest.mark.parametrize("withhold", [("0.bias",), ("0.weight",), ("0.weight", "0.bias")], ids=str)
def test_tensors_that_are_not_needed_may_be_withheld(withhold: tuple[str, ...]) -> None:
    exact(convolutions(ONE), pictures(shape=SHAPE, classes=10), withhold=withhold, dtype="float64")


def test_a_withheld_bias_of_the_last_layer_is_made_good_by_the_loss() -> None:
    exact(convolutions(ONE), pictures(shape=SHAPE, classes=10), withhold=("3.bias",), dtype="float64")


def test_withheld_gradients_that_are_needed_leave_the_input_open() -> None:
    """16 output values for 48 input values in every 2x2 field: the gradient's rows are needed."""
    batch, model = pictures(shape=SHAPE, classes=10), convolutions((16, 4, 4, 0))
    guess = lg.attack(observe(model, batch, withhold=("0.weight",), dtype="float64"), "recursive")
    assert guess.outcome is Outcome.UNDERDETERMINED
    assert guess.explains
    assert not guess.certified.any()


def test_what_is_out_of_reach_is_refused_in_one_sentence_with_every_reason() -> None:
    model = nn.Sequential(
        OrderedDict(conv=nn.Conv2d(3, 8, 3), norm=nn.BatchNorm2d(8), bend=nn.GELU(), pool=nn.MaxPool2d(2), flat=nn.Flatten(),
                    last=nn.Linear(392, 10))
    )  # fmt: skip
    seen = observe(model, pictures(2, shape=SHAPE, classes=10), lr=0.1, steps=2, mode="train")
    with pytest.raises(UnsupportedError) as caught:
        lg.attack(seen, "recursive")
    message = str(caught.value)
    for words in (
        "the batch has 2 examples",
        "took several local steps",
        "'norm' normalise(s) by the example itself (BatchNorm in train mode)",
        "'bend' (GELU): it is not injective",
        "'pool' (MaxPool2d): max-pooling has no inverse",
        "Use a matching attack",
    ):
        assert message.count(words) == 1


@pytest.mark.parametrize(
    ("count", "training", "words"),
    [
        (2, {}, "the batch has 2 examples, and layer equations hold for one"),
        (1, {"lr": 0.1, "steps": 2}, "the client took several local steps"),
        (1, {"lr": 0.1, "optimiser": "adam"}, "no single gradient"),
    ],
)
def test_each_protocol_out_of_reach_is_refused(count: int, training: dict[str, object], words: str) -> None:
    with pytest.raises(UnsupportedError, match=words):
        lg.attack(observe(convolutions(ONE), pictures(count, shape=SHAPE, classes=10), **training), "recursive")


def test_the_last_layer_must_be_linear_and_shared() -> None:
    batch = pictures(shape=SHAPE, classes=10)
    with pytest.raises(UnsupportedError, match="needs the weight gradient of the last layer '3', which was withheld"):
        lg.attack(observe(convolutions(ONE), batch, withhold=("3.weight",)), "recursive")
    model = seeded(lambda: nn.Sequential(nn.Conv2d(3, 10, 16), nn.Flatten()))
    with pytest.raises(UnsupportedError, match="needs a linear layer at the end"):
        lg.attack(observe(model, batch), "recursive")


def test_dropout_in_train_mode_is_refused() -> None:
    model = seeded(lambda: closed(nn.Conv2d(3, 12, 5, 2, 2), nn.Dropout(0.5), nn.Tanh()))
    with pytest.raises(UnsupportedError, match=r"'1' drop\(s\) unknown values"):
        lg.attack(observe(model, pictures(shape=SHAPE, classes=10), mode="train"), "recursive")


@pytest.mark.parametrize("std", [1e-5, 1e-4, 1e-3])
@pytest.mark.parametrize("name", ["lenet", "cnn6"])
def test_a_noisy_update_is_inconsistent_and_never_certified(name: str, std: float) -> None:
    model = convolutions(ONE) if name == "lenet" else lg.load_model("cnn6", num_classes=10, input_shape=SHAPE, seed=0)
    seen = observe(model, pictures(shape=SHAPE, classes=10), defences=(lg.GaussianNoise(std),))
    guess = lg.attack(seen, "recursive")
    assert guess.outcome is Outcome.INCONSISTENT
    assert not guess.certified.any()
    assert not guess.explains
    assert bool(torch.isfinite(guess.inputs).all())


def test_half_precision_is_reckoned_with() -> None:
    batch = pictures(shape=SHAPE, classes=10)
    guess = lg.attack(observe(convolutions(ONE), batch, dtype="bfloat16"), "recursive")
    assert guess.explains
    assert not guess.certified.any()
    radius = float(guess.stats.notes[0].split()[2])
    assert mse(batch, guess) ** 0.5 <= radius


def test_a_zero_update_has_no_signal() -> None:
    seen = observe(convolutions(ONE), pictures(shape=SHAPE, classes=10))
    silent = dataclasses.replace(seen, tensors={name: torch.zeros_like(part) for name, part in seen.tensors.items()})
    guess = lg.attack(silent, "recursive")
    assert guess.outcome is Outcome.NO_GRADIENT_SIGNAL
    assert not guess.certified.any()
    assert torch.equal(guess.inputs, torch.full_like(guess.inputs, 0.5))


def test_dead_units_leave_everything_open() -> None:
    """A ReLU layer of which no unit fires: the update says nothing about the input beyond the last layer's bias."""
    model = seeded(lambda: closed(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3, bias=False), nn.ReLU()))
    with torch.no_grad():
        model.get_parameter("0.bias").fill_(-50.0)
    guess = lg.attack(observe(model, pictures(shape=SHAPE, classes=10)), "recursive")
    assert guess.outcome in (Outcome.UNDERDETERMINED, Outcome.NO_GRADIENT_SIGNAL)
    assert not guess.certified.any()
    assert bool(torch.isfinite(guess.inputs).all())


@pytest.mark.parametrize("layers", [(ONE,), ((16, 3, 1, 1), (4, 3, 2, 1))], ids=["sweep", "together"])
def test_one_seed_one_result(layers: tuple[tuple[int, int, int, int], ...]) -> None:
    seen = observe(convolutions(*layers, shape=(3, 8, 8)), pictures(shape=(3, 8, 8), classes=10))
    first, second = (lg.attack(seen, "recursive", seed=3) for _ in range(2))
    assert torch.equal(first.inputs, second.inputs)
    assert (first.stats.residual, first.stats.layers) == (second.stats.residual, second.stats.layers)
    assert first.stats.evaluations == second.stats.evaluations
    assert first.outcome is second.outcome


def test_the_clock_ends_it() -> None:
    model = lg.load_model("cnn6-d", num_classes=10, input_shape=(3, 32, 32), seed=0)
    seen = observe(model, pictures(shape=(3, 32, 32), classes=10))
    began = time.process_time()
    guess = lg.attack(seen, "recursive", time_limit=0.01)
    assert time.process_time() - began < 20
    assert guess.outcome is Outcome.TIMEOUT
    assert not guess.certified.any()
    assert guess.inputs.shape == (1, 3, 32, 32)
    assert bool(torch.isfinite(guess.inputs).all())
