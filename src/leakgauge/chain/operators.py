"""The linear maps of one layer, matrix-free: W and its adjoint, and the gradient rows K of a known output gradient.

With output gradient k the weight gradient is g = K x, where row (o, i, u) of K is the sum over positions p of
k[o, p] x[i, stride p + dilation u - padding]. K is the same block for every input channel of a group, so that a small matrix
`gradient_block` stands for all of it. Derivation: Zhu & Blaschko 2021, section 3; the block structure is ours.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from leakgauge.chain.geometry import ConvGeometry
from leakgauge.chain.link import Link, State

DENSE_BLOCK = 30_000_000  # numbers in a gradient block that is still formed


class LayerOperator(ABC):
    """W and K of one layer; S samples stand side by side in the first dimension."""

    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    weight_shape: tuple[int, ...]

    @abstractmethod
    def apply(self, inputs: Tensor) -> Tensor:
        """W x: (S, *input) -> (S, *output), without the bias."""

    @abstractmethod
    def adjoint(self, outputs: Tensor) -> Tensor:
        """W^T z: (S, *output) -> (S, *input)."""

    @abstractmethod
    def squared(self) -> LayerOperator:
        """The layer with its weights squared: it carries variances."""

    @abstractmethod
    def weight_gradient(self, inputs: Tensor, cotangent: Tensor) -> Tensor:
        """K x: (S, *input) and (*output) -> (S, *weight)."""

    @abstractmethod
    def weight_gradient_adjoint(self, gradient: Tensor, cotangent: Tensor) -> Tensor:
        """K^T g: (S, *weight) and (*output) -> (S, *input)."""

    @abstractmethod
    def gradient_block(self, cotangent: Tensor) -> Tensor:
        """The blocks of K, (G, rows, columns): for each group the same block for each of its input channels."""

    @abstractmethod
    def split(self, gradient: Tensor) -> Tensor:
        """Weight gradients (S, *weight) as right-hand sides of the blocks: (G, rows, channels per group * S)."""

    @abstractmethod
    def joined(self, solutions: Tensor, samples: int) -> Tensor:
        """Solutions of the blocks (G, columns, channels per group * S) as inputs (S, *input)."""


@dataclass(frozen=True)
class LinearOperator(LayerOperator):
    """A fully connected layer: K is one column k for every input value."""

    weight: Tensor  # (outputs, inputs)

    @property
    def input_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """(inputs,)."""
        return (self.weight.shape[1],)

    @property
    def output_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """(outputs,)."""
        return (self.weight.shape[0],)

    @property
    def weight_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """(outputs, inputs)."""
        return tuple(self.weight.shape)

    def apply(self, inputs: Tensor) -> Tensor:
        """W x."""
        return inputs @ self.weight.T

    def adjoint(self, outputs: Tensor) -> Tensor:
        """W^T z."""
        return outputs @ self.weight

    def squared(self) -> LinearOperator:
        """With squared weights."""
        return LinearOperator(self.weight.square())

    def weight_gradient(self, inputs: Tensor, cotangent: Tensor) -> Tensor:
        """k x^T."""
        return cotangent[:, None] * inputs[:, None, :]

    def weight_gradient_adjoint(self, gradient: Tensor, cotangent: Tensor) -> Tensor:
        """g^T k."""
        return torch.einsum("soi,o->si", gradient, cotangent)

    def gradient_block(self, cotangent: Tensor) -> Tensor:
        """(1, outputs, 1)."""
        return cotangent.reshape(1, -1, 1)

    def split(self, gradient: Tensor) -> Tensor:
        """(1, outputs, inputs * S)."""
        return gradient.permute(1, 2, 0).reshape(1, len(self.weight), -1)

    def joined(self, solutions: Tensor, samples: int) -> Tensor:
        """(S, inputs)."""
        return solutions.reshape(-1, samples).T


@dataclass(frozen=True)
class ConvOperator(LayerOperator):
    """A convolution with zero padding in one to three dimensions."""

    weight: Tensor  # (C_out, C_in / groups, *kernel)
    geometry: ConvGeometry

    @property
    def input_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """(C_in, *size)."""
        return (self.geometry.in_channels, *self.geometry.size)

    @property
    def output_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """(C_out, *positions)."""
        return (self.geometry.out_channels, *self.geometry.output_size)

    @property
    def weight_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """(C_out, C_in / groups, *kernel)."""
        return tuple(self.weight.shape)

    @property
    def _padded(self) -> tuple[int, ...]:
        geometry = self.geometry
        return tuple(size + before + after for size, (before, after) in zip(geometry.size, geometry.padding, strict=True))

    def _pad(self, inputs: Tensor) -> Tensor:
        widths = [side for pair in reversed(self.geometry.padding) for side in pair]
        return functional.pad(inputs, widths) if any(widths) else inputs

    def _peel(self, inputs: Tensor) -> Tensor:
        for axis, (size, (before, _)) in enumerate(zip(self.geometry.size, self.geometry.padding, strict=True), start=2):
            inputs = inputs.narrow(axis, before, size)
        return inputs

    def _conv(self, transposed: bool = False) -> Callable[..., Tensor]:
        axes = len(self.geometry.size)
        return cast(Callable[..., Tensor], getattr(functional, f"conv{'_transpose' if transposed else ''}{axes}d"))

    def _remainder(self) -> tuple[int, ...]:
        """What a transposed convolution must add at the far border to give the padded size."""
        geometry = self.geometry
        reach = [
            (n - 1) * s + d * (k - 1) + 1
            for n, s, d, k in zip(geometry.output_size, geometry.stride, geometry.dilation, geometry.kernel, strict=True)
        ]
        return tuple(full - used for full, used in zip(self._padded, reach, strict=True))

    def _symmetric(self) -> tuple[int, ...] | None:
        """The padding per axis, where it is the same on both sides (then the convolution itself can do it)."""
        pairs = self.geometry.padding
        return tuple(before for before, _ in pairs) if all(before == after for before, after in pairs) else None

    def _spread(self, outputs: Tensor, weight: Tensor, groups: int) -> Tensor:
        """Transposed convolution onto the padded input, then the padding peeled off."""
        geometry, rest, padding = self.geometry, self._remainder(), self._symmetric()
        settings = {"stride": geometry.stride, "dilation": geometry.dilation, "groups": groups}
        within = all(extra < max(s, d) for extra, s, d in zip(rest, geometry.stride, geometry.dilation, strict=True))
        if padding is not None and within:
            return self._conv(True)(outputs, weight, padding=padding, output_padding=rest, **settings)
        found = self._conv(True)(outputs, weight, **settings)
        if any(rest):
            found = functional.pad(found, [side for extra in reversed(rest) for side in (0, extra)])
        return self._peel(found)

    def apply(self, inputs: Tensor) -> Tensor:
        """W x."""
        geometry, padding = self.geometry, self._symmetric()
        settings = {"stride": geometry.stride, "dilation": geometry.dilation, "groups": geometry.groups}
        if padding is not None:
            return self._conv()(inputs, self.weight, padding=padding, **settings)
        return self._conv()(self._pad(inputs), self.weight, **settings)

    def adjoint(self, outputs: Tensor) -> Tensor:
        """W^T z."""
        return self._spread(outputs, self.weight, self.geometry.groups)

    def squared(self) -> ConvOperator:
        """With squared weights."""
        return ConvOperator(self.weight.square(), self.geometry)

    def weight_gradient(self, inputs: Tensor, cotangent: Tensor) -> Tensor:
        """K x as a convolution of the input with the output gradient, stride and dilation exchanged."""
        geometry, samples = self.geometry, len(inputs)
        per_in, per_out = self._per_group()
        parts = []
        padded = self._pad(inputs)
        for group in range(geometry.groups):
            own = padded[:, group * per_in : (group + 1) * per_in].reshape(samples * per_in, 1, *self._padded)
            kernel = cotangent[group * per_out : (group + 1) * per_out, None]
            found = self._conv()(own, kernel, stride=geometry.dilation, dilation=geometry.stride)
            for axis, side in enumerate(geometry.kernel, start=2):
                found = found.narrow(axis, 0, side)
            parts.append(found.reshape(samples, per_in, per_out, *geometry.kernel).transpose(1, 2))
        return torch.cat(parts, 1)

    def weight_gradient_adjoint(self, gradient: Tensor, cotangent: Tensor) -> Tensor:
        """K^T g as a transposed convolution of the output gradient with g."""
        geometry, samples = self.geometry, len(gradient)
        per_in, per_out = self._per_group()
        parts = []
        for group in range(geometry.groups):
            own = gradient[:, group * per_out : (group + 1) * per_out]  # (S, per_out, per_in, *kernel)
            kernel = own.transpose(0, 1).reshape(per_out, samples * per_in, *geometry.kernel)
            outputs = cotangent[None, group * per_out : (group + 1) * per_out]
            parts.append(self._spread(outputs, kernel, 1).reshape(samples, per_in, *geometry.size))
        return torch.cat(parts, 1)

    def gradient_block(self, cotangent: Tensor) -> Tensor:
        """(G, C_out / G * taps, pixels)."""
        geometry = self.geometry
        taps = prod(geometry.kernel)
        kernel = torch.eye(taps, dtype=cotangent.dtype, device=cotangent.device).reshape(1, taps, *geometry.kernel)
        found = self._spread(cotangent[:, None], kernel, 1)  # (C_out, taps, *size)
        return found.reshape(geometry.groups, -1, prod(geometry.size))

    def split(self, gradient: Tensor) -> Tensor:
        """(G, C_out / G * taps, C_in / G * S)."""
        geometry, samples = self.geometry, len(gradient)
        per_in, per_out = self._per_group()
        own = gradient.reshape(samples, geometry.groups, per_out, per_in, prod(geometry.kernel))
        return own.permute(1, 2, 4, 3, 0).reshape(geometry.groups, per_out * prod(geometry.kernel), per_in * samples)

    def joined(self, solutions: Tensor, samples: int) -> Tensor:
        """(S, C_in, *size)."""
        per_in, _ = self._per_group()
        own = solutions.reshape(self.geometry.groups, prod(self.geometry.size), per_in, samples)
        return own.permute(3, 0, 2, 1).reshape(samples, *self.input_shape)

    def _per_group(self) -> tuple[int, int]:
        return self.geometry.in_channels // self.geometry.groups, self.geometry.out_channels // self.geometry.groups


def operator_of(link: Link, state: State) -> LayerOperator:
    """The operator of a 'conv' or 'linear' link, in the arithmetic of the state."""
    assert link.weight is not None
    weight = state[link.weight]
    if link.geometry is not None:
        return ConvOperator(weight, link.geometry)
    assert isinstance(link.module, nn.Linear)
    return LinearOperator(weight)


def block_is_small(operator: LayerOperator) -> bool:
    """Whether the gradient block of a layer is small enough to be formed."""
    if isinstance(operator, ConvOperator):
        geometry = operator.geometry
        return geometry.out_channels * prod(geometry.kernel) * prod(geometry.size) <= DENSE_BLOCK
    return True
