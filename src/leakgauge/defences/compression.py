"""Defences that share fewer bits of each number: pruning within tensors, lower precision, quantisation, signs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from leakgauge.defences.base import TensorDefence, check, is_number, switched
from leakgauge.registry import described


@described(needs="a gradient or weight change; no claim of privacy", source="Zhu, Liu & Han 2019, section 5.3")
@dataclass(frozen=True)
class Prune(TensorDefence):
    """Sets the smallest entries of each tensor, by magnitude, to zero (Zhu et al. 2019, section 5.3).

    Args:
        fraction: share of the entries that is set to zero, in [0, 1).
    """

    fraction: float
    name: ClassVar[str] = "prune"
    of_change: ClassVar[bool] = True
    adaptive: ClassVar[str] = (
        "The attack compares the kept entries, and asks of the others only to be smaller than every kept one of their tensor."
    )

    def __post_init__(self) -> None:
        check(self, "fraction", is_number(self.fraction) and 0 <= self.fraction < 1, "a number in [0, 1)")

    def rewrite(self, tensor: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG002 - no draws
        count = int(self.fraction * tensor.numel())
        if count == 0:
            return tensor
        smallest = tensor.abs().reshape(-1).argsort(stable=True)[:count]
        flat = tensor.reshape(-1).clone()
        flat[smallest] = 0
        return flat.reshape(tensor.shape)


@described(needs="nothing; no claim of privacy", source="Zhu, Liu & Han 2019, section 5.1")
@dataclass(frozen=True)
class HalfPrecision(TensorDefence):
    """Rounds every shared number to 16-bit floating point (Zhu et al. 2019, section 5.1)."""

    name: ClassVar[str] = "half-precision"
    adaptive: ClassVar[str] = "The attack asks of each number only to round to what was shared (a dead zone of half a step)."

    def rewrite(self, tensor: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG002 - no draws
        return tensor.to(torch.float16).to(tensor.dtype)


@described(needs="nothing; no claim of privacy", source="Kalamkar et al. 2019, A Study of BFLOAT16 for Deep Learning Training")
@dataclass(frozen=True)
class BFloat16(TensorDefence):
    """Rounds every shared number to bfloat16: 8 bits of exponent, 8 of significand."""

    name: ClassVar[str] = "bfloat16"
    adaptive: ClassVar[str] = "The attack asks of each number only to round to what was shared (a dead zone of half a step)."

    def rewrite(self, tensor: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG002 - no draws
        return tensor.to(torch.bfloat16).to(tensor.dtype)


@described(needs="a gradient or weight change; no claim of privacy", source="Alistarh et al. 2017, QSGD (one scale per tensor)")
@dataclass(frozen=True)
class Quantise(TensorDefence):
    """Rounds each tensor to evenly spaced levels between plus and minus its largest magnitude.

    With b bits there are 2^b - 1 levels, zero among them; the step is max|g| / (2^(b-1) - 1).

    Args:
        bits: whole number from 2 to 16; for one bit see `Sign`.
        stochastic: round up or down at random so that the mean is right, as QSGD does, instead of to the nearest level.
    """

    bits: int
    stochastic: bool = False
    name: ClassVar[str] = "quantise"
    of_change: ClassVar[bool] = True
    adaptive: ClassVar[str] = (
        "The attack asks of each number only to round to the level that was shared (a dead zone of half a step)."
    )

    def __post_init__(self) -> None:
        whole = is_number(self.bits) and float(self.bits).is_integer() and 2 <= self.bits <= 16
        check(self, "bits", whole, "a whole number from 2 to 16")
        object.__setattr__(self, "bits", int(self.bits))
        switched(self, "stochastic")

    def rewrite(self, tensor: Tensor, generator: torch.Generator) -> Tensor:
        exact = tensor.double()
        step = float(exact.abs().max()) / (2 ** (self.bits - 1) - 1) if tensor.numel() else 0.0
        if step == 0:
            return tensor
        levels = exact / step
        if self.stochastic:
            uniform = torch.rand(tensor.shape, generator=generator, dtype=torch.float64).to(tensor.device)
            levels = (levels + uniform).floor().clamp(-(2 ** (self.bits - 1)) + 1, 2 ** (self.bits - 1) - 1)
        else:
            levels = levels.round()
        return (levels * step).to(tensor.dtype)


@described(needs="a gradient or weight change; no claim of privacy", source="Bernstein et al. 2018, signSGD")
@dataclass(frozen=True)
class Sign(TensorDefence):
    """Shares the sign of each number, times the mean magnitude of its tensor, so that updates can still be averaged."""

    name: ClassVar[str] = "sign"
    of_change: ClassVar[bool] = True
    adaptive: ClassVar[str] = "The attack asks for equal signs, and for equal mean magnitudes of the tensors."

    def rewrite(self, tensor: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG002 - no draws
        if not tensor.numel():
            return tensor
        return tensor.sign() * tensor.double().abs().mean().to(tensor)
