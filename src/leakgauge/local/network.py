"""A module as a pure function of parameters, buffers and inputs, with BatchNorm's bookkeeping done by hand."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from leakgauge.core.batch_statistics import batch_norm_layers
from leakgauge.local.convolution import convolution, replaces

Inputs = Tensor | dict[str, Tensor]
Tensors = dict[str, Tensor]


class Network:
    """A pure view of a module: nothing that is called here changes it, or the tensors handed in.

    In train mode each BatchNorm layer normalises by its batch and reports new running statistics as values, so that the
    whole is differentiable (buffers too) and works under torch.func transforms.

    Args:
        module: any module; it is copied.
        mode: 'eval' or 'train'.
        groups: mini-batches of equal size that one pass stands for, in the order of the rows: in train mode BatchNorm divides
            each by its own statistics.
        rounds: how often the mini-batches came round; running statistics move as often.
    """

    def __init__(self, module: nn.Module, mode: str = "eval", *, groups: int = 1, rounds: int = 1) -> None:
        self.module = copy.deepcopy(module).train(mode == "train")
        self.mode = mode
        self._seen: dict[str, Tensors] = {}
        self.held = False  # set while weights depend on nothing that is differentiated: large convolutions use it
        self.groups = groups
        for name, layer in batch_norm_layers(self.module).items():
            layer.forward = MethodType(_pure_batch_norm(name, self._seen, groups, rounds), layer)  # type: ignore[method-assign]

        for part in self.module.modules():
            if replaces(part):
                part.forward = MethodType(convolution(lambda: self.held), part)

    def parameters(self) -> Tensors:
        """The module's own parameters by name, detached."""
        return {name: parameter.detach() for name, parameter in self.module.named_parameters()}

    def trainable(self) -> tuple[str, ...]:
        """Names of the parameters that local training changes."""
        return tuple(name for name, parameter in self.module.named_parameters() if parameter.requires_grad)

    def buffers(self) -> Tensors:
        """The module's own buffers by name, detached."""
        return {name: buffer.detach() for name, buffer in self.module.named_buffers()}

    def __call__(self, parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor], inputs: Inputs) -> tuple[Any, Tensors]:
        """The output, and the buffers after this forward pass."""
        self._seen.clear()
        state = {**parameters, **buffers}
        arguments, keywords = ((), inputs) if isinstance(inputs, dict) else ((inputs,), {})
        output = functional_call(self.module, state, arguments, keywords)
        after = {**buffers}
        for layer, new in self._seen.items():
            prefix = f"{layer}." if layer else ""
            after |= {prefix + name: value for name, value in new.items()}
        self._seen.clear()
        return output, after


def group_shares(momentum: float | None, groups: int) -> list[float]:
    """What each of several mini-batches contributes to the running statistics' move, adding up to 1: (1 - m)^(groups - k)."""
    weights = [1.0 if momentum is None else (1.0 - momentum) ** (groups - 1 - index) for index in range(groups)]
    return [weight / sum(weights) for weight in weights]


def group_moments(values: Tensor, groups: int, momentum: float | None) -> tuple[Tensor, Tensor]:
    """Mean and biased variance (C,) of each of several mini-batches, averaged with the shares of `group_shares`.

    Args:
        values: (N, C, ...), N a multiple of `groups`.
        groups: mini-batches.
        momentum: of the layer.
    """
    rows = values.reshape(groups, len(values) // groups, *values.shape[1:]).transpose(1, 2).flatten(2)  # (groups, C, values)
    shares = torch.tensor(group_shares(momentum, groups), dtype=values.dtype, device=values.device)[:, None]
    return (shares * rows.mean(2)).sum(0), (shares * rows.var(2, correction=0)).sum(0)


def _pure_batch_norm(name: str, seen: dict[str, Tensors], groups: int, rounds: int) -> Any:
    def forward(self: _BatchNorm, inputs: Tensor) -> Tensor:
        if not self.training and self.running_mean is not None and self.running_var is not None:
            scale = torch.rsqrt(self.running_var + self.eps)  # an affine map: its second derivative is cheap this way
            shift = -self.running_mean * scale
            if self.weight is not None:
                scale, shift = scale * self.weight, shift * self.weight + self.bias
            column = [-1] + [1] * (inputs.ndim - 2)
            return torch.addcmul(shift.reshape(column), inputs, scale.reshape(column))
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return functional.batch_norm(
                inputs, self.running_mean, self.running_var, self.weight, self.bias, self.training, 0.0, self.eps
            )
        if groups * rounds > 1:
            return grouped(self, inputs)
        axes = [axis for axis in range(inputs.ndim) if axis != 1]
        count = inputs.numel() // inputs.shape[1]
        mean = inputs.mean(axes)
        var = (inputs - mean.reshape([1, -1] + [1] * (inputs.ndim - 2))).square().mean(axes)
        tracked = self.num_batches_tracked + 1
        momentum = self.momentum if self.momentum is not None else 1.0 / tracked.to(inputs.dtype)
        unbiased = var * (count / max(count - 1, 1))
        seen[name] = {
            "running_mean": (1 - momentum) * self.running_mean + momentum * mean.to(self.running_mean.dtype),
            "running_var": (1 - momentum) * self.running_var + momentum * unbiased.to(self.running_var.dtype),
            "num_batches_tracked": tracked,
        }
        return functional.batch_norm(inputs, None, None, self.weight, self.bias, True, 0.0, self.eps)

    def grouped(self: _BatchNorm, inputs: Tensor) -> Tensor:
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        count = inputs.numel() // (inputs.shape[1] * groups)
        mean, var = group_moments(inputs, groups, self.momentum)
        steps = groups * rounds
        tracked = self.num_batches_tracked + steps
        keep = (1 - self.momentum) ** steps if self.momentum is not None else 1.0 - steps / tracked.to(inputs.dtype)
        unbiased = var * (count / max(count - 1, 1))
        seen[name] = {
            "running_mean": keep * self.running_mean + (1 - keep) * mean.to(self.running_mean.dtype),
            "running_var": keep * self.running_var + (1 - keep) * unbiased.to(self.running_var.dtype),
            "num_batches_tracked": tracked,
        }
        each, rest = len(inputs) // groups, inputs.shape[1:]
        apart = inputs.reshape(groups, each, *rest).transpose(0, 1).flatten(1, 2)  # (N / groups, groups C, ...)
        weight, bias = (None if part is None else part.repeat(groups) for part in (self.weight, self.bias))
        normed = functional.batch_norm(apart, None, None, weight, bias, True, 0.0, self.eps)
        together: Tensor = normed.reshape(each, groups, *rest).transpose(0, 1).flatten(0, 1)
        return together

    return forward


def cast(tensors: Mapping[str, Tensor], dtype: torch.dtype) -> Tensors:
    """The same tensors with floating-point ones in `dtype`."""
    return {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
