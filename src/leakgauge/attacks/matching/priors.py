"""Priors: what the attacker believes about inputs before seeing the update."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from leakgauge.core.batch_statistics import BatchStatistics
from leakgauge.core.spec import ImageSpec
from leakgauge.local.batchnorm import batch_statistics
from leakgauge.local.network import Network


@dataclass(frozen=True)
class Context:
    """What a prior may look at beside the candidate.

    Args:
        network: the public network.
        spec: shape and range of one input, where inputs are pictures.
        batch_norm: the batch's statistics by layer, where granted.
    """

    network: Network
    spec: ImageSpec | None
    batch_norm: Mapping[str, BatchStatistics]


class Prior(ABC):
    """A penalty on one candidate; its weight is part of it."""

    @abstractmethod
    def __call__(self, candidate: Tensor, context: Context) -> Tensor:
        """Scalar >= 0 for a candidate of shape (N, *shape) in model space."""


def total_variation(images: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring pixels, horizontally and vertically; (..., H, W) -> scalar."""
    across = (images[..., :, 1:] - images[..., :, :-1]).abs().mean() if images.shape[-1] > 1 else images.new_zeros(())
    down = (images[..., 1:, :] - images[..., :-1, :]).abs().mean() if images.shape[-2] > 1 else images.new_zeros(())
    return across + down


@dataclass(frozen=True)
class TotalVariation(Prior):
    """Anisotropic total variation (Geiping et al. 2020, equation 4)."""

    weight: float = 0.1

    def __call__(self, candidate: Tensor, context: Context) -> Tensor:  # noqa: ARG002
        return self.weight * total_variation(candidate)


@dataclass(frozen=True)
class L2Norm(Prior):
    """Mean squared distance from mid-grey, in model space."""

    weight: float = 1e-6

    def __call__(self, candidate: Tensor, context: Context) -> Tensor:
        if context.spec is None:
            return self.weight * candidate.square().mean()
        low, high = context.spec.bounds(candidate)
        return self.weight * (candidate - (low + high) / 2).square().mean()


@dataclass(frozen=True)
class Box(Prior):
    """Mean squared excess over the range of possible pixels."""

    weight: float = 1.0

    def __call__(self, candidate: Tensor, context: Context) -> Tensor:
        if context.spec is None:
            return candidate.new_zeros(())
        low, high = context.spec.bounds(candidate)
        return self.weight * ((low - candidate).clamp(min=0).square() + (candidate - high).clamp(min=0).square()).mean()


@dataclass(frozen=True)
class BatchNormPrior(Prior):
    """Squared distance between the candidate's and the client's batch statistics (Yin et al. 2021, equation 9).

    Args:
        weight: of the sum over layers of relative squared distances of mean and variance.
    """

    weight: float = 0.1

    def __call__(self, candidate: Tensor, context: Context) -> Tensor:
        if not context.batch_norm:
            return candidate.new_zeros(())
        found = batch_statistics(context.network, candidate)
        parts = []
        for name, wanted in context.batch_norm.items():
            mean, var = found[name]
            target_mean, target_var = wanted.mean.to(mean), wanted.var.to(var)
            parts += [
                (mean - target_mean).square().sum() / target_mean.square().sum().clamp(min=1e-12),
                (var - target_var).square().sum() / target_var.square().sum().clamp(min=1e-12),
            ]
        return self.weight * torch.stack(parts).sum() / len(context.batch_norm)


@dataclass(frozen=True)
class GroupConsistency:
    """Pulls each restart towards the mean of all running restarts (Yin et al. 2021, equation 11, without registration).

    It couples restarts, so the problem applies it, not the candidate's own sum of priors.
    """

    weight: float = 0.01

    def pull(self, candidates: Tensor) -> Tensor:
        """(R,) penalties for candidates (R, ...)."""
        mean = candidates.detach().mean(0, keepdim=True)
        return self.weight * (candidates - mean).square().flatten(1).mean(1)
