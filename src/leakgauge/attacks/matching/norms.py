"""Distances between two updates that know of no defence, or of noise only."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import l1_loss

Tensors = Mapping[str, Tensor]


class Distance(ABC):
    """A pure function of the candidate's update and the observed one."""

    @property
    def stretch(self) -> float:
        """Factor on the objective under which its derivative is cheapest."""
        return 1.0

    @abstractmethod
    def __call__(self, found: Tensors, target: Tensors) -> Tensor:
        """Scalar >= 0 (or a negative log-likelihood up to a constant)."""

    def fitted(self, target: Tensors) -> Distance:  # noqa: ARG002
        """The same distance with what depends on the target alone computed once."""
        return self

    def single(self) -> Distance:
        """The same distance for one candidate outside torch.func, where it may be cheaper."""
        return self

    def residual(self, found: Tensors, target: Tensors) -> Tensor | None:  # noqa: ARG002
        """(m,) vector whose squared length is the distance, or None where the distance is not of that form."""
        return None


def squared_norm(tensors: Tensors) -> Tensor:
    """Sum of squares over all tensors, at least 1e-30."""
    return torch.stack([tensor.square().sum() for tensor in tensors.values()]).sum().clamp(min=1e-30)


class _SquaredDistance(torch.autograd.Function):
    """||a - b||^2 with few passes over memory, which is what a large network's distance costs.

    The difference is written into a workspace in pieces that stay in the cache until their length is taken.
    """

    @staticmethod
    def forward(ctx: Any, found: Tensor, target: Tensor, workspace: Tensor) -> Tensor:
        ctx.off, ctx.shape = workspace, found.shape
        if len(workspace) <= PIECE:
            torch.sub(found.reshape(-1), target.reshape(-1), out=workspace)
            return torch.dot(workspace, workspace)
        pieces = (torch.split(tensor, PIECE) for tensor in (found.reshape(-1), target.reshape(-1), workspace))
        parts = zip(*pieces, strict=True)
        return torch.stack([torch.dot(torch.sub(one, other, out=off), off) for one, other, off in parts]).sum()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:
        off: Tensor = ctx.off
        if float(slope) != 0.5:
            off.mul_(2 * slope)  # in place: the graph is used once
        return off.reshape(ctx.shape), None, None


PIECE = 1 << 18  # numbers handled at once


class SquaredL2Once(Distance):
    """`SquaredL2` for one candidate at a time, differentiated once per call; it keeps a workspace of the update's size."""

    def __init__(self, size: float) -> None:
        self.size = size
        self._workspace: dict[str, Tensor] = {}

    @property
    def stretch(self) -> float:
        return self.size / 2

    def __call__(self, found: Tensors, target: Tensors) -> Tensor:
        parts = []
        for name, tensor in target.items():
            space = self._workspace.setdefault(name, torch.empty_like(tensor).reshape(-1))
            parts.append(_SquaredDistance.apply(found[name], tensor, space))  # type: ignore[no-untyped-call]
        return torch.stack(parts).sum() / self.size


@dataclass(frozen=True)
class SquaredL2(Distance):
    """sum_l ||g'_l - g_l||^2 / ||g||^2 (Zhu et al. 2019, equation 4, relative to the observed update).

    Args:
        size: ||g||^2, where it is known already.
    """

    size: float | None = None

    def __call__(self, found: Tensors, target: Tensors) -> Tensor:
        size = squared_norm(target) if self.size is None else self.size
        return torch.stack([(found[name] - tensor).square().sum() for name, tensor in target.items()]).sum() / size

    def single(self) -> Distance:
        return self if self.size is None else SquaredL2Once(self.size)

    def fitted(self, target: Tensors) -> SquaredL2:
        return SquaredL2(float(squared_norm(target)))

    def residual(self, found: Tensors, target: Tensors) -> Tensor:
        parts = [(found[name] - tensor).reshape(-1) for name, tensor in target.items()]
        size = squared_norm(target) if self.size is None else torch.tensor(self.size, dtype=parts[0].dtype)
        return torch.cat(parts) / size.sqrt()


