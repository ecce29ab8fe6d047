"""The forward half of matching against autograd, at the truth, under torch.func, and where there is none."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from attack_cases import observe, pictures
from torch import Tensor, nn
from torch.nn import functional

from leakgauge.attacks.matching.forward import Forward, forward_of
from leakgauge.attacks.matching.target import target_of
from leakgauge.core import Observation
from leakgauge.defences import Clip, GaussianNoise
from leakgauge.models import load_model
from leakgauge.randomness import rng
from leakgauge.truth import Batch

EXACT = {"mode": "train", "dtype": "float64"}
LOSSES = {"cross_entropy": 4, "mse": 3, "binary_cross_entropy": 1}


def residual_network(classes: int = 4) -> nn.Module:
    return load_model("shallow-resnet:width=4", num_classes=classes, input_shape=(1, 8, 8), seed=0).double()


def case(count: int = 1, loss: str = "cross_entropy", **training: Any) -> tuple[Batch, Observation]:
    batch = pictures(count, classes=max(2, LOSSES[loss]))
    return batch, observe(residual_network(LOSSES[loss]), batch, labels=True, loss=loss, **{**EXACT, **training})


def forward_for(seen: Observation, labels: Tensor | None, statistics: float = 0.0, **more: Any) -> tuple[Forward | None, str]:
    return forward_of(seen, target_of(seen, "observed", torch.float64, "cpu"), labels, statistics, **more)


def found(seen: Observation, labels: Tensor, statistics: float = 0.0) -> Forward:
    half, why = forward_for(seen, labels, statistics)
    assert half is not None, why
    return half


def head_gradient(module: nn.Module, inputs: Tensor, labels: Tensor, loss: str, reduction: str = "mean") -> tuple[Tensor, Tensor]:
    """The last layer's gradient by autograd through torch's own module and loss."""
    output = module(inputs)
    if loss == "cross_entropy":
        value = functional.cross_entropy(output, labels, reduction=reduction)
    elif loss == "mse":
        value = functional.mse_loss(output, functional.one_hot(labels, output.shape[1]).double(), reduction=reduction)
    else:
        value = functional.binary_cross_entropy_with_logits(output[:, 0], labels.double(), reduction=reduction)
    weight, bias = torch.autograd.grad(value, [module.linear.weight, module.linear.bias])  # type: ignore[union-attr, list-item]
    return weight, bias


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("loss", LOSSES)
def test_the_residual_is_the_last_layers_gradient_by_autograd(loss: str, count: int, reduction: str) -> None:
    batch, seen = case(count, loss, reduction=reduction)
    half = found(seen, batch.labels)
    module = copy.deepcopy(seen.model).double().train()
    candidate = torch.rand(batch.inputs.shape, generator=rng(1), dtype=torch.float64)
    observed = [seen.tensors[f"linear.{name}"].double() for name in ("weight", "bias")]
    size = torch.cat([part.reshape(-1) for part in observed]).norm()
    weight, bias = head_gradient(module, candidate, batch.labels, loss, reduction)
    expected = torch.cat([(half.rows.T @ (weight - observed[0]) / size).reshape(-1), (bias - observed[1]) / size])
    torch.testing.assert_close(half.residual(candidate.reshape(-1)), expected, rtol=1e-10, atol=1e-10)
    assert float(expected.norm()) > 1e-3


@pytest.mark.parametrize("count", [1, 3])
def test_with_recovered_statistics_batch_norm_is_the_clients_own_map(count: int) -> None:
    batch, seen = case(count)
    half = found(seen, batch.labels, 1.0)
    module = copy.deepcopy(seen.model).double()
    for name, statistics in seen.batch_norm.items():
        layer = module.get_submodule(name)
        layer.running_mean, layer.running_var = statistics.mean.double(), statistics.var.double()
    candidate = torch.rand(batch.inputs.shape, generator=rng(1), dtype=torch.float64)
    observed = [seen.tensors[f"linear.{name}"].double() for name in ("weight", "bias")]
    size = torch.cat([part.reshape(-1) for part in observed]).norm()
    weight, bias = head_gradient(module.eval(), candidate, batch.labels, "cross_entropy")
    expected = torch.cat([(half.rows.T @ (weight - observed[0]) / size).reshape(-1), (bias - observed[1]) / size])
    off = half.residual(candidate.reshape(-1))
    torch.testing.assert_close(off[: len(expected)], expected, rtol=1e-10, atol=1e-10)
    assert len(off) == len(expected) + sum(2 * len(entry.mean) for entry in seen.batch_norm.values())


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("statistics", [0.0, 1.0])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("loss", LOSSES)
def test_the_truth_leaves_nothing(loss: str, count: int, statistics: float, reduction: str) -> None:
    batch, seen = case(count, loss, reduction=reduction)
    half = found(seen, batch.labels, statistics)
    truth = batch.inputs.double().reshape(-1)
    assert float(half.residual(truth).norm()) < 1e-10
    assert float(half.residual(truth + 0.1 * torch.randn(truth.shape, generator=rng(2))).norm()) > 1e-2


def test_several_small_steps_are_taken_together() -> None:
    """The gradient at the middle of the way, mini-batches apart: at a small learning rate the truth nearly fits."""
    batch, seen = case(4, lr=1e-3, steps=4, batch_size=2, shuffle=False)
    half = found(seen, batch.labels, 1.0)
    assert half.network.groups == 2
    truth = batch.inputs.double().reshape(-1)
    off = float(half.residual(truth).norm())
    assert off < 0.05
    assert off < 0.1 * float(half.residual(batch.inputs.flip(0).double().reshape(-1)).norm())


@pytest.mark.parametrize("statistics", [0.0, 1.0])
def test_it_works_under_transforms(statistics: float) -> None:
    batch, seen = case(3)
    half = found(seen, batch.labels, statistics)
    points = torch.rand(3, batch.inputs.numel(), generator=rng(1), dtype=torch.float64)
    many = torch.func.vmap(half.residual)(points)
    for row, point in zip(many, points, strict=True):
        torch.testing.assert_close(row, half.residual(point), rtol=1e-9, atol=1e-11)
    direction = torch.randn(points[0].shape, generator=rng(2), dtype=torch.float64)
    value, product = torch.func.jvp(half.residual, (points[0],), (direction,))
    step = 1e-6
    numeric = (half.residual(points[0] + step * direction) - half.residual(points[0] - step * direction)) / (2 * step)
    torch.testing.assert_close(product, numeric, rtol=1e-4, atol=1e-6)
    cotangent = torch.randn(value.shape, generator=rng(3), dtype=torch.float64)
    (pulled,) = torch.func.vjp(half.residual, points[0])[1](cotangent)
    torch.testing.assert_close(product @ cotangent, direction @ pulled)


def test_noisy_statistics_leave_batch_norm_to_the_candidate() -> None:
    batch = pictures(1)
    modes = []
    for std in (1e-6, 1.0):
        seen = observe(residual_network(), batch, labels=True, defences=(GaussianNoise(std, buffers=True),), **EXACT)
        modes.append(found(seen, batch.labels, 1.0).network.mode)
    assert modes == ["eval", "train"]


def headless() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def covered() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.Tanh())


def test_there_is_none_without_a_linear_head() -> None:
    batch = pictures(1)
    half, why = forward_for(observe(headless(), batch, labels=True), batch.labels)
    assert half is None
    assert "no linear layer" in why
    half, why = forward_for(observe(covered(), batch, labels=True), batch.labels)
    assert half is None
    assert "'1' is not the network's output" in why


def test_there_is_none_where_the_head_is_withheld() -> None:
    batch = pictures(1)
    seen = observe(residual_network(), batch, labels=True, withhold=("linear.weight", "linear.bias"), **EXACT)
    half, why = forward_for(seen, batch.labels)
    assert half is None
    assert "not shared" in why


def test_there_is_none_for_open_labels_a_clip_other_optimisers_or_no_gradient() -> None:
    batch, seen = case()
    assert forward_for(seen, None) == (None, "labels are optimised with the pixels")
    assert forward_for(seen, batch.labels, gradient=False) == (None, "the gradient is left out")
    clipped = observe(residual_network(), batch, labels=True, defences=(Clip(1.0),), **EXACT)
    assert forward_for(clipped, batch.labels) == (None, "clip changes the scale of the last layer's gradient")
    _, adam = case(optimiser="adam", lr=1e-3, steps=2)
    assert forward_for(adam, batch.labels) == (None, "several steps of adam are no sum of gradients")
