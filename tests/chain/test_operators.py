"""The matrix-free maps of a layer against automatic differentiation and dense matrices, over random geometry."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from leakgauge.chain.geometry import ConvGeometry
from leakgauge.chain.operators import ConvOperator, LayerOperator, LinearOperator, block_is_small, operator_of
from leakgauge.chain.trace import trace
from leakgauge.randomness import rng

CONVS: dict[int, type[nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
SAMPLES = 3


@st.composite
def layers(draw: st.DrawFn) -> tuple[nn.Module, tuple[int, ...]]:
    """A linear layer or a convolution in one to three dimensions, and the shape of its input, in float64."""
    axes = draw(st.sampled_from([0, 1, 2, 2, 2, 3]))
    if axes == 0:
        widths = draw(st.tuples(st.integers(1, 7), st.integers(1, 7)))
        return nn.Linear(*widths).double(), widths[:1]
    largest = 4 if axes < 3 else 2

    def each(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(st.integers(low, high)) for _ in range(axes))

    groups = draw(st.sampled_from([1, 1, 2, 3]))
    inputs, outputs = groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 3))
    kernel, dilation, stride = each(1, largest), each(1, 2), each(1, 3)
    if draw(st.booleans()):
        padding: Any = "same"  # uneven where the kernel is even
        stride = (1,) * axes
    else:
        padding = each(0, 2)
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    size = tuple(length + draw(st.integers(0, 5 if axes < 3 else 2)) for length in reach)
    module = CONVS[axes](inputs, outputs, kernel, stride, padding, dilation, groups, bias=draw(st.booleans()))
    return module.double(), (inputs, *size)


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=rng(seed, "operators"), dtype=torch.float64)


def prepared(module: nn.Module, shape: tuple[int, ...], seed: int) -> LayerOperator:
    """The operator of the layer with weights drawn from a seed."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(drawn(*parameter.shape, seed=seed))
    (link,) = trace(nn.Sequential(module), shape).links
    return operator_of(link, {f"0.{name}": parameter.detach() for name, parameter in module.named_parameters()})


def plain(module: nn.Module, inputs: Tensor) -> Tensor:
    """The layer without its bias, by torch."""
    bias = module.bias if isinstance(module.bias, Tensor) else torch.zeros(len(module.weight), dtype=torch.float64)
    return module(inputs) - bias.reshape(-1, *[1] * (inputs.ndim - 2))


def equal(found: Tensor, wanted: Tensor) -> bool:
    scale = float(wanted.abs().max()) if wanted.numel() else 0.0
    return found.shape == wanted.shape and torch.allclose(found, wanted, rtol=1e-10, atol=1e-11 * max(scale, 1.0))


SETTINGS = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


@SETTINGS
@given(layers(), st.integers(0, 10_000))
def test_w_and_its_adjoint(layer: tuple[nn.Module, tuple[int, ...]], seed: int) -> None:
    module, shape = layer
    operator = prepared(module, shape, seed)
    inputs = drawn(SAMPLES, *shape, seed=seed + 1).requires_grad_()
    outputs = plain(module, inputs)
    cotangents = drawn(*outputs.shape, seed=seed + 2)
    (pulled,) = torch.autograd.grad(outputs, inputs, cotangents)
    assert operator.input_shape == shape
    assert operator.output_shape == tuple(outputs.shape[1:])
    assert operator.weight_shape == tuple(module.weight.shape)
    assert equal(operator.apply(inputs.detach()), outputs.detach())
    assert equal(operator.adjoint(cotangents), pulled)


@SETTINGS
@given(layers(), st.integers(0, 10_000))
def test_weight_gradient_is_torchs_and_its_adjoint_is_the_transpose(layer: tuple[nn.Module, tuple[int, ...]], seed: int) -> None:
    module, shape = layer
    operator = prepared(module, shape, seed)
    inputs = drawn(SAMPLES, *shape, seed=seed + 1)
    k = drawn(*operator.output_shape, seed=seed + 2)
    wanted = torch.stack([torch.autograd.grad((module(one[None])[0] * k).sum(), module.weight)[0] for one in inputs])
    found = operator.weight_gradient(inputs, k)
    assert equal(found, wanted)
    turned = drawn(*found.shape, seed=seed + 3)
    back = operator.weight_gradient_adjoint(turned, k)
    assert back.shape == inputs.shape
    left, right = (found * turned).flatten(1).sum(1), (inputs * back).flatten(1).sum(1)
    assert torch.allclose(left, right, rtol=1e-10, atol=1e-10 * float(found.norm() * turned.norm() + 1))


