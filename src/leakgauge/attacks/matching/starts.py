"""Where a search starts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from leakgauge.core.spec import ImageSpec
from leakgauge.errors import ShapeError


class Start(ABC):
    """Draws the starting inputs of several restarts."""

    @abstractmethod
    def draw(self, shape: tuple[int, ...], spec: ImageSpec | None, generator: torch.Generator) -> Tensor:
        """(R, N, C, H, W) in model space for `shape` = (R, N, C, H, W)."""


def _in_model_space(pixels: Tensor, spec: ImageSpec | None) -> Tensor:
    return pixels if spec is None else spec.normalise(pixels)


@dataclass(frozen=True)
class Noise(Start):
    """Independent N(0, std^2) in model space, as DLG starts."""

    std: float = 1.0

    def draw(self, shape: tuple[int, ...], spec: ImageSpec | None, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        return self.std * torch.randn(shape, generator=generator)


@dataclass(frozen=True)
class Uniform(Start):
    """Independent uniform pixels in [0, 1]."""

    def draw(self, shape: tuple[int, ...], spec: ImageSpec | None, generator: torch.Generator) -> Tensor:
        return _in_model_space(torch.rand(shape, generator=generator), spec)


@dataclass(frozen=True)
class Grey(Start):
    """Mid-grey pixels with a little noise, so that restarts and examples differ.

    Args:
        noise: standard deviation of the noise, in pixels of [0, 1].
    """

    noise: float = 0.05

    def draw(self, shape: tuple[int, ...], spec: ImageSpec | None, generator: torch.Generator) -> Tensor:
        return _in_model_space(0.5 + self.noise * torch.randn(shape, generator=generator), spec)


@dataclass(frozen=True)
class Given(Start):
    """Inputs handed over, (N, C, H, W) in model space, the same for each restart."""

    inputs: Tensor

    def draw(self, shape: tuple[int, ...], spec: ImageSpec | None, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        if tuple(self.inputs.shape) != shape[1:]:
            raise ShapeError(f"The starting inputs have shape {tuple(self.inputs.shape)}; expected {shape[1:]}.")
        return self.inputs.expand(shape).clone()


@dataclass(frozen=True)
class PriorPicture(Start):
    """A public picture in every slot: a class mean, any picture of the kind, or one for each example.

    Args:
        pixels: (C, H, W) or (N, C, H, W) in [0, 1].
        noise: standard deviation of noise on all but the first restart, in pixels.
    """

    pixels: Tensor
    noise: float = 0.05

    def draw(self, shape: tuple[int, ...], spec: ImageSpec | None, generator: torch.Generator) -> Tensor:
        if tuple(self.pixels.shape) not in (shape[1:], shape[2:]):
            raise ShapeError(f"The prior picture has shape {tuple(self.pixels.shape)}; expected {shape[2:]} or {shape[1:]}.")
        drawn = self.pixels.float().expand(shape).clone()
        drawn[1:] += self.noise * torch.randn(drawn[1:].shape, generator=generator)
        return _in_model_space(drawn, spec)


def start_named(name: str) -> Start:
    """'noise', 'uniform' or 'grey'."""
    from leakgauge.errors import OptionError, did_you_mean

    starts: dict[str, Start] = {"noise": Noise(), "uniform": Uniform(), "grey": Grey()}
    if name not in starts:
        raise OptionError(f"There is no start {name!r}.{did_you_mean(name, starts)}")
    return starts[name]


@dataclass(frozen=True)
class Mixed(Start):
    """Restart r starts as the r-th of several starts says, round and round."""

    starts: tuple[Start, ...]

    def draw(self, shape: tuple[int, ...], spec: ImageSpec | None, generator: torch.Generator) -> Tensor:
        rows = [self.starts[index % len(self.starts)].draw((1, *shape[1:]), spec, generator) for index in range(shape[0])]
        return torch.cat(rows)
