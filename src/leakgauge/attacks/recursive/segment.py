"""Several links together: all their equations as one function of the first one's input, with its exact linearisation.

With the output z of the last link and the gradient k of the loss in it known, the gradients of all weights inside are those of
<k, z(x)>, a function of x alone: equations of layers before a deficient one complete it (R-GAP's virtual constraints,
turned from a count into equations).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from leakgauge.attacks.recursive.known import Known, linear_map
from leakgauge.attacks.recursive.problem import Problem
from leakgauge.chain.link import Link
from leakgauge.chain.operators import ConvOperator, LayerOperator, LinearOperator, operator_of
from leakgauge.linalg import Product


@dataclass(frozen=True)
class Linearised:
    """The equations at one point: residual (m,), and its derivative in the input on samples (S, n) <-> (S, m)."""

    residual: Tensor
    apply: Product = field(repr=False)
    adjoint: Product = field(repr=False)


class Segment(Protocol):
    """Equations r(x) = 0 in the input (n,) of the first of some links, weighted by their expected errors."""

    @property
    def unknowns(self) -> int:
        """Values of the input."""
        ...

    @property
    def equations(self) -> int:
        """Rows."""
        ...

    def residual(self, point: Tensor) -> Tensor:
        """(n,) -> (m,)."""
        ...

    def linearised(self, point: Tensor) -> Linearised:
        """The residual with its derivative."""
        ...


@dataclass(frozen=True)
class Weights:
    """One over the expected error of each equation: of the known values, and of each gradient by parameter name."""

    values: Tensor
    gradients: dict[str, float]


def weights_of(problem: Problem, known: Known, links: tuple[Link, ...], noise: Callable[[str], float]) -> Weights:
    """Weights that whiten the equations of some links; `noise` gives the expected error of each gradient by name."""
    names = [name for link in links for name in link.parameters if name in problem.gradients]
    return Weights(known.mask / known.sigma.clamp(min=1e-300), {name: 1 / max(noise(name), 1e-300) for name in names})


class PlainSegment:
    """A run of links without side branches: every product by hand, as convolutions.

    Args:
        problem: gradients and state.
        links: the run, input side first; the last has weights.
        known: at the output of the last link.
        weights: of the equations.
    """

    def __init__(self, problem: Problem, links: tuple[Link, ...], known: Known, weights: Weights) -> None:
        self.problem, self.links, self.known, self.weights = problem, links, known, weights
        state = problem.state
        self.operators: dict[int, LayerOperator] = {}
        self.maps: dict[int, tuple[Product, Product]] = {}
        for index, link in enumerate(links):
            if link.kind in ("conv", "linear"):
                self.operators[index] = operator_of(link, state)
            elif link.activation is None:
                self.maps[index] = _map_of(link, problem)
        self.unknowns = math.prod(links[0].input_shape)
        self.rows = [
            (index, name)
            for index, link in enumerate(links)
            for name in link.parameters
            if link.kind in ("conv", "linear") and name in problem.gradients
        ]
        self.equations = int(known.mask.sum()) + sum(problem.gradients[name].numel() for _, name in self.rows)
        self.curved = any(
            link.activation is not None and bool(link.activation.curvature(torch.linspace(-2, 2, 9)).any()) for link in links
        )

    def residual(self, point: Tensor) -> Tensor:
        """The weighted residual at (n,)."""
        inputs, cotangents = self._run(point)
        return self._residual(inputs, cotangents)

    def linearised(self, point: Tensor) -> Linearised:
        """Residual and derivative at (n,)."""
        inputs, cotangents = self._run(point)
        slopes = {
            index: (link.activation.derivative(inputs[index]), link.activation.curvature(inputs[index]) * cotangents[index])
            for index, link in enumerate(self.links)
            if link.activation is not None
        }
        return Linearised(
            self._residual(inputs, cotangents),
            lambda flat: self._apply(flat, inputs, cotangents, slopes),
            lambda flat: self._adjoint(flat, inputs, cotangents, slopes),
        )

    def _run(self, point: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Inputs of every link and the final output; loss gradients in the output of every link."""
        inputs = [point.reshape(self.links[0].input_shape)]
        for link in self.links:
            inputs.append(link.function(inputs[-1][None], self.problem.state)[0])
        cotangents = [self.known.cotangent]
        for index in range(len(self.links) - 1, 0, -1):
            cotangents.append(self._back(index, cotangents[-1][None], inputs)[0])
        return inputs, cotangents[::-1]

    def _back(self, index: int, cotangent: Tensor, inputs: list[Tensor]) -> Tensor:
        activation = self.links[index].activation
        if activation is not None:
            return cotangent * activation.derivative(inputs[index])
        return self.operators[index].adjoint(cotangent) if index in self.operators else self.maps[index][1](cotangent)

    def _residual(self, inputs: list[Tensor], cotangents: list[Tensor]) -> Tensor:
        known = self.known
        parts = [((known.seen(inputs[-1][None])[0] - known.value) * self.weights.values).flatten()]
        for index, name in self.rows:
            if name == self.links[index].weight:
                found = self.operators[index].weight_gradient(inputs[index][None], cotangents[index])[0]
            else:
                found = _summed(cotangents[index][None])[0]
            parts.append(((found - self.problem.gradients[name]) * self.weights.gradients[name]).flatten())
        return torch.cat(parts)

    def _apply(
        self, flat: Tensor, inputs: list[Tensor], cotangents: list[Tensor], slopes: dict[int, tuple[Tensor, Tensor]]
    ) -> Tensor:
        moves = [flat.reshape(-1, *self.links[0].input_shape)]
        for index in range(len(self.links)):
            if index in slopes:
                moves.append(moves[-1] * slopes[index][0])
            else:
                moves.append(self._linear(index)[0](moves[-1]))
        turns: dict[int, Tensor] = {}  # change of the loss gradient in the output of each link
        if self.curved:
            turn = torch.zeros_like(moves[-1])
            for index in range(len(self.links) - 1, -1, -1):
                turns[index] = turn
                if index in slopes:
                    turn = turn * slopes[index][0] + slopes[index][1] * moves[index]
                elif index:
                    turn = self._linear(index)[1](turn)
        parts = [(self.known.seen(moves[-1]) * self.weights.values).flatten(1)]
        for index, name in self.rows:
            weighted = name == self.links[index].weight
            if weighted:
                found = self.operators[index].weight_gradient(moves[index], cotangents[index])
                if self.curved:
                    found = found + _paired(self.operators[index], inputs[index], turns[index])
            elif self.curved:
                found = _summed(turns[index])
            else:
                found = flat.new_zeros(len(flat), self.problem.gradients[name].numel())
            parts.append((found * self.weights.gradients[name]).flatten(1))
        return torch.cat(parts, 1)

    def _adjoint(
        self, flat: Tensor, inputs: list[Tensor], cotangents: list[Tensor], slopes: dict[int, tuple[Tensor, Tensor]]
    ) -> Tensor:
        samples, last = len(flat), len(self.links)
        size = self.known.value.numel()
        moves: dict[int, Tensor] = {}
        turns: dict[int, Tensor] = {}
        at = size
        for index, name in self.rows:
            gradient = self.problem.gradients[name]
            part = (flat[:, at : at + gradient.numel()] * self.weights.gradients[name]).reshape(samples, *gradient.shape)
            at += gradient.numel()
            if name == self.links[index].weight:
                _add(moves, index, self.operators[index].weight_gradient_adjoint(part, cotangents[index]))
                if self.curved:
                    _add(turns, index, _paired_adjoint(self.operators[index], inputs[index], part))
            elif self.curved:
                _add(
                    turns,
                    index,
                    part.reshape(samples, -1, *[1] * (cotangents[index].ndim - 1)).expand(samples, *cotangents[index].shape),
                )
        for index in range(last) if self.curved else ():  # the loss gradients were computed from the output: now the other way
            below = turns.pop(index - 1, None) if index else None
            if below is None:
                continue
            if index in slopes:
                _add(turns, index, below * slopes[index][0])
                _add(moves, index, below * slopes[index][1])
            else:
                _add(turns, index, self._linear(index)[0](below))
        values = flat[:, :size].reshape(samples, *self.known.value.shape) * self.weights.values
        move = self.known.seen_adjoint(values)
        for index in range(last - 1, -1, -1):
            move = move * slopes[index][0] if index in slopes else self._linear(index)[1](move)
            if index in moves:
                move = move + moves[index]
        return move.flatten(1)

    def _linear(self, index: int) -> tuple[Product, Product]:
        if index in self.operators:
            return self.operators[index].apply, self.operators[index].adjoint
        return self.maps[index]


