"""Defences that look at the whole update: clipping, and sharing only the entries that matter most."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from leakgauge.defences.base import Mechanism, Tensors, UpdateDefence, check, is_number
from leakgauge.defences.noise import laplace, percentile_of
from leakgauge.registry import described


def whole_norm(tensors: Tensors) -> float:
    """2-norm over all tensors together, in float64."""
    return math.sqrt(sum(float(tensor.detach().double().square().sum()) for tensor in tensors.values()))


def clipped_to(tensors: Tensors, norm: float) -> Tensors:
    """The tensors scaled down so that their joint 2-norm is at most `norm`; unchanged, bit for bit, where it is already."""
    total = whole_norm(tensors)
    if total <= norm:
        return tensors
    return {name: (tensor.double() * (norm / total)).to(tensor.dtype) for name, tensor in tensors.items()}


@described(
    needs="a gradient or weight change; with Gaussian noise after it, a claim per client", source="McMahan et al. 2018, DP-FedAvg"
)
@dataclass(frozen=True)
class Clip(UpdateDefence):
    """Scales the whole update down to a 2-norm of at most C; all shared parameters count together, buffers do not.

    Args:
        norm: the bound C > 0, in the units of the update.
    """

    norm: float
    name: ClassVar[str] = "clip"
    adaptive: ClassVar[str] = (
        "The attack compares directions: the candidate's update is scaled to fit best, since the norm is lost."
    )

    def __post_init__(self) -> None:
        check(self, "norm", is_number(self.norm) and self.norm > 0, "a number > 0")

    def rewrite_all(self, tensors: Tensors, generator: torch.Generator) -> Tensors:  # noqa: ARG002 - no draws
        return clipped_to(tensors, self.norm)

    def mechanism(self) -> Mechanism:
        return Mechanism("clip", clip_norm=self.norm)


@described(needs="a gradient or weight change; no claim of privacy", source="Lin et al. 2018, Deep Gradient Compression")
@dataclass(frozen=True)
class TopK(UpdateDefence):
    """Shares only the largest entries, by magnitude, of the whole update; the others become zero.

    Args:
        fraction: share of all entries that is kept, in (0, 1]; round(fraction * n) of n, at least one.
    """

    fraction: float
    name: ClassVar[str] = "top-k"
    adaptive: ClassVar[str] = (
        "The attack compares the kept entries, and asks of the others only to be smaller than the smallest kept one."
    )

    def __post_init__(self) -> None:
        check(self, "fraction", is_number(self.fraction) and 0 < self.fraction <= 1, "a number in (0, 1]")

    def rewrite_all(self, tensors: Tensors, generator: torch.Generator) -> Tensors:  # noqa: ARG002 - no draws
        flat = _flat(tensors)
        kept = max(1, round(self.fraction * len(flat)))
        if kept >= len(flat):
            return tensors
        flat[flat.abs().argsort(descending=True, stable=True)[kept:]] = 0
        return _apart(flat, tensors)


@described(
    needs="a gradient or weight change; no claim of privacy", source="NVFlare's PercentilePrivacy; Shokri & Shmatikov 2015"
)
@dataclass(frozen=True)
class PercentileSharing(UpdateDefence):
    """Shares only the entries whose magnitude reaches a percentile of the whole update, bounded by gamma; the others are zero.

    Args:
        percentile: of the magnitudes over all shared parameters, in [0, 100); 0 shares all.
        gamma: largest magnitude that is shared, > 0.
    """

    percentile: float
    gamma: float
    name: ClassVar[str] = "percentile-sharing"
    adaptive: ClassVar[str] = (
        "The attack compares the kept entries, asks of the others only to be smaller, and of those at the bound only to reach it."
    )

    def __post_init__(self) -> None:
        check(self, "percentile", is_number(self.percentile) and 0 <= self.percentile < 100, "a number in [0, 100)")
        check(self, "gamma", is_number(self.gamma) and self.gamma > 0, "a number > 0")

    def rewrite_all(self, tensors: Tensors, generator: torch.Generator) -> Tensors:  # noqa: ARG002 - no draws
        flat = _flat(tensors)
        magnitudes = flat.abs()
        least = percentile_of(magnitudes, self.percentile)
        flat[magnitudes < least] = 0
        return _apart(flat.clamp(-self.gamma, self.gamma), tensors)


@described(
    needs="a gradient or weight change; no claim of privacy", source="Li et al. 2019, section 2.2; Shokri & Shmatikov 2015"
)
@dataclass(frozen=True)
class SVT(UpdateDefence):
    """Sparse vector technique: shares noisy entries that pass a noisy threshold; the others become zero.

    With q = round(fraction * n) entries to share at most, and Lap(b) Laplace noise of scale b: entry g passes where
    |clip(g, gamma)| + Lap(4 gamma q / e2) >= tau + Lap(2 gamma / epsilon), with e2 = epsilon (2 q)^(2/3); of those that pass, q
    chosen at random are shared as clip(g + Lap(2 gamma / noise_var), gamma). One pass is made, so fewer than q may be shared.
    Noise is drawn for all entries at once, and the number shared shows; no privacy is claimed for it.

    Args:
        fraction: largest share of the entries that is sent, in (0, 1].
        epsilon: budget of the selection, > 0; smaller is noisier.
        noise_var: budget of the noise on shared values, > 0; smaller is noisier. (The name is NVFlare's; it is no variance.)
        gamma: bound on magnitudes, > 0.
        tau: threshold >= 0.
    """

    fraction: float
    epsilon: float = 0.1
    noise_var: float = 0.1
    gamma: float = 1e-5
    tau: float = 1e-6
    name: ClassVar[str] = "svt"
    adaptive: ClassVar[str] = "The attack compares the kept entries in L1, and asks of those at the bound only to reach it."

    def __post_init__(self) -> None:
        check(self, "fraction", is_number(self.fraction) and 0 < self.fraction <= 1, "a number in (0, 1]")
        for field in ("epsilon", "noise_var", "gamma"):
            check(self, field, is_number(getattr(self, field)) and getattr(self, field) > 0, "a number > 0")
        check(self, "tau", is_number(self.tau) and self.tau >= 0, "a number >= 0")

    def rewrite_all(self, tensors: Tensors, generator: torch.Generator) -> Tensors:
        flat = _flat(tensors)
        most = max(1, round(self.fraction * len(flat)))
        second = self.epsilon * (2 * most) ** (2 / 3)
        threshold = self.tau + 2 * self.gamma / self.epsilon * float(laplace(torch.Size([1]), generator))
        noise = laplace(flat.shape, generator).to(flat.device)
        scores = flat.abs().clamp(max=self.gamma) + 4 * self.gamma * most / second * noise
        passed = (scores >= threshold).nonzero().squeeze(1)
        order = torch.randperm(len(passed), generator=generator)[:most].to(flat.device)
        chosen = passed[order]
        values = flat[chosen] + 2 * self.gamma / self.noise_var * laplace(chosen.shape, generator).to(flat.device)
        sparse = torch.zeros_like(flat)
        sparse[chosen] = values.clamp(-self.gamma, self.gamma)
        return _apart(sparse, tensors)


def _flat(tensors: Tensors) -> Tensor:
    """All entries of an update as one float64 vector."""
    return torch.cat([tensor.double().reshape(-1) for tensor in tensors.values()])


def _apart(flat: Tensor, like: Tensors) -> Tensors:
    """A vector back into tensors of the given names, shapes and dtypes."""
    parts = torch.split(flat, [tensor.numel() for tensor in like.values()])
    return {name: part.reshape(tensor.shape).to(tensor.dtype) for part, (name, tensor) in zip(parts, like.items(), strict=True)}
