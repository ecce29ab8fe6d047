"""Additive noise on every shared number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from leakgauge.defences.base import Defence
from leakgauge.errors import OptionError


@dataclass(frozen=True)
class GaussianNoise(Defence):
    """Adds N(0, std^2) to every shared number (Zhu et al. 2019, section 5.1).

    Args:
        std: standard deviation >= 0, in the units of the update; 0 changes nothing.
    """

    std: float
    name: ClassVar[str] = "gaussian-noise"

    def __post_init__(self) -> None:
        if not self.std >= 0:
            raise OptionError(f"GaussianNoise.std is {self.std!r}; expected a number >= 0.")

    def rewrite(self, tensor: Tensor, generator: torch.Generator) -> Tensor:
        if self.std == 0:
            return tensor
        noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
        return tensor + (self.std * noise).to(tensor)


@dataclass(frozen=True)
class LaplacianNoise(Defence):
    """Adds Laplace noise of the given scale to every shared number (Zhu et al. 2019, section 5.1).

    Args:
        scale: the Laplace scale b >= 0 (standard deviation sqrt(2) b), in the units of the update.
    """

    scale: float
    name: ClassVar[str] = "laplacian-noise"

    def __post_init__(self) -> None:
        if not self.scale >= 0:
            raise OptionError(f"LaplacianNoise.scale is {self.scale!r}; expected a number >= 0.")

    def rewrite(self, tensor: Tensor, generator: torch.Generator) -> Tensor:
        if self.scale == 0:
            return tensor
        uniform = torch.rand(tensor.shape, generator=generator, dtype=torch.float64) - 0.5
        noise = -uniform.sign() * torch.log1p(-2 * uniform.abs().clamp(max=0.5 - 1e-16))
        return tensor + (self.scale * noise).to(tensor)
