"""What an attack may say about its own result, without the truth."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from attack_cases import lenet, observe, pictures
from torch import nn

import leakgauge as lg
from leakgauge.attacks.verify import agrees, has_signal, relative_residual
from leakgauge.core import Outcome
from leakgauge.errors import UnsupportedError
from leakgauge.randomness import rng

MATCHING = ("dlg", "idlg", "inverting-gradients", "mu-2022")


def run(seen: lg.Observation, name: str = "dlg", budget: int = 400, **options: object) -> lg.Reconstruction:
    return lg.attack(seen, name, budget=budget, device="cpu", **options)


@pytest.mark.parametrize("name", MATCHING)
def test_a_zero_update_has_no_signal(name: str) -> None:
    seen = observe(lenet(), pictures(2), labels=True)
    silent = dataclasses.replace(seen, tensors={key: torch.zeros_like(part) for key, part in seen.tensors.items()})
    assert has_signal(seen)
    assert not has_signal(silent)
    guess = run(silent, name)
    assert guess.outcome is Outcome.NO_GRADIENT_SIGNAL
    assert not guess.explains
    assert torch.equal(guess.inputs, torch.full_like(guess.inputs, 0.5))
    assert guess.inputs.shape == (2, 1, 8, 8)
    assert "nothing to attack" in guess.stats.cause
    with pytest.raises(UnsupportedError, match="needs an ImageSpec; the observation has none"):
        run(dataclasses.replace(silent, spec=None), name)


@pytest.mark.parametrize("factor", [100.0, 1000.0])
def test_a_saturated_network_is_named(factor: float) -> None:
    model = lenet()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(factor)
    batch = pictures(1)
    guess = run(observe(model, batch), labels="joint")
    assert guess.outcome in (Outcome.SATURATED, Outcome.STEP_LIMIT, Outcome.INCONSISTENT, Outcome.NO_GRADIENT_SIGNAL)
    assert guess.outcome is not Outcome.CONVERGED or guess.explains
    assert guess.stats.cause


def test_a_network_that_does_not_see_its_input_is_saturated() -> None:
    model = lg.load_model("mlp:hidden=8,activation=sigmoid", num_classes=3, input_shape=(1, 8, 8), seed=0)
    with torch.no_grad():
        model.get_parameter("linear1.bias").fill_(80.0)
    guess = run(observe(model, pictures(1, classes=3)), "inverting-gradients", budget=40)
    assert guess.outcome is Outcome.SATURATED
    assert "picture" in guess.stats.cause
    assert not guess.certified.any()


class Overflow(nn.Module):
    """Finite for the client's dim picture, not finite wherever a search may start."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        values = inputs.flatten(1)
        return self.linear(values) * torch.where(values.sum(1, keepdim=True) > 1, float("inf"), 1.0)


def test_values_that_are_not_finite_are_named() -> None:
    torch.manual_seed(0)
    spec = lg.ImageSpec((1, 8, 8))
    batch = lg.Batch(torch.full((1, 1, 8, 8), 1e-3), torch.tensor([1]), spec)
    seen = observe(Overflow(), batch, labels=True)
    for name in ("inverting-gradients", "mu-2022"):
        guess = run(seen, name, budget=60, start="uniform")
        assert guess.outcome is Outcome.NONFINITE
        assert "No restart ever had a finite objective" in guess.stats.cause
        assert not guess.explains
        assert all(outcome is Outcome.NONFINITE for outcome in guess.stats.restart_outcomes)


@pytest.mark.parametrize("name", MATCHING)
def test_a_small_budget_ends_at_its_limit(name: str) -> None:
    guess = run(observe(lenet(), pictures(1)), name, budget=8)
    assert guess.outcome is Outcome.STEP_LIMIT
    assert not guess.explains
    assert "away from the update" in guess.stats.cause
    assert float(guess.confidence.max()) == 0


def test_an_explained_update_that_counting_leaves_open() -> None:
    """Four outputs of a small layer cannot determine 64 pixels, and many pictures explain them."""
    model = nn.Sequential(nn.Conv2d(1, 1, 8), nn.Flatten(), nn.Linear(1, 3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=rng(0)) - 0.5)
    batch = pictures(2, classes=3)
    seen = observe(model, batch, labels=True)
    bound = lg.counting_bound(model, (1, 8, 8), 2)
    assert not bound.determinable
    guess = run(seen, "mu-2022", budget=3000)
    assert guess.explains
    assert guess.outcome is Outcome.UNDERDETERMINED
    assert "cannot be determined from the update without a prior" in guess.stats.cause
    assert not guess.certified.any()


@pytest.mark.parametrize("defence", [lg.GaussianNoise(1e-3), lg.LaplacianNoise(1e-3), lg.Prune(0.5), lg.HalfPrecision()], ids=str)
def test_a_defended_update_is_not_called_explained(defence: lg.GaussianNoise) -> None:
    seen = observe(lenet(), pictures(1), defences=(defence,))
    guess = run(seen, "dlg", budget=600)
    assert not guess.explains
    assert guess.outcome in (Outcome.INCONSISTENT, Outcome.STEP_LIMIT)
    assert guess.outcome is Outcome.INCONSISTENT or guess.stats.residual >= 1
    if guess.outcome is Outcome.INCONSISTENT:
        assert defence.name in guess.stats.cause


def test_noise_that_the_attacker_knows_of_is_the_cause() -> None:
    guess = run(observe(lenet(), pictures(1), defences=(lg.GaussianNoise(1e-3),)), "mu-2022", budget=600)
    assert guess.outcome is Outcome.INCONSISTENT
    assert "gaussian-noise" in guess.stats.cause


def test_relative_residual_and_rounding() -> None:
    target = {"a": torch.tensor([3.0, 4.0])}
    assert relative_residual({"a": torch.tensor([3.0, 4.0]), "b": torch.ones(2)}, target) == 0
    assert relative_residual({"a": torch.zeros(2)}, target) == pytest.approx(1)
    seen = observe(lenet(), pictures(1))
    half = observe(lenet(), pictures(1), dtype="bfloat16")
    double = observe(lenet(), pictures(1), dtype="float64")
    assert agrees(1e-5, seen, "float32")
    assert not agrees(1e-4, seen, "float32")
    assert agrees(1e-2, half, "float64")
    assert not agrees(1e-8, double, "float64")
    assert agrees(1e-5, double, "float32"), "an attack in single precision cannot see more"


def test_outcomes_speak_in_sentences() -> None:
    assert all(outcome.value[0].isupper() and outcome.value.endswith(".") for outcome in Outcome)
    assert not any("success" in outcome.value.lower() or "SUCCESS" in outcome.name for outcome in Outcome)
