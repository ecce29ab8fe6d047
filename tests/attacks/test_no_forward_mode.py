"""A network with an operation that torch.func cannot follow: bn-matching goes on without Gauss-Newton and says so."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import leakgauge as lg
from leakgauge.attacks.matching.warm import UNSETTLED
from leakgauge.local.derivatives import lacks_derivative


class OwnTanh(torch.autograd.Function):
    """Written in the old style, without setup_context; twice differentiable in reverse mode."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor) -> Tensor:
        ctx.save_for_backward(inputs)
        return inputs.tanh()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        (inputs,) = ctx.saved_tensors
        return slope * (1 - inputs.tanh().square())


class OwnActivation(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return OwnTanh.apply(inputs)  # type: ignore[no-untyped-call, no-any-return]


def network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first, last = nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.Linear(512, 3)
    return nn.Sequential(first, nn.BatchNorm2d(8), OwnActivation(), nn.Flatten(), last)


@pytest.mark.parametrize("name", ["dlg", "idlg"])
def test_several_restarts_are_searched_one_by_one(name: str) -> None:
    batch, model = lg.load_data("demo:cat?size=16&grey=true"), network()
    seen = lg.ThreatModel.honest_but_curious(labels=True).observe(lg.Client(model).train(batch), model, batch.spec)
    guess = lg.attack(seen, name, budget=400, device="cpu", restarts=2)
    assert guess.stats.restarts == 2
    assert float(lg.score(batch, guess).psnr) > 18


def test_bn_matching_goes_on_and_says_so() -> None:
    batch, model = lg.load_data("demo:cat?size=16&grey=true"), network()
    update = lg.Client(model, training=lg.LocalTraining(mode="train", lr=1e-2)).train(batch)
    seen = lg.ThreatModel.honest_but_curious(labels=True).observe(update, model, batch.spec)
    guess = lg.attack(seen, "bn-matching", budget=200, device="cpu")
    assert UNSETTLED in guess.stats.notes
    assert float(lg.score(batch, guess).psnr) > 20


@pytest.mark.parametrize("error", [NotImplementedError("x"), RuntimeError("no forward AD"), RuntimeError("use with functorch")])
def test_what_counts_as_a_missing_derivative(error: Exception) -> None:
    assert lacks_derivative(error)


@pytest.mark.parametrize("error", [None, RuntimeError("out of memory"), ValueError("forward")])
def test_what_does_not(error: Exception | None) -> None:
    assert not lacks_derivative(error)
