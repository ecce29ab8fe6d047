"""The control never looks at the update."""

from __future__ import annotations

import pytest
import torch
from attack_cases import lenet, observe, pictures
from hypothesis import given, settings
from hypothesis import strategies as st

import leakgauge as lg
from leakgauge.attacks.control import control_pixels
from leakgauge.core import ImageSpec, Outcome
from leakgauge.errors import OptionError, ShapeError
from leakgauge.randomness import rng

SPEC = ImageSpec((1, 8, 8))


def public(count: int = 6, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, *SPEC.shape, generator=rng(seed, "public"))


@pytest.mark.parametrize("rule", ["best", "grey", "mean", "picture"])
def test_two_updates_give_one_control(rule: str) -> None:
    pixels = public()
    guesses = []
    for seed in (0, 1):
        seen = observe(lenet(seed), pictures(2, seed), labels=bool(seed), lr=0.1 if seed else None)
        guesses.append(lg.attack(seen, "control", seed=seed, rule=rule, public=pixels))
    one, other = guesses
    assert torch.equal(one.inputs, other.inputs)
    assert one.inputs.shape == (2, *SPEC.shape)
    assert one.labels is None
    assert other.labels is None
    assert one.outcome is other.outcome is Outcome.UNDERDETERMINED
    assert not one.explains
    assert not one.certified.any()
    assert one.stats.notes == other.stats.notes


def test_rules() -> None:
    pixels = public()
    assert torch.equal(control_pixels(SPEC, "grey", pixels)[1], torch.full(SPEC.shape, 0.5))
    torch.testing.assert_close(control_pixels(SPEC, "mean", pixels)[1], pixels.mean(0))
    name, picture = control_pixels(SPEC, "picture", pixels)
    assert name == "the most central of 6 public pictures"
    totals = [sum(float((a - b).square().mean()) for b in pixels) for a in pixels]
    assert torch.equal(picture, pixels[totals.index(min(totals))])
    assert control_pixels(SPEC)[0] == "mid-grey"


@settings(max_examples=20, deadline=None)
@given(st.integers(3, 7), st.integers(0, 1000), st.floats(0.05, 1.0))
def test_best_is_the_smallest_error_on_the_public_pictures(count: int, seed: int, contrast: float) -> None:
    pixels = 0.2 + contrast * (public(count, seed) - 0.2)
    errors = {
        "grey": float((pixels - 0.5).square().mean()),
        "mean": sum(float((pixels[i] - pixels[torch.arange(count) != i].mean(0)).square().mean()) for i in range(count)) / count,
    }
    chosen = control_pixels(SPEC, "picture", pixels)[1]
    errors["picture"] = float((pixels - chosen).square().mean()) * count / (count - 1)
    best = min(errors, key=lambda rule: errors[rule])
    assert control_pixels(SPEC, "best", pixels)[0] == control_pixels(SPEC, best, pixels)[0]


def test_it_is_in_model_space() -> None:
    batch = pictures(1)
    spec = ImageSpec(SPEC.shape, mean=0.3, std=0.2)
    batch = lg.Batch(spec.normalise(batch.inputs), batch.labels, spec)
    guess = lg.attack(observe(lenet(), batch), "control")
    torch.testing.assert_close(guess.inputs, torch.full((1, *SPEC.shape), 1.0))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"rule": "median"}, OptionError, "no control rule 'median'; expected one of best, grey, mean, picture"),
        ({"rule": "mean"}, OptionError, "The control rule 'mean' needs public pictures"),
        ({"public": torch.rand(2, 3, 8, 8)}, ShapeError, r"public pictures have shape \(3, 8, 8\); expected \(1, 8, 8\)"),
    ],
)
def test_wrong_use_is_named(options: dict, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        lg.attack(observe(lenet(), pictures(1)), "control", **options)
