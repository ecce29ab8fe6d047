"""One rule per module type: what kind of link it is. The registry is open: `rule(MyLayer)` adds one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.dropout import _DropoutNd

from leakgauge.chain import activations
from leakgauge.chain.activations import Activation
from leakgauge.chain.geometry import ConvGeometry
from leakgauge.errors import UnsupportedError
from leakgauge.registry import described, entry_names, make

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Part:
    """What a rule says about one module or operation.

    Args:
        kind: see `Link`.
        geometry: of a convolution.
        activation: of an activation.
        reason: why closed forms cannot treat it, or ''.
    """

    kind: str
    geometry: ConvGeometry | None = None
    activation: Activation | None = None
    reason: str = ""


Rule = Callable[[Any, Shape, Shape], Part]  # (module, input shape, output shape), shapes without the batch
_RULES: dict[type[nn.Module], Rule] = {}
_BUILT_IN = "layers"


def rule(*kinds: type[nn.Module]) -> Callable[[Rule], Rule]:
    """Registers a rule for module types; a later rule for the same type replaces the earlier one."""

    def register(function: Rule) -> Rule:
        for kind in kinds:
            _RULES[kind] = function
        return function

    return register


@described(needs="", source="Zhu & Blaschko 2021; Chen & Campbell 2022")
def layers() -> dict[type[nn.Module], Rule]:
    """Rules for torch's own layers, and those that `rule` has added."""
    return dict(_RULES)


@cache
def _load_plugins() -> None:
    """Adds what other packages register under `leakgauge.links`; a rule that is there already stays."""
    for name in entry_names("links"):
        if name != _BUILT_IN:
            for kind, function in make("links", name).items():
                _RULES.setdefault(kind, function)


def has_rule(module: nn.Module) -> bool:
    """Whether a rule stands for the module's type or a base of it."""
    _load_plugins()
    return any(base in _RULES for base in type(module).__mro__)


def part_of(module: nn.Module, inputs: Shape, outputs: Shape) -> Part:
    """What a module is in a chain; unsupported, with the reason, where there is no rule."""
    _load_plugins()
    for base in type(module).__mro__:
        if base in _RULES:
            return _RULES[base](module, inputs, outputs)
    return Part("unsupported", reason="there is no rule for this kind of layer")


def unsupported(reason: str) -> Part:
    """A part that closed forms cannot treat."""
    return Part("unsupported", reason=reason)


def _activation(found: Activation | None, why: str = "it is not injective") -> Part:
    return unsupported(why) if found is None else Part("activation", activation=found)


@rule(_ConvNd)
def _conv(module: _ConvNd, inputs: Shape, outputs: Shape) -> Part:  # noqa: ARG001
    if module.transposed:
        return unsupported("transposed convolutions are not covered")
    try:
        return Part("conv", geometry=ConvGeometry.of(module, inputs[1:]))
    except UnsupportedError as error:
        return unsupported(str(error).rstrip("."))


@rule(nn.Linear)
def _linear(module: nn.Linear, inputs: Shape, outputs: Shape) -> Part:  # noqa: ARG001
    if len(inputs) != 1:
        return unsupported(f"it is applied to {len(inputs)}-dimensional inputs; only one vector per example is covered")
    return Part("linear")


@rule(nn.LeakyReLU)
def _leaky(module: nn.LeakyReLU, inputs: Shape, outputs: Shape) -> Part:  # noqa: ARG001
    return _activation(activations.leaky_relu(module.negative_slope))


@rule(nn.ReLU)
def _relu(module: nn.ReLU, inputs: Shape, outputs: Shape) -> Part:  # noqa: ARG001
    return _activation(activations.relu())


@rule(nn.ELU)
def _elu(module: nn.ELU, inputs: Shape, outputs: Shape) -> Part:  # noqa: ARG001
    return _activation(activations.elu(module.alpha))


@rule(nn.Softplus)
def _softplus(module: nn.Softplus, inputs: Shape, outputs: Shape) -> Part:  # noqa: ARG001
    return _activation(activations.softplus(module.beta, module.threshold))


@rule(nn.Sigmoid)
def _sigmoid(module: nn.Sigmoid, inputs: Shape, outputs: Shape) -> Part:  # noqa: ARG001
    return _activation(activations.sigmoid())


@rule(nn.Tanh)
def _tanh(module: nn.Tanh, inputs: Shape, outputs: Shape) -> Part:  # noqa: ARG001
    return _activation(activations.tanh())


@rule(nn.Identity, nn.Dropout, _DropoutNd)
def _identity(module: nn.Module, inputs: Shape, outputs: Shape) -> Part:  # noqa: ARG001
    return Part("identity")


@rule(nn.Flatten, nn.Unflatten)
def _reshape(module: nn.Module, inputs: Shape, outputs: Shape) -> Part:  # noqa: ARG001
    return Part("reshape")


@rule(
    nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d,
    nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d,
)  # fmt: skip
def _pool(module: nn.Module, inputs: Shape, outputs: Shape) -> Part:  # noqa: ARG001
    return Part("identity" if inputs == outputs else "pool")


@rule(_BatchNorm)
def _batch_norm(module: _BatchNorm, inputs: Shape, outputs: Shape) -> Part:  # noqa: ARG001
    if not module.track_running_stats or module.running_mean is None:
        return unsupported("it has no running statistics, so that it normalises by the example itself")
    return Part("affine")


@rule(
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d,
    nn.FractionalMaxPool2d, nn.FractionalMaxPool3d,
)  # fmt: skip
def _max_pool(module: nn.Module, inputs: Shape, outputs: Shape) -> Part:  # noqa: ARG001
    return unsupported("max-pooling has no inverse: which inputs were chosen is unknown")


@rule(nn.LayerNorm, nn.GroupNorm, nn.LocalResponseNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
def _normalised(module: nn.Module, inputs: Shape, outputs: Shape) -> Part:  # noqa: ARG001
    return unsupported("it normalises by statistics of the example itself, which are unknown")


@rule(nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish)
def _two_preimages(module: nn.Module, inputs: Shape, outputs: Shape) -> Part:  # noqa: ARG001
    return unsupported("it is not injective: an output has two inputs below its minimum")


@rule(nn.MultiheadAttention)
def _attention(module: nn.Module, inputs: Shape, outputs: Shape) -> Part:  # noqa: ARG001
    return unsupported("attention multiplies functions of its input with each other")


@rule(nn.RNNBase, nn.Embedding)
def _not_a_chain(module: nn.Module, inputs: Shape, outputs: Shape) -> Part:  # noqa: ARG001
    return unsupported("recurrent and embedding layers are not covered")
