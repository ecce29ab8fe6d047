"""The same equations for links with side branches (residual blocks), by automatic differentiation."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from leakgauge.attacks.recursive.known import Known
from leakgauge.attacks.recursive.problem import Problem
from leakgauge.attacks.recursive.segment import Linearised, Weights
from leakgauge.chain.link import Link
from leakgauge.local.derivatives import directional


class GenericSegment:
    """Any run of links; products by forward- and reverse-mode derivatives of the replayed gradients.

    Args:
        problem: gradients and state.
        links: the run, input side first.
        known: at the output of the last link.
        weights: of the equations.
    """

    def __init__(self, problem: Problem, links: tuple[Link, ...], known: Known, weights: Weights) -> None:
        self.problem, self.links, self.known, self.weights = problem, links, known, weights
        self.names = tuple(name for link in links for name in link.parameters if name in problem.gradients)
        self.unknowns = math.prod(links[0].input_shape)
        self.equations = int(known.mask.sum()) + sum(problem.gradients[name].numel() for name in self.names)

    def residual(self, point: Tensor) -> Tensor:
        """The weighted residual at (n,)."""
        problem, known = self.problem, self.known
        inputs = point.reshape(1, *self.links[0].input_shape)

        def paired(weights: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
            values, state = inputs, {**problem.state, **weights}
            for link in self.links:
                values = link.function(values, state)
            return (values[0] * known.cotangent).sum(), values

        weights = {name: problem.state[name] for name in self.names}
        gradients, values = torch.func.grad(paired, has_aux=True)(weights)
        parts = [((known.seen(values)[0] - known.value) * self.weights.values).flatten()]
        for name in self.names:
            parts.append(((gradients[name] - problem.gradients[name]) * self.weights.gradients[name]).flatten())
        return torch.cat(parts)

    def linearised(self, point: Tensor) -> Linearised:
        """Residual and derivative at (n,)."""
        residual, backward, *_ = torch.func.vjp(self.residual, point)

        def forward(direction: Tensor) -> Tensor:
            return directional(self.residual, point, direction)

        return Linearised(
            residual.detach(),
            lambda flat: torch.stack([forward(row).detach() for row in flat]),
            lambda flat: torch.stack([backward(row)[0].detach() for row in flat]),
        )
