"""The BatchNorm term: nothing at the truth after any number of steps, and weighed by declared noise."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from attack_cases import observe, pictures
from torch import Tensor, nn

from leakgauge.attacks.matching.statistics import FLOOR, TRUST, Statistics, layer_target, noise_on_statistics, statistics_of
from leakgauge.attacks.matching.target import target_of
from leakgauge.core import Observation, Update
from leakgauge.defences import Clip, GaussianNoise, LaplacianNoise, PercentileNoise
from leakgauge.defences.base import Defence
from leakgauge.local.replay import replay
from leakgauge.models import load_model
from leakgauge.randomness import rng

LIKE = torch.zeros((), dtype=torch.float64)


def network(width: int = 4) -> nn.Module:
    return load_model(f"shallow-resnet:width={width}", num_classes=4, input_shape=(1, 8, 8), seed=0).double()


def observed(steps: int = 1, defences: tuple[Defence, ...] = (), **more: Any) -> Observation:
    training = {"mode": "train", "dtype": "float64", "lr": 0.1, "steps": steps, "batch_size": 2, "shuffle": False, **more}
    return observe(network(), pictures(4), labels=True, defences=defences, **training)


def buffers_after(seen: Observation, inputs: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Buffers before and after a replay of the client's steps on a candidate."""
    target = target_of(seen, "observed", torch.float64, "cpu")
    done = replay(
        target.network, inputs.double(), pictures(4).labels, loss=seen.loss, training=target.training,
        parameters=target.parameters, buffers=target.buffers, graph="none",
    )  # fmt: skip
    return target.buffers, done.buffers


def residual_of(seen: Observation, term: Statistics, inputs: Tensor) -> Tensor:
    """The term's residual for a candidate that is replayed as the attack does."""
    return term.residual(*buffers_after(seen, inputs))


@pytest.mark.parametrize("momentum", [0.1, 0.7])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_truth_leaves_nothing_after_several_steps(steps: int, momentum: float) -> None:
    model = network()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = momentum
    batch = pictures(4)
    seen = observe(model, batch, labels=True, mode="train", dtype="float64", lr=0.1, steps=steps, batch_size=2, shuffle=False)
    term = statistics_of(seen, 1.0, LIKE)
    assert term is not None
    assert float(residual_of(seen, term, batch.inputs).norm()) < 1e-12
    assert float(residual_of(seen, term, batch.inputs * 0.9).norm()) > 1e-2
    assert float(residual_of(seen, term, batch.inputs.flip(-1)).norm()) > 1e-3


def test_the_order_of_mini_batches_counts() -> None:
    batch, seen = pictures(4), observed(3)
    term = statistics_of(seen, 1.0, LIKE)
    assert term is not None
    assert float(residual_of(seen, term, batch.inputs.flip(0)).norm()) > 1e-3


def test_its_size_is_the_weighted_mean_of_squared_deviations() -> None:
    batch, seen = pictures(4), observed()
    term = statistics_of(seen, 0.3, LIKE)
    assert term is not None
    other = batch.inputs * 0.8
    found = float(residual_of(seen, term, other).square().sum())
    _, elsewhere = buffers_after(seen, other)
    parts = []
    for name, target in term.layers.items():
        before, momentum = dict(seen.model.named_buffers()), 0.1
        moved = {
            part: (elsewhere[f"{name}.{part}"] - (1 - momentum) * before[f"{name}.{part}"].double()) / momentum
            for part in ("running_mean", "running_var")
        }
        own = {
            part: (seen.buffers[f"{name}.{part}"].double() - (1 - momentum) * before[f"{name}.{part}"].double()) / momentum
            for part in moved
        }
        variance = own["running_var"] + FLOOR * own["running_var"].mean() + 1e-12
        first = (moved["running_mean"] - own["running_mean"]).square() / variance
        second = (moved["running_var"] - own["running_var"]).square() / variance.square()
        parts.append((first + second).mean())
        torch.testing.assert_close(target.mean, own["running_mean"], rtol=1e-9, atol=1e-9)
    assert found == pytest.approx(0.3 * float(torch.stack(parts).mean()), rel=1e-6)