@SETTINGS
@given(layers(), st.integers(0, 10_000))
def test_gradient_block_stands_for_the_dense_matrix(layer: tuple[nn.Module, tuple[int, ...]], seed: int) -> None:
    """split(K x) = block @ split-up x, channel by channel, and `joined` undoes the split of inputs."""
    module, shape = layer
    operator = prepared(module, shape, seed)
    assert block_is_small(operator)
    inputs = drawn(SAMPLES, *shape, seed=seed + 1)
    k = drawn(*operator.output_shape, seed=seed + 2)
    block = operator.gradient_block(k)  # (G, rows, columns)
    groups, rows, columns = block.shape
    right = operator.split(operator.weight_gradient(inputs, k))
    assert right.shape == (groups, rows, right.shape[2])
    if isinstance(operator, LinearOperator):
        unknowns = inputs.T.reshape(1, 1, -1)
    else:
        unknowns = inputs.reshape(SAMPLES, groups, -1, columns).permute(1, 3, 2, 0).reshape(groups, columns, -1)
    assert equal(block @ unknowns, right)
    assert equal(operator.joined(unknowns, SAMPLES), inputs)


@SETTINGS
@given(layers(), st.integers(0, 10_000))
def test_adjoints_of_a_single_unit_are_rows_of_the_dense_matrix(layer: tuple[nn.Module, tuple[int, ...]], seed: int) -> None:
    module, shape = layer
    operator = prepared(module, shape, seed)
    count = torch.Size(shape).numel()
    pixels = torch.eye(count, dtype=torch.float64).reshape(count, *shape)
    dense = operator.apply(pixels).flatten(1)  # (n, m) = W^T
    units = torch.eye(dense.shape[1], dtype=torch.float64).reshape(-1, *operator.output_shape)
    assert equal(operator.adjoint(units).flatten(1), dense.T)
    k = drawn(*operator.output_shape, seed=seed)
    dense = operator.weight_gradient(pixels, k).flatten(1)  # K^T
    units = torch.eye(dense.shape[1], dtype=torch.float64).reshape(-1, *operator.weight_shape)
    assert equal(operator.weight_gradient_adjoint(units, k).flatten(1), dense.T)


def test_the_block_of_uneven_same_padding_by_hand() -> None:
    """Kernel 2 and padding 'same' on four pixels: nothing before, one after."""
    geometry = ConvGeometry.of(nn.Conv1d(1, 1, 2, padding="same"), (4,))
    assert geometry.padding == ((0, 1),)
    weight = torch.tensor([[[2.0, 3.0]]], dtype=torch.float64)
    operator = ConvOperator(weight, geometry)
    inputs = torch.tensor([[[1.0, 10.0, 100.0, 1000.0]]], dtype=torch.float64)
    assert operator.apply(inputs).flatten().tolist() == [32.0, 320.0, 3200.0, 2000.0]
    k = torch.tensor([[1.0, 2.0, 3.0, 4.0]], dtype=torch.float64)
    assert operator.weight_gradient(inputs, k).flatten().tolist() == [1 + 20 + 300 + 4000, 10 + 200 + 3000]
    assert operator.gradient_block(k)[0].tolist() == [[1, 2, 3, 4], [0, 1, 2, 3]]


def test_a_huge_block_is_not_formed(monkeypatch: pytest.MonkeyPatch) -> None:
    geometry = ConvGeometry.of(nn.Conv2d(1, 4, 3), (8, 8))
    operator = ConvOperator(torch.zeros(4, 1, 3, 3, dtype=torch.float64), geometry)
    assert block_is_small(operator)
    monkeypatch.setattr("leakgauge.chain.operators.DENSE_BLOCK", 4 * 9 * 64 - 1)
    assert not block_is_small(operator)
    assert block_is_small(LinearOperator(torch.zeros(4, 4)))
