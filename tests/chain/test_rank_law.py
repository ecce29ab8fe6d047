"""The corrected count against dense matrices, published deficits, and what a null-space move leaves unchanged."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from leakgauge.chain.geometry import ConvGeometry
from leakgauge.chain.rank_law import count_rank, generic_rank
from leakgauge.errors import ShapeError, UnsupportedError
from leakgauge.randomness import rng

CONV = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}


def convolve(inputs: Tensor, weight: Tensor, geometry: ConvGeometry) -> Tensor:
    """torch's own convolution of (N, C, *size) after explicit padding."""
    sides = [side for pair in reversed(geometry.padding) for side in pair]
    return CONV[len(geometry.size)](
        functional.pad(inputs, sides), weight, stride=geometry.stride, dilation=geometry.dilation, groups=geometry.groups
    )


def dense(geometry: ConvGeometry, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """W and K as matrices for random weights and output gradients: torch's convolution and its weight gradient of each pixel."""
    shape = (geometry.out_channels, geometry.in_channels // geometry.groups, *geometry.kernel)
    weight = torch.randn(shape, generator=generator, dtype=torch.float64)
    k = torch.randn(geometry.out_channels, *geometry.output_size, generator=generator, dtype=torch.float64)
    pixels = torch.eye(geometry.unknowns, dtype=torch.float64).reshape(-1, geometry.in_channels, *geometry.size)

    def pairing(weights: Tensor, pixel: Tensor) -> Tensor:
        return (convolve(pixel[None], weights, geometry)[0] * k).sum()

    weight_rows = convolve(pixels, weight, geometry).reshape(geometry.unknowns, -1).T
    gradient_rows = torch.func.vmap(torch.func.grad(pairing), (None, 0))(weight, pixels).reshape(geometry.unknowns, -1).T
    return weight_rows, gradient_rows


def rank(matrix: Tensor) -> int:
    return int(np.linalg.matrix_rank(matrix.numpy(), rtol=1e-12))


@st.composite
def geometries(draw: st.DrawFn) -> ConvGeometry:
    """Kernels 1-5, strides 1-3, padding 0-2 on each side, dilation 1-2, groups, one to three axes, up to 500 unknowns."""
    axes = draw(st.sampled_from([1, 2, 2, 2, 2, 3]))
    low, high, largest = (4, 12, 5) if axes < 3 else (3, 5, 3)
    groups = draw(st.sampled_from([1, 1, 1, 2, 3]))
    pairs = st.tuples(st.integers(0, 2), st.integers(0, 2))

    def each(values: st.SearchStrategy[object]) -> tuple[object, ...]:
        return tuple(draw(values) for _ in range(axes))

    size = each(st.integers(low, high))
    channels = groups * draw(st.integers(1, max(1, min(6, 500 // math.prod(size)) // groups)))
    kernel, stride, padding = each(st.integers(1, largest)), each(st.integers(1, 3)), each(pairs)
    dilation = each(st.sampled_from([1, 1, 2]))
    size = tuple(  # an input that is too small for one position grows
        max(n, d * (k - 1) + 1 - sum(pad)) for n, k, d, pad in zip(size, kernel, dilation, padding, strict=True)
    )
    return ConvGeometry(
        channels, groups * draw(st.integers(1, max(1, 8 // groups))), size, kernel, stride, padding, dilation, groups
    )


exact: list[bool] = []  # for each random setting, whether the formula alone was exact
short: list[bool] = []  # and whether the layer is short of equations


@seed(2021)
@settings(max_examples=400, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(geometries())
def test_the_rank_of_random_settings_is_exact(geometry: ConvGeometry) -> None:
    count, found = count_rank(geometry), generic_rank(geometry)
    true = 0
    for draw in range(5):  # no draw exceeds the generic rank; a nearly singular one falls below it
        weight_rows, gradient_rows = dense(geometry, rng(7, "oracle", draw))
        stacked = torch.cat([weight_rows, gradient_rows])
        true = max(true, rank(stacked))
        if true == found.rank:
            break
    assert count.rank >= true, "the count is never below the rank"
    assert found.rank == true
    assert found.confirmed
    assert (len(weight_rows), len(gradient_rows)) == (count.weight_equations, count.gradient_equations)
    assert count.gradient_rank >= rank(gradient_rows)
    assert count.dead == int((stacked.abs().sum(0) == 0).sum())
    assert found.rank_deficiency >= max(count.dead, count.naive_deficiency)
    exact.append(count.rank == true)
    short.append(true < geometry.unknowns - count.dead)


def test_the_formula_alone_is_exact_nearly_always() -> None:
    """Of the settings above; a quarter at least is not saturated, so that agreement means something."""
    if len(exact) < 400:
        test_the_rank_of_random_settings_is_exact()
    assert len(exact) >= 400
    assert sum(exact) >= 0.97 * len(exact)
    assert sum(short) >= 0.25 * len(short)


def square(channels: int, filters: int, side: int, kernel: int, stride: int, padding: int, axes: int = 2) -> ConvGeometry:
    def each(value: int) -> tuple[int, ...]:
        return (value,) * axes

    return ConvGeometry(channels, filters, each(side), each(kernel), each(stride), ((padding,) * 2,) * axes, each(1))


@pytest.mark.parametrize(
    ("layer", "deficit", "dead"),
    [((6, 4, 2, 0), 222, 0), ((1, 3, 1, 0), 546, 0), ((12, 3, 4, 1), 405, 405), ((12, 5, 2, 0), 93, 93), ((9, 3, 2, 1), 30, 0)],
)
def test_first_layers_on_a_small_picture(layer: tuple[int, int, int, int], deficit: int, dead: int) -> None:
    """16x16 RGB, (filters, kernel, stride, padding), measured by dense decompositions."""
    filters, kernel, stride, padding = layer
    geometry = square(3, filters, 16, kernel, stride, padding)
    for count in (count_rank(geometry), generic_rank(geometry)):
        assert count.rank_deficiency == deficit
        assert count.dead == dead
    stacked = torch.cat(dense(geometry, rng(0, "golden")))
    assert geometry.unknowns - rank(stacked) == deficit


LAYERS = ((4, 2, 2), (3, 2, 1), (3, 1, 1), (3, 1, 1), (3, 2, 1), (3, 1, 1))  # kernel, stride, padding of CNN6


@pytest.mark.parametrize(
    ("side", "second", "naive", "corrected"),
    [
        (32, 36, {}, {}),
        (32, 20, {}, {2: 280}),
        (48, 36, {}, {}),
        (64, 36, {}, {2: 72}),
        (96, 36, {2: 2424}, {2: 3720}),
        (128, 36, {2: 7608}, {2: 8904, 5: 4068}),
        (224, 36, {2: 32376, 5: 42404}, {2: 33672, 5: 46500}),
    ],
)
def test_the_table_of_cnn6(side: int, second: int, naive: dict[int, int], corrected: dict[int, int]) -> None:
    """Deficits layer by layer; `second` filters in the second layer (20 in CNN6-d)."""
    channels, plain, found = 3, {}, {}
    for number, (filters, (kernel, stride, padding)) in enumerate(zip((12, second, 36, 36, 64, 128), LAYERS, strict=True), 1):
        geometry = square(channels, filters, side, kernel, stride, padding)
        count = generic_rank(geometry)
        plain |= {number: count.naive_deficiency} if count.naive_deficiency else {}
        found |= {number: count.rank_deficiency} if count.rank_deficiency else {}
        channels, (side, _) = filters, geometry.output_size
    assert plain == naive
    assert found == corrected


def test_the_critical_layer_of_cnn6_d() -> None:
    count = count_rank(square(12, 20, 17, 3, 2, 1))
    assert (count.weight_equations, count.redundancy, count.rank) == (1620, 400, 3188)
    assert count.naive_deficiency == 0


def test_large_layers_are_counted_at_once() -> None:
    started = time.perf_counter()
    for geometry in (square(3, 64, 224, 7, 2, 3), square(3, 64, 224, 16, 16, 0), square(64, 64, 56, 3, 1, 1)):
        assert not generic_rank(geometry).confirmed
    assert generic_rank(square(1, 4, 96, 3, 2, 1, axes=3)).rank_deficiency > 0
    assert time.perf_counter() - started < 1.0


def test_the_same_question_has_the_same_answer() -> None:
    geometry = square(2, 3, 7, 2, 2, 1)
    first = generic_rank(geometry)
    generic_rank.cache_clear()
    assert generic_rank(geometry) == first


def test_a_move_in_the_null_space_changes_no_gradient_of_this_layer_or_later() -> None:
    """The second layer is short of equations; its input moves by its own norm, and everything from there on stays as it was."""
    generator = rng(3, "null space")
    first = ConvGeometry(4, 5, (8, 8), (3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1))
    suffix = nn.Sequential(
        nn.Conv2d(4, 5, 3, stride=2, padding=1), nn.Tanh(), nn.Conv2d(5, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(12, 4)
    ).double()
    inputs = torch.randn(1, 4, 8, 8, generator=generator, dtype=torch.float64)

    def gradients(at: Tensor) -> Tensor:
        loss = functional.cross_entropy(suffix(at), torch.tensor([1]))
        return torch.cat([one.reshape(-1) for one in torch.autograd.grad(loss, list(suffix.parameters()))])

    convolution = suffix[0]
    z = convolution(inputs).detach().requires_grad_()
    (k,) = torch.autograd.grad(functional.cross_entropy(suffix[1:](z), torch.tensor([1])), z)
    pixels = torch.eye(256, dtype=torch.float64).reshape(-1, 4, 8, 8)

    def pairing(weight: Tensor, pixel: Tensor) -> Tensor:
        return (convolve(pixel[None], weight, first) * k).sum()

    rows = torch.func.vmap(torch.func.grad(pairing), (None, 0))(convolution.weight.detach(), pixels).reshape(256, -1).T
    system = torch.cat([convolve(pixels, convolution.weight.detach(), first).reshape(256, -1).T, rows])
    found = rank(system)
    assert found == generic_rank(first).rank < 256
    _, _, right = torch.linalg.svd(system)
    here = gradients(inputs)
    size = float(inputs.norm())
    for basis, least, most in ((right[found:], 0.0, 1e-12), (right[:found], 1e-3, math.inf)):
        direction = basis.T @ torch.randn(len(basis), generator=generator, dtype=torch.float64)
        move = (direction / direction.norm() * size).reshape_as(inputs)
        change = float((gradients(inputs + move) - here).norm() / here.norm())
        assert least <= change < most


def test_geometry_of_modules() -> None:
    same = ConvGeometry.of(nn.Conv2d(2, 3, (4, 3), padding="same"), (9, 7))
    assert same.padding == ((1, 2), (1, 1))
    assert same.output_size == (9, 7)
    plain = ConvGeometry.of(nn.Conv1d(4, 6, 3, stride=2, dilation=2, groups=2, padding="valid"), [11])
    assert (plain.output_size, plain.unknowns, plain.weight_equations, plain.gradient_equations) == ((4,), 44, 24, 36)
    module = nn.Conv3d(1, 2, 3, padding=(0, 1, 2))
    assert ConvGeometry.of(module, (5, 5, 5)).output_size == tuple(module(torch.zeros(1, 1, 5, 5, 5)).shape[2:])


@pytest.mark.parametrize(
    "module", [nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular"), nn.ConvTranspose2d(1, 1, 3), nn.ReLU()]
)
def test_what_has_no_geometry(module: nn.Module) -> None:
    with pytest.raises(UnsupportedError, match=r"only zero padding|not ConvTranspose2d|not ReLU"):
        ConvGeometry.of(module, (8, 8))


def test_a_geometry_that_cannot_be() -> None:
    with pytest.raises(ShapeError, match="no output"):
        square(1, 1, 2, 5, 1, 0)
    with pytest.raises(ShapeError, match="do not divide"):
        ConvGeometry(3, 4, (8,), (3,), (1,), ((0, 0),), (1,), groups=2)
    with pytest.raises(ShapeError, match="one to three axes"):
        ConvGeometry(3, 4, (8, 8), (3,), (1,), ((0, 0),), (1,))
    with pytest.raises(ShapeError, match="positive sizes"):
        ConvGeometry(3, 4, (8,), (3,), (0,), ((0, 0),), (1,))
