"""Activations by name."""

from __future__ import annotations

from typing import Any

from torch import nn

from leakgauge.models.entry import option

ACTIVATIONS = ("sigmoid", "tanh", "leaky-relu", "relu", "elu", "softplus", "gelu", "identity")


def activation(name: str, slope: float = 0.01) -> nn.Module:
    """A new activation module.

    Args:
        name: one of `ACTIVATIONS`.
        slope: of the negative side, for 'leaky-relu' only.
    """
    if name == "leaky-relu":
        return nn.LeakyReLU(slope)
    plain: dict[str, type[nn.Module]] = {
        "sigmoid": nn.Sigmoid,
        "tanh": nn.Tanh,
        "relu": nn.ReLU,
        "elu": nn.ELU,
        "softplus": nn.Softplus,
        "gelu": nn.GELU,
        "identity": nn.Identity,
    }
    return plain[name]()


def activation_option(default: str) -> Any:
    """The field `activation` of a network."""
    return option(default, "what follows every hidden layer", ACTIVATIONS)


def slope_option(default: float) -> Any:
    """The field `slope` of a network."""
    return option(default, "negative slope of 'leaky-relu'; ignored by the others")
