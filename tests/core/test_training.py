"""LocalTraining: each field's sentence, the number of steps, and the round trip through JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from leakgauge.core import LocalTraining
from leakgauge.core.training import training_from_json
from leakgauge.errors import OptionError

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"steps": 0, "lr": 0.1}, "LocalTraining.steps is 0; expected a whole number >= 1."),
    ({"steps": 1.5, "lr": 0.1}, "LocalTraining.steps is 1.5; expected a whole number >= 1."),
    ({"steps": True, "lr": 0.1}, "LocalTraining.steps is True; expected a whole number >= 1."),
    ({"accumulation": 0}, "LocalTraining.accumulation is 0; expected a whole number >= 1."),
    ({"epochs": 0, "lr": 0.1}, "LocalTraining.epochs is 0; expected a whole number >= 1, or None."),
    ({"batch_size": -2}, "LocalTraining.batch_size is -2; expected a whole number >= 1, or None."),
    ({"lr": 0.0}, "LocalTraining.lr is 0.0; expected a number > 0, or None."),
    ({"lr": float("nan")}, "LocalTraining.lr is nan; expected a number > 0, or None."),
    ({"lr": "0.1"}, "LocalTraining.lr is '0.1'; expected a number > 0, or None."),
    ({"clip_norm": -1.0}, "LocalTraining.clip_norm is -1.0; expected a number > 0, or None."),
    ({"weight_decay": -0.1}, "LocalTraining.weight_decay is -0.1; expected a number >= 0."),
    ({"weight_decay": float("inf")}, "LocalTraining.weight_decay is inf; expected a number >= 0."),
    ({"proximal": -1}, "LocalTraining.proximal is -1; expected a number >= 0."),
    ({"momentum": 1.0}, "LocalTraining.momentum is 1.0; expected a number in [0, 1)."),
    ({"label_smoothing": -0.1}, "LocalTraining.label_smoothing is -0.1; expected a number in [0, 1)."),
    ({"betas": (0.9,)}, "LocalTraining.betas is (0.9,); expected two numbers in [0, 1)."),
    ({"betas": (0.9, 1.0)}, "LocalTraining.betas is (0.9, 1.0); expected two numbers in [0, 1)."),
    ({"betas": 0.9}, "LocalTraining.betas is 0.9; expected a list of numbers."),
    ({"schedule": 0.5}, "LocalTraining.schedule is 0.5; expected a list of numbers."),
    ({"schedule": "cosine"}, "LocalTraining.schedule is 'cosine'; expected a list of numbers."),
    ({"schedule": ()}, "LocalTraining.schedule is (); expected at least one factor."),
    ({"class_weights": 2}, "LocalTraining.class_weights is 2; expected a list of numbers."),
    ({"optimiser": "rmsprop"}, "LocalTraining.optimiser is 'rmsprop'; expected one of sgd, adam, adamw."),
    ({"mode": "training"}, "LocalTraining.mode is 'training'; expected one of eval, train."),
    ({"reduction": "none"}, "LocalTraining.reduction is 'none'; expected one of mean, sum."),
    ({"dtype": "int8"}, "LocalTraining.dtype is 'int8'; expected one of float64, float32, float16, bfloat16."),
    ({"nesterov": True}, "LocalTraining.nesterov is True; expected momentum > 0 beside it."),
    ({"nesterov": 1}, "LocalTraining.nesterov is 1; expected True or False."),
    ({"shuffle": "no"}, "LocalTraining.shuffle is 'no'; expected True or False."),
    ({"drop_last": 0}, "LocalTraining.drop_last is 0; expected True or False."),
    ({"amp": None}, "LocalTraining.amp is None; expected True or False."),
    ({"steps": 3}, "LocalTraining.lr is None, so one gradient is shared; give lr for several steps or epochs."),
    ({"epochs": 1}, "LocalTraining.lr is None, so one gradient is shared; give lr for several steps or epochs."),
]


@pytest.mark.parametrize(("fields", "sentence"), WRONG)
def test_each_field_has_its_sentence(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(OptionError) as caught:
        LocalTraining(**fields)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("fields", "examples", "steps"),
    [
        ({}, 8, 1),
        ({"lr": 0.1, "steps": 5}, 8, 5),
        ({"lr": 0.1, "epochs": 2}, 8, 2),
        ({"lr": 0.1, "epochs": 2, "batch_size": 3}, 8, 6),
        ({"lr": 0.1, "epochs": 2, "batch_size": 3, "drop_last": True}, 8, 4),
        ({"lr": 0.1, "epochs": 2, "batch_size": 3, "accumulation": 2}, 8, 3),
        ({"lr": 0.1, "epochs": 3, "batch_size": 100}, 8, 3),
    ],
)
def test_number_of_steps(fields: dict[str, Any], examples: int, steps: int) -> None:
    assert LocalTraining(**fields).steps_for(examples) == steps


def test_kind_and_one_gradient() -> None:
    assert LocalTraining().kind == "gradient"
    assert LocalTraining(lr=1.0).kind == "delta"
    assert LocalTraining(lr=0.1, momentum=0.9).is_one_gradient
    for fields in ({"steps": 2}, {"batch_size": 2}, {"weight_decay": 0.1}, {"optimiser": "adam"}, {"clip_norm": 1.0}):
        assert not LocalTraining(lr=0.1, **fields).is_one_gradient  # type: ignore[arg-type]


def test_round_trip_through_json() -> None:
    training = LocalTraining(
        lr=0.1, epochs=2, batch_size=4, optimiser="adam", betas=(0.8, 0.99), schedule=(1.0, 0.5), class_weights=(1.0, 2.0)
    )
    assert training_from_json(json.loads(json.dumps(training.to_json()))) == training
    with pytest.raises(OptionError, match="unknown key 'leraning_rate'"):
        training_from_json({"leraning_rate": 0.1})