def _add(store: dict[int, Tensor], index: int, value: Tensor) -> None:
    store[index] = store[index] + value if index in store else value


def _summed(cotangents: Tensor) -> Tensor:
    """Bias gradients (S, C) from (S, C, *positions)."""
    return cotangents.flatten(2).sum(2) if cotangents.ndim > 2 else cotangents


def _map_of(link: Link, problem: Problem) -> tuple[Product, Product]:
    like = next(iter(problem.state.values()))
    if link.kind == "identity":
        return (lambda x: x), (lambda y: y)
    if link.kind == "reshape":
        return (lambda x: x.reshape(len(x), *link.output_shape)), (lambda y: y.reshape(len(y), *link.input_shape))
    if link.kind == "affine":
        zeros = torch.zeros(1, *link.input_shape, dtype=like.dtype, device=like.device)
        scale = (link.function(torch.ones_like(zeros), problem.state) - link.function(zeros, problem.state))[0]
        return (lambda x: x * scale), (lambda y: y * scale)
    return linear_map(link, problem.state, like)


def _paired(operator: LayerOperator, inputs: Tensor, cotangents: Tensor) -> Tensor:
    """Weight gradients (S, *weight) of one input with S output gradients."""
    return torch.cat([operator.weight_gradient(inputs[None], one) for one in cotangents])


def _paired_adjoint(operator: LayerOperator, inputs: Tensor, gradients: Tensor) -> Tensor:
    """Transpose of `_paired` in the output gradients: the layer itself with the gradient as its weight; (S, *output)."""
    if isinstance(operator, ConvOperator):
        return torch.cat([ConvOperator(one, operator.geometry).apply(inputs[None]) for one in gradients])
    assert isinstance(operator, LinearOperator)
    return torch.einsum("soi,i->so", gradients, inputs)
