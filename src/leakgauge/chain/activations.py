"""Activations as invertible functions: value, derivative, inverse, and where the output determines the input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Activation:
    """An elementwise function a with what is needed to go back through it.

    Args:
        name: of the function.
        forward: a(z).
        derivative: a'(z).
        inverse: y -> z; only its values where `known` holds mean anything.
        known: y -> bool, where y determines z (everywhere for an injective function in exact arithmetic).
        curvature: a''(z), for the propagation of errors.
        homogeneous: a(c z) = c a(z) for c > 0.
        partial: whether `known` is False on a set that ordinary inputs reach (ReLU), not only where rounding saturates.
    """

    name: str
    forward: Function = field(repr=False)
    derivative: Function = field(repr=False)
    inverse: Function = field(repr=False)
    known: Function = field(repr=False)
    curvature: Function = field(repr=False)
    homogeneous: bool = False
    partial: bool = False


def _everywhere(values: Tensor) -> Tensor:
    return torch.ones_like(values, dtype=torch.bool)


def leaky_relu(slope: float = 0.01) -> Activation | None:
    """z, and slope * z where z < 0; None for a negative slope, which is not injective."""
    if slope < 0:
        return None
    if slope == 0:
        return relu()
    return Activation(
        f"LeakyReLU({slope:g})",
        lambda z: functional.leaky_relu(z, slope),
        lambda z: torch.where(z > 0, torch.ones_like(z), torch.full_like(z, slope)),
        lambda y: torch.where(y > 0, y, y / slope),
        _everywhere,
        torch.zeros_like,
        homogeneous=True,
    )


def relu() -> Activation:
    """max(z, 0): known where it is positive."""
    return Activation(
        "ReLU",
        functional.relu,
        lambda z: (z > 0).to(z.dtype),
        lambda y: y,
        lambda y: y > 0,
        torch.zeros_like,
        homogeneous=True,
        partial=True,
    )


def elu(alpha: float = 1.0) -> Activation | None:
    """z, and alpha (exp(z) - 1) where z < 0."""
    if alpha <= 0:
        return None
    return Activation(
        f"ELU({alpha:g})",
        lambda z: functional.elu(z, alpha),
        lambda z: torch.where(z > 0, 1.0, alpha * z.clamp(max=0).exp()),
        lambda y: torch.where(y > 0, y, torch.log1p((y.clamp(max=0) / alpha).clamp(min=-1 + 2**-53))),
        lambda y: y > -alpha * (1 - 1e-13),
        lambda z: torch.where(z > 0, 0.0, alpha * z.clamp(max=0).exp()),
    )


def softplus(beta: float = 1.0, threshold: float = 20.0) -> Activation | None:
    """log(1 + exp(beta z)) / beta; the identity where beta z exceeds the threshold."""
    if beta <= 0:
        return None

    def inverse(y: Tensor) -> Tensor:
        low = y.clamp(min=1e-300)
        return torch.where(beta * y > threshold, y, low + torch.log(-torch.expm1(-beta * low)) / beta)

    return Activation(
        f"Softplus({beta:g})",
        lambda z: functional.softplus(z, beta, threshold),
        lambda z: torch.where(beta * z > threshold, 1.0, torch.sigmoid(beta * z)),
        inverse,
        lambda y: y > 0,
        lambda z: torch.where(beta * z > threshold, 0.0, beta * torch.sigmoid(beta * z) * torch.sigmoid(-beta * z)),
    )


def sigmoid() -> Activation:
    """1 / (1 + exp(-z))."""
    return Activation(
        "Sigmoid",
        torch.sigmoid,
        lambda z: torch.sigmoid(z) * torch.sigmoid(-z),
        lambda y: torch.logit(y.clamp(1e-300, 1 - 2**-53)),
        lambda y: (y > 0) & (y < 1 - 1e-13),
        lambda z: torch.sigmoid(z) * torch.sigmoid(-z) * (1 - 2 * torch.sigmoid(z)),
    )


def tanh() -> Activation:
    """The hyperbolic tangent."""
    return Activation(
        "Tanh",
        torch.tanh,
        lambda z: 1 - torch.tanh(z).square(),
        lambda y: torch.atanh(y.clamp(-1 + 2**-53, 1 - 2**-53)),
        lambda y: y.abs() < 1 - 1e-13,
        lambda z: -2 * torch.tanh(z) * (1 - torch.tanh(z).square()),
    )


def identity() -> Activation:
    """z itself."""
    return Activation("Identity", lambda z: z, torch.ones_like, lambda y: y, _everywhere, torch.zeros_like, homogeneous=True)
