"""Distances between two updates: what gradient matching makes small.

The distance that fits a known defence is the negative log-likelihood of its noise (Balunovic et al. 2022): Gaussian noise
dictates squared L2, Laplacian noise L1, pruning the comparison of what was kept.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from leakgauge.core.update import DefenceRecord

Tensors = Mapping[str, Tensor]


class Distance(ABC):
    """A pure function of the candidate's update and the observed one."""

    @abstractmethod
    def __call__(self, found: Tensors, target: Tensors) -> Tensor:
        """Scalar >= 0 (or a negative log-likelihood up to a constant)."""

    def residual(self, found: Tensors, target: Tensors) -> Tensor | None:  # noqa: ARG002
        """(m,) vector whose squared length is the distance, or None where the distance is not of that form."""
        return None


def _norm2(tensors: Tensors) -> Tensor:
    return torch.stack([tensor.square().sum() for tensor in tensors.values()]).sum().clamp(min=1e-30)


@dataclass(frozen=True)
class SquaredL2(Distance):
    """sum_l ||g'_l - g_l||^2 / ||g||^2 (Zhu et al. 2019, equation 4, relative to the observed update)."""

    def __call__(self, found: Tensors, target: Tensors) -> Tensor:
        return torch.stack([(found[name] - tensor).square().sum() for name, tensor in target.items()]).sum() / _norm2(target)

    def residual(self, found: Tensors, target: Tensors) -> Tensor:
        parts = [(found[name] - tensor).reshape(-1) for name, tensor in target.items()]
        return torch.cat(parts) / _norm2(target).sqrt()


@dataclass(frozen=True)
class L1(Distance):
    """sum_l |g'_l - g_l| / |g|: the distance for Laplacian noise."""

    def __call__(self, found: Tensors, target: Tensors) -> Tensor:
        scale = torch.stack([tensor.abs().sum() for tensor in target.values()]).sum().clamp(min=1e-30)
        return torch.stack([(found[name] - tensor).abs().sum() for name, tensor in target.items()]).sum() / scale


@dataclass(frozen=True)
class Cosine(Distance):
    """1 - <g', g> / (||g'|| ||g||) over the whole update (Geiping et al. 2020, equation 4)."""

    def __call__(self, found: Tensors, target: Tensors) -> Tensor:
        inner = torch.stack([(found[name] * tensor).sum() for name, tensor in target.items()]).sum()
        length = _norm2({name: found[name] for name in target})
        return 1 - inner / (length.sqrt() * _norm2(target).sqrt())


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


@dataclass(frozen=True)
class Kept(Distance):
    """A distance over the entries that pruning kept: those that are not zero in the observed update.

    Args:
        distance: applied to the kept entries; the others count as equal.
    """

    distance: Distance = SquaredL2()

    def __call__(self, found: Tensors, target: Tensors) -> Tensor:
        return self.distance({name: found[name] * (tensor != 0) for name, tensor in target.items()}, target)

    def residual(self, found: Tensors, target: Tensors) -> Tensor | None:
        return self.distance.residual({name: found[name] * (tensor != 0) for name, tensor in target.items()}, target)


def dictated_by(defences: Sequence[DefenceRecord]) -> Distance | None:
    """The negative log-likelihood (up to scale) that a known defence dictates; None where it dictates nothing."""
    names = [record.name for record in defences]
    distance: Distance | None = None
    if "laplacian-noise" in names:
        distance = L1()
    elif "gaussian-noise" in names:
        distance = SquaredL2()
    if "prune" in names:
        distance = Kept(distance or SquaredL2())
    return distance
