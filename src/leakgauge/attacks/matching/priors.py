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
    """Pulls each restart towards the registered mean of all running restarts (Yin et al. 2021, equations 11 and 12).

    Networks hardly tell a picture from a slightly shifted one, so that restarts settle at different shifts and their plain mean
    is blurred. Each candidate is first shifted by whole pixels to where it correlates best with the first restart; the mean of
    the shifted ones, shifted back, is what it is pulled towards. It couples restarts, so the problem applies it, not the
    candidate's own sum of priors.

    Args:
        weight: of the mean squared distance from the mean.
        shift: largest shift in pixels, each way; 0 takes the plain mean.
    """

    weight: float = 0.01
    shift: int = 0

    def pull(self, candidates: Tensor) -> Tensor:
        """(R,) penalties for candidates (R, N, C, H, W)."""
        others = candidates.detach()
        if self.shift > 0 and others.ndim == 5:
            moves = best_shifts(others, others[:1], self.shift)
            mean = shifted(others, moves).mean(0, keepdim=True)
            wanted = shifted(mean.expand_as(others), -moves)
        else:
            wanted = others.mean(0, keepdim=True)
        return self.weight * (candidates - wanted).square().flatten(1).mean(1)


def best_shifts(pictures: Tensor, reference: Tensor, limit: int) -> Tensor:
    """(R, N, 2) whole-pixel cyclic shifts, each within +-limit, under which pictures correlate best with the reference.

    Args:
        pictures: (R, N, C, H, W).
        reference: (1, N, C, H, W).
        limit: pixels.
    """
    height, width = pictures.shape[-2:]
    rows, columns = min(limit, (height - 1) // 2), min(limit, (width - 1) // 2)
    centred = [part - part.mean((-2, -1), keepdim=True) for part in (pictures, reference)]
    spectra = [torch.fft.rfft2(part.float()) for part in centred]
    correlation = torch.fft.irfft2(spectra[1] * spectra[0].conj(), s=(height, width)).sum(2)  # (R, N, H, W)
    window = torch.roll(correlation, (rows, columns), (-2, -1))[..., : 2 * rows + 1, : 2 * columns + 1]
    flat = window.flatten(-2).argmax(-1)
    return torch.stack([flat // (2 * columns + 1) - rows, flat % (2 * columns + 1) - columns], -1)


def shifted(pictures: Tensor, moves: Tensor) -> Tensor:
    """Pictures (R, N, C, H, W), each rolled by its own (R, N, 2) rows and columns."""
    rows = [
        torch.stack([torch.roll(picture, tuple(move), (-2, -1)) for picture, move in zip(row, row_moves, strict=True)])
        for row, row_moves in zip(pictures, moves.tolist(), strict=True)
    ]
    return torch.stack(rows)