def test_there_is_no_term_without_weight_or_statistics() -> None:
    seen = observed()
    assert statistics_of(seen, 0.0, LIKE) is None
    assert statistics_of(replace(seen, batch_norm={}), 1.0, LIKE) is None
    still = observe(network(), pictures(4), labels=True, mode="eval")
    assert statistics_of(still, 1.0, LIKE) is None


AMPLIFICATION = {1: 10.0, 2: 1 / (1 - 0.81)}
NOISES: list[tuple[tuple[Defence, ...], float]] = [
    ((GaussianNoise(0.01, buffers=True),), 0.01),
    ((LaplacianNoise(0.01, buffers=True),), 0.01 * math.sqrt(2)),
    ((GaussianNoise(0.03, buffers=True), LaplacianNoise(0.02, buffers=True)), math.hypot(0.03, 0.02 * math.sqrt(2))),
    ((GaussianNoise(0.01),), 0.0),
    ((LaplacianNoise(0.01),), 0.0),
    ((PercentileNoise(0.1, buffers=False),), 0.0),
    ((Clip(0.1),), 0.0),
    ((), 0.0),
]


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize(("defences", "std"), NOISES, ids=lambda value: str(value)[:60])
def test_declared_noise_on_the_buffers_is_amplified(defences: tuple[Defence, ...], std: float, steps: int) -> None:
    noise = noise_on_statistics(observed(steps, defences, batch_size=4))
    assert len(noise) == 3
    for value in noise.values():
        assert value == pytest.approx(std * AMPLIFICATION[steps], rel=1e-6)


@pytest.mark.parametrize("sigma0", [0.01, 0.1, 0.5, 1.0, 3.0])
def test_percentile_noise_is_estimated_from_the_noisy_update(sigma0: float) -> None:
    """Its buffers switch is on by default, and a record leaves out switches at their default."""
    defence = PercentileNoise(sigma0)
    assert defence.buffers
    model = network(width=8)
    clean, noisy = (
        observe(model, pictures(4), labels=True, mode="train", lr=0.1, defences=defences) for defences in ((), (defence,))
    )
    std = defence.scale_for(Update(tensors=dict(clean.tensors), kind="delta"))
    for name, found in noise_on_statistics(noisy).items():
        assert found / noisy.batch_norm[name].amplification == pytest.approx(std, rel=0.2)


def test_the_largest_percentile_is_estimated_too() -> None:
    model, defence = network(width=8), PercentileNoise(3.0, percentile=100.0)
    clean = observe(model, pictures(4), labels=True, mode="train", lr=0.1)
    noisy = observe(model, pictures(4), labels=True, mode="train", lr=0.1, defences=(defence,))
    std = defence.scale_for(Update(tensors=dict(clean.tensors), kind="delta"))
    for name, found in noise_on_statistics(noisy).items():
        assert found / noisy.batch_norm[name].amplification == pytest.approx(std, rel=0.4)


def test_noise_takes_weight_from_the_term_unless_the_attack_ignores_it() -> None:
    batch = pictures(4)
    seen = observed(defences=(GaussianNoise(0.05, buffers=True),))
    fitted, plain = (statistics_of(seen, 1.0, LIKE, adaptive) for adaptive in (True, False))
    assert fitted is not None
    assert plain is not None
    at_truth = [float(residual_of(seen, term, batch.inputs).norm()) for term in (fitted, plain)]
    assert at_truth[0] < 0.2 * at_truth[1]


def test_noise_widens_the_scale_by_which_differences_are_measured() -> None:
    mean, var = torch.randn(5, generator=rng(0)), torch.ones(5)
    scale = layer_target(mean, var, LIKE).scale
    noise = TRUST * math.sqrt(1 + FLOOR)
    target = layer_target(mean, var, LIKE, noise)
    expected = (1 + FLOOR) + noise**2 / TRUST**2 + noise / TRUST
    torch.testing.assert_close(target.scale.square(), torch.full((5,), expected, dtype=torch.float64), rtol=1e-6, atol=1e-9)
    assert bool((target.scale > scale).all())