@dataclass(frozen=True)
class L1(Distance):
    """sum_l |g'_l - g_l| / |g|: the distance for Laplacian noise.

    With `smooth` > 0 it is d^2 / sqrt(d^2 + w^2) instead of |d|, w being `smooth` times the mean magnitude of the observation:
    searches then see no kinks, and least squares has a residual (one step is one of iteratively reweighted least squares).

    Args:
        size: |g|, where it is known already.
        smooth: width w around zero in mean magnitudes, >= 0.
    """

    size: float | None = None
    smooth: float = 0.0

    def __call__(self, found: Tensors, target: Tensors) -> Tensor:
        size = _absolute(target) if self.size is None else self.size
        if not self.smooth:
            return torch.stack([l1_loss(found[name], tensor, reduction="sum") for name, tensor in target.items()]).sum() / size
        width = self._width(target)
        parts = []
        for name, tensor in target.items():
            squares = (found[name] - tensor).square()
            parts.append((squares * torch.rsqrt(squares + width**2)).sum())
        return torch.stack(parts).sum() / size

    def fitted(self, target: Tensors) -> L1:
        return replace(self, size=float(_absolute(target)))

    def residual(self, found: Tensors, target: Tensors) -> Tensor | None:
        if not self.smooth:
            return None
        size = float(_absolute(target)) if self.size is None else self.size
        off = torch.cat([(found[name] - tensor).reshape(-1) for name, tensor in target.items()])
        weight = (off.detach().square() + self._width(target) ** 2).pow(-0.25)  # held while a step is made
        scaled: Tensor = off * weight / size**0.5
        return scaled

    def _width(self, target: Tensors) -> float:
        size = float(_absolute(target)) if self.size is None else self.size
        return self.smooth * size / sum(tensor.numel() for tensor in target.values())


def _absolute(tensors: Tensors) -> Tensor:
    return torch.stack([tensor.abs().sum() for tensor in tensors.values()]).sum().clamp(min=1e-30)


@dataclass(frozen=True)
class Cosine(Distance):
    """1 - <g', g> / (||g'|| ||g||) over the whole update (Geiping et al. 2020, equation 4).

    Args:
        size: ||g||^2, where it is known already.
    """

    size: float | None = None

    def __call__(self, found: Tensors, target: Tensors) -> Tensor:
        inner = torch.stack([torch.dot(found[name].reshape(-1), tensor.reshape(-1)) for name, tensor in target.items()]).sum()
        size = squared_norm(target) if self.size is None else torch.tensor(self.size, dtype=inner.dtype, device=inner.device)
        own = [torch.dot(part, part) for part in (found[name].reshape(-1) for name in target)]
        return 1 - inner / (torch.stack(own).sum().clamp(min=1e-30).sqrt() * size.sqrt())

    def fitted(self, target: Tensors) -> Cosine:
        return Cosine(float(squared_norm(target)))


@dataclass(frozen=True)
class LayerWeighted(Distance):
    """A weighted mean of a distance taken layer by layer.

    Args:
        distance: applied to each tensor alone.
        decay: weight of a tensor relative to the next one towards the output, > 0; 1 weighs all alike.
    """

    distance: Distance = SquaredL2()
    decay: float = 1.0

    def __call__(self, found: Tensors, target: Tensors) -> Tensor:
        count = len(target)
        weights = [self.decay ** (count - 1 - index) for index in range(count)]
        parts = [
            weight * self.distance({name: found[name]}, {name: tensor})
            for weight, (name, tensor) in zip(weights, target.items(), strict=True)
        ]
        return torch.stack(parts).sum() / sum(weights)

    def residual(self, found: Tensors, target: Tensors) -> Tensor | None:
        count = len(target)
        weights = [self.decay ** (count - 1 - index) for index in range(count)]
        parts = []
        for weight, (name, tensor) in zip(weights, target.items(), strict=True):
            part = self.distance.residual({name: found[name]}, {name: tensor})
            if part is None:
                return None
            parts.append(part * (weight / sum(weights)) ** 0.5)
        return torch.cat(parts)
