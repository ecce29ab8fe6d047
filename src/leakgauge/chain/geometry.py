"""ConvGeometry: what counting needs to know of a convolution, in one to three dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from torch import nn

from leakgauge.errors import ShapeError, UnsupportedError


@dataclass(frozen=True)
class ConvGeometry:
    """Shapes of one convolution with zero padding.

    Output position p sees the pixels stride p + dilation u - before for the taps u = 0 .. kernel - 1, axis by axis.

    Args:
        in_channels, out_channels: channels before and after.
        size: spatial size of the input, one to three axes.
        kernel, stride, dilation: per axis, each >= 1.
        padding: (before, after) per axis, each >= 0.
        groups: groups of channels; divides both channel counts.

    Raises:
        ShapeError: for values out of range, axes that do not agree, or an empty output.
    """

    in_channels: int
    out_channels: int
    size: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int = 1

    def __post_init__(self) -> None:
        axes = {len(self.size), len(self.kernel), len(self.stride), len(self.padding), len(self.dilation)}
        if len(axes) != 1 or axes.isdisjoint({1, 2, 3}):
            raise ShapeError(f"`ConvGeometry` takes one to three axes, the same for every field; got {self}.")
        counts = (self.in_channels, self.out_channels, self.groups, *self.size, *self.kernel, *self.stride, *self.dilation)
        if min(counts) < 1 or min(min(pair) for pair in self.padding) < 0:
            raise ShapeError(f"`ConvGeometry` takes positive sizes and padding of at least 0; got {self}.")
        if self.in_channels % self.groups or self.out_channels % self.groups:
            raise ShapeError(f"`ConvGeometry`: {self.groups} groups do not divide the channels of {self}.")
        if min(self.output_size) < 1:
            raise ShapeError(f"`ConvGeometry`: the kernel is larger than the padded input, so that there is no output: {self}.")

    @property
    def output_size(self) -> tuple[int, ...]:
        """Spatial size of the output."""
        parts = zip(self.size, self.kernel, self.stride, self.padding, self.dilation, strict=True)
        return tuple((n + sum(pad) - d * (k - 1) - 1) // s + 1 for n, k, s, pad, d in parts)

    @property
    def unknowns(self) -> int:
        """Input values."""
        return self.in_channels * prod(self.size)

    @property
    def weight_equations(self) -> int:
        """Rows of W x = z: output values."""
        return self.out_channels * prod(self.output_size)

    @property
    def gradient_equations(self) -> int:
        """Rows of K x = vec(dL/dW): weights."""
        return self.out_channels * (self.in_channels // self.groups) * prod(self.kernel)

    @staticmethod
    def of(module: nn.Module, size: Sequence[int]) -> ConvGeometry:
        """The geometry of a convolution applied to an input of the given spatial size.

        Args:
            module: nn.Conv1d, Conv2d or Conv3d with zero padding; 'same' and 'valid' are understood.
            size: spatial size of the input.

        Raises:
            UnsupportedError: for other modules (transposed convolutions among them) and other padding modes.
            ShapeError: if the input is too small, or has another number of axes.
        """
        if not isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            raise UnsupportedError(f"`ConvGeometry.of` takes nn.Conv1d, Conv2d or Conv3d, not {type(module).__name__}.")
        if module.padding_mode != "zeros":
            raise UnsupportedError(
                f"only zero padding is counted; this {type(module).__name__} has padding_mode={module.padding_mode!r}."
            )
        reach = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
        padding: tuple[tuple[int, int], ...]
        if module.padding == "same":
            padding = tuple((total // 2, total - total // 2) for total in reach)
        elif isinstance(module.padding, str):  # 'valid'
            padding = tuple((0, 0) for _ in reach)
        else:
            padding = tuple((int(side), int(side)) for side in module.padding)
        return ConvGeometry(
            module.in_channels,
            module.out_channels,
            tuple(int(side) for side in size),
            tuple(int(side) for side in module.kernel_size),
            tuple(int(side) for side in module.stride),
            padding,
            tuple(int(side) for side in module.dilation),
            module.groups,
        )
