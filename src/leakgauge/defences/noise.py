"""Additive noise on every shared number: Gaussian, Laplacian, and Gaussian scaled by the update's own size."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from leakgauge.core.update import Update
from leakgauge.defences.base import Defence, Mechanism, Tensors, check, copied, is_number, refuse_weights, rewritten, switched
from leakgauge.registry import described


class Noise(Defence):
    """Adds independent noise to the shared tensors, and to floating buffers where `buffers` says so; counters never change."""

    buffers: bool

    @abstractmethod
    def scale_for(self, update: Update) -> float:
        """Scale of the noise; 0 changes nothing."""

    @abstractmethod
    def draw(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        """Noise of scale one, float64."""

    def protect(self, update: Update, *, generator: torch.Generator) -> Update:
        scale = self.scale_for(update)
        tensors = self._noisy(update.tensors, scale, generator)
        buffers = self._noisy(update.buffers, scale, generator) if self.buffers else copied(update.buffers)
        return rewritten(self, update, tensors, buffers)

    def _noisy(self, tensors: Mapping[str, Tensor], scale: float, generator: torch.Generator) -> Tensors:
        after = copied(tensors)
        if scale == 0:
            return after
        return {
            name: tensor + (scale * self.draw(tensor.shape, generator)).to(tensor) if tensor.is_floating_point() else tensor
            for name, tensor in after.items()
        }


@described(needs="nothing; a claim of privacy needs Clip before it", source="Zhu, Liu & Han 2019, section 5.1")
@dataclass(frozen=True)
class GaussianNoise(Noise):
    """Adds N(0, std^2) to every shared number (Zhu et al. 2019, section 5.1).

    Args:
        std: standard deviation >= 0, in the units of the update; 0 changes nothing.
        buffers: whether floating buffers, such as BatchNorm's running statistics, get noise too. A running variance may
            become negative; whoever loads it has to bound it from below.
    """

    std: float
    buffers: bool = False
    name: ClassVar[str] = "gaussian-noise"
    adaptive: ClassVar[str] = (
        "The attack minimises squared L2, the likelihood of Gaussian noise, or its cosine, which leaves the scale open."
    )

    def __post_init__(self) -> None:
        check(self, "std", is_number(self.std) and self.std >= 0, "a number >= 0")
        switched(self, "buffers")

    def scale_for(self, update: Update) -> float:  # noqa: ARG002 - fixed
        return self.std

    def draw(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    def mechanism(self) -> Mechanism:
        return Mechanism("gaussian", std=self.std)


@described(needs="nothing; no claim of privacy", source="Zhu, Liu & Han 2019, section 5.1")
@dataclass(frozen=True)
class LaplacianNoise(Noise):
    """Adds Laplace noise of the given scale to every shared number (Zhu et al. 2019, section 5.1).

    Args:
        scale: the Laplace scale b >= 0 (standard deviation sqrt(2) b), in the units of the update.
        buffers: whether floating buffers get noise too (see `GaussianNoise`).
    """

    scale: float
    buffers: bool = False
    name: ClassVar[str] = "laplacian-noise"
    adaptive: ClassVar[str] = "The attack minimises L1, the negative log-likelihood of Laplacian noise."

    def __post_init__(self) -> None:
        check(self, "scale", is_number(self.scale) and self.scale >= 0, "a number >= 0")
        switched(self, "buffers")

    def scale_for(self, update: Update) -> float:  # noqa: ARG002 - fixed
        return self.scale

    def draw(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        return laplace(shape, generator)


@described(needs="a gradient or weight change; no claim of privacy", source="Hatamizadeh et al. 2023; NVFlare's GaussianPrivacy")
@dataclass(frozen=True)
class PercentileNoise(Noise):
    """Adds Gaussian noise whose size follows the update's own (NVFlare's GaussianPrivacy).

    The standard deviation is `sigma0` times a percentile of the non-zero magnitudes over all shared parameters. It depends on
    the private data, so that no privacy follows from it.

    Args:
        sigma0: factor >= 0; 0 changes nothing.
        percentile: in [0, 100].
        buffers: whether floating buffers get noise too, as in NVFlare (where they count into the percentile, too).
    """

    sigma0: float
    percentile: float = 95.0
    buffers: bool = True
    name: ClassVar[str] = "percentile-noise"
    adaptive: ClassVar[str] = (
        "The attack minimises squared L2, the likelihood of Gaussian noise, or its cosine, which leaves the scale open."
    )

    def __post_init__(self) -> None:
        check(self, "sigma0", is_number(self.sigma0) and self.sigma0 >= 0, "a number >= 0")
        check(self, "percentile", is_number(self.percentile) and 0 <= self.percentile <= 100, "a number in [0, 100]")
        switched(self, "buffers")

    def scale_for(self, update: Update) -> float:
        refuse_weights(self, update)
        if self.sigma0 == 0:
            return 0.0
        magnitudes = torch.cat([tensor.detach().double().abs().reshape(-1).cpu() for tensor in update.tensors.values()])
        return self.sigma0 * percentile_of(magnitudes[magnitudes > 0], self.percentile)

    def draw(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)


def laplace(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Laplace noise of scale one, float64."""
    uniform = torch.rand(shape, generator=generator, dtype=torch.float64) - 0.5
    return -uniform.sign() * torch.log1p(-2 * uniform.abs().clamp(max=0.5 - 1e-16))


def percentile_of(values: Tensor, percentile: float) -> float:
    """The percentile with linear interpolation; 0 where there are no values."""
    found = float(np.percentile(values.numpy(), percentile)) if len(values) else 0.0
    return found if math.isfinite(found) else 0.0
