"""Convolution whose second derivative leaves out what matching one gradient never needs: the share of the weights.

PyTorch's own double backward computes it whenever the weights require a gradient, which they do here; for a network of
millions of weights that is about a sixth of an evaluation. Every piece below is a forward, backward-data or backward-weight
pass of the original geometry. Used outside torch.func, and only where the weights do not depend on what is differentiated;
results agree with PyTorch's to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

LARGE = 10_000  # weights from which the detour through Python pays

Geometry = tuple[list[int], list[int], list[int], int]  # stride, padding, dilation, groups


def _forward(inputs: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    stride, padding, dilation, groups = geometry
    return torch.convolution(inputs, weight, bias, stride, padding, dilation, False, [0] * len(stride), groups)


def _pull(slope: Tensor, inputs: Tensor, weight: Tensor, geometry: Geometry, mask: list[bool]) -> tuple[Tensor | None, ...]:
    stride, padding, dilation, groups = geometry
    found: tuple[Tensor | None, ...] = torch.ops.aten.convolution_backward(
        slope, inputs, weight, [weight.shape[0]], stride, padding, dilation, False, [0] * len(stride), groups, mask
    )
    return found


class _Convolution(torch.autograd.Function):
    """y = W * x + b."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        ctx.geometry, ctx.biased = geometry, bias is not None
        return _forward(inputs, weight, bias, geometry)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        inputs, weight = ctx.saved_tensors
        first = torch.is_grad_enabled()  # the pass that makes the update; later ones only go back to the inputs
        needs = ctx.needs_input_grad
        mask = [needs[0], needs[1] and first, ctx.biased and needs[2] and first]
        held = weight.detach()
        to_inputs, to_weight, to_bias = _Adjoint.apply(slope, inputs, held, ctx.geometry, mask)  # type: ignore[no-untyped-call]
        return to_inputs, to_weight, to_bias, None


class _Adjoint(torch.autograd.Function):
    """(W^T * g, x correlated with g, sum g): the backward pass as a differentiable function of g and x; W is held."""

    @staticmethod
    def forward(
        ctx: Any, slope: Tensor, inputs: Tensor, weight: Tensor, geometry: Geometry, mask: list[bool]
    ) -> tuple[Tensor | None, ...]:
        ctx.save_for_backward(slope, inputs, weight)
        ctx.geometry = geometry
        ctx.set_materialize_grads(False)
        return _pull(slope, inputs, weight, geometry, mask)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor | None) -> tuple[Tensor | None, ...]:
        slope, inputs, weight = ctx.saved_tensors
        along_inputs, along_weight, along_bias = outer
        needs, geometry = ctx.needs_input_grad, ctx.geometry
        to_slope: Tensor | None = None
        to_inputs: Tensor | None = None
        if needs[0]:
            if along_inputs is not None:
                to_slope = _forward(along_inputs, weight, None, geometry)
            if along_weight is not None:
                part = _forward(inputs, along_weight, None, geometry)
                to_slope = part if to_slope is None else to_slope + part
            if along_bias is not None:
                part = along_bias.reshape([1, -1] + [1] * (slope.ndim - 2)).expand_as(slope)
                to_slope = part if to_slope is None else to_slope + part
        if needs[1] and along_weight is not None:
            to_inputs = _pull(slope, inputs, along_weight, geometry, [True, False, False])[0]
        return to_slope, to_inputs, None, None, None


def replaces(layer: nn.Module) -> bool:
    """Whether a layer is a plain convolution that is large enough to gain."""
    if type(layer) not in (nn.Conv1d, nn.Conv2d, nn.Conv3d):
        return False
    assert isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    return layer.padding_mode == "zeros" and not isinstance(layer.padding, str) and layer.weight.numel() >= LARGE


def convolution(usable: Callable[[], bool]) -> Callable[[Any, Tensor], Tensor]:
    """A forward method for a convolution layer that takes the detour while `usable()`."""

    def forward(self: Any, inputs: Tensor) -> Tensor:
        if not usable():
            return self._conv_forward(inputs, self.weight, self.bias)  # type: ignore[no-any-return]
        geometry = (list(self.stride), list(self.padding), list(self.dilation), self.groups)
        return _Convolution.apply(inputs, self.weight, self.bias, geometry)  # type: ignore[no-any-return, no-untyped-call]

    return forward
