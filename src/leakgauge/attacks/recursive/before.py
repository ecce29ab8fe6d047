"""The layer before a deficient one, and the way between the two."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from leakgauge.attacks.recursive.problem import Problem
from leakgauge.chain.link import Link

SIZE = 60_000  # largest output of the layer before


@dataclass(frozen=True)
class Before:
    """The run of links between a layer and the layer before it.

    Args:
        links: from the earlier layer (included) to the deficient one (not included), input side first.
    """

    links: tuple[Link, ...]

    def back(self, values: Tensor, problem: Problem) -> tuple[Tensor, Tensor]:
        """(*input of the deficient layer) -> output of the earlier layer without its bias, and the slope of that map, flat."""
        slope = torch.ones_like(values)
        for link in reversed(self.links[1:]):
            if link.activation is not None:
                values = link.activation.inverse(values)
                slope = slope.reshape(values.shape) / link.activation.derivative(values)
            elif link.kind == "affine":
                zeros = torch.zeros(1, *link.input_shape, dtype=values.dtype, device=values.device)
                shift = link.function(zeros, problem.state)[0]
                scale = link.function(torch.ones_like(zeros), problem.state)[0] - shift
                values, slope = (values - shift) / scale, slope / scale
            elif link.kind == "reshape":
                values, slope = values.reshape(link.input_shape), slope.reshape(link.input_shape)
        first = self.links[0]
        if first.bias is not None:
            values = values - problem.state[first.bias].reshape(-1, *[1] * (values.ndim - 1))
        return values.flatten(), slope.flatten()

    def forward(self, values: Tensor, problem: Problem) -> Tensor:
        """(*output of the earlier layer without its bias) -> (*input of the deficient layer)."""
        first = self.links[0]
        if first.bias is not None:
            values = values + problem.state[first.bias].reshape(-1, *[1] * (values.ndim - 1))
        for link in self.links[1:]:
            values = link.function(values[None], problem.state)[0]
        return values


def layer_before(problem: Problem, position: int) -> Before | None:
    """The earlier layer, where it has more outputs than inputs and everything in between can be inverted; else None."""
    links = problem.chain.links
    for earlier in range(position - 1, -1, -1):
        link = links[earlier]
        if link.kind in ("conv", "linear"):
            spare = math.prod(link.output_shape) - math.prod(link.input_shape)
            return Before(links[earlier:position]) if spare > 0 and math.prod(link.output_shape) <= SIZE else None
        invertible = link.activation is not None and not link.activation.partial
        if not (invertible or link.kind in ("affine", "reshape", "identity")):
            return None
    return None
