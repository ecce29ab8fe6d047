"""The stacked system [E W; K] of one layer, matrix-free, its rows weighted by their expected errors."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from leakgauge.attacks.recursive.known import Known
from leakgauge.chain.operators import LayerOperator, block_is_small
from leakgauge.linalg import Preconditioner, Product, cholesky_preconditioner

FAINT = 1e-7  # singular values of a gradient block below it, relative to the largest, count as zero
STRETCH = 30.0


@dataclass(frozen=True)
class Evened:
    """A well-conditioned system in y, with x = P y.

    Args:
        apply, adjoint: A P on (S, n) and its transpose.
        right: right-hand sides (S, m) of the stack as those of this system.
        even: P.
    """

    apply: Product
    adjoint: Product
    right: Product
    even: Preconditioner

    @staticmethod
    def of(stack: Stack, even: Preconditioner) -> Evened:
        """The stack with any preconditioner."""
        return Evened(lambda y: stack.apply(even.apply(y)), lambda u: even.adjoint(stack.adjoint(u)), lambda rows: rows, even)


class Stack:
    """[E W; K] on flat samples (S, n) -> (S, m).

    The ideal weight of a row is one over its expected error; the weight of the gradient rows as a whole stays within a factor
    `STRETCH` of balance with the value rows, since a wide spread slows the iteration.

    Args:
        operator: of the layer.
        known: at its output.
        gradients: whether there are gradient rows.
        noise: expected error of the gradient's entries.
    """

    def __init__(self, operator: LayerOperator, known: Known, gradients: bool, noise: float) -> None:
        self.operator, self.known, self.gradients = operator, known, gradients
        self.block = operator.gradient_block(known.cotangent) if gradients and block_is_small(operator) else None
        self.columns = math.prod(operator.input_shape)
        self.values = math.prod(known.value.shape)
        self.value_weight, self.gradient_weight = self._weights(noise)

    def _weights(self, noise: float) -> tuple[Tensor, float]:
        known, operator = self.known, self.operator
        found = known.sigma[known.mask]
        middle = float(found.median()) if len(found) else 0.0
        relative = known.mask.to(known.sigma)
        if middle > 0:
            relative = relative * middle / known.sigma.clamp(min=1e-3 * middle, max=1e3 * middle)
        if not self.gradients:
            return relative, 0.0
        draw = torch.randn(1, *operator.input_shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        draw = draw.to(relative)
        rows = float(operator.weight_gradient(draw, known.cotangent).norm())
        shown = float((known.seen(operator.apply(draw)) * relative).norm())
        if rows == 0 or shown == 0:
            return relative, 1.0 if rows == 0 else 1 / rows
        balance = shown / rows
        ideal = middle / noise if noise > 0 and middle > 0 else balance
        return relative, min(max(ideal, balance / STRETCH), balance * STRETCH)

    def apply(self, flat: Tensor) -> Tensor:
        """The rows for (S, n)."""
        inputs = flat.reshape(-1, *self.operator.input_shape)
        values = (self.known.seen(self.operator.apply(inputs)) * self.value_weight).flatten(1)
        if not self.gradients:
            return values
        if self.block is None:
            gradients = self.operator.weight_gradient(inputs, self.known.cotangent).flatten(1)
        else:
            groups, _, columns = self.block.shape
            gradients = (inputs.reshape(len(inputs), groups, -1, columns) @ self.block.transpose(1, 2)).flatten(1)
        return torch.cat([values, gradients * self.gradient_weight], 1)

    def adjoint(self, flat: Tensor) -> Tensor:
        """The transpose, for (S, m)."""
        values = flat[:, : self.values].reshape(-1, *self.known.value.shape) * self.value_weight
        found = self.operator.adjoint(self.known.seen_adjoint(values)).flatten(1)
        if not self.gradients:
            return found
        rows = flat[:, self.values :] * self.gradient_weight
        if self.block is None:
            inputs = self.operator.weight_gradient_adjoint(rows.reshape(-1, *self.operator.weight_shape), self.known.cotangent)
        else:
            groups, height, _ = self.block.shape
            inputs = rows.reshape(len(rows), groups, -1, height) @ self.block
        return found + inputs.flatten(1)

    def right(self, values: Tensor, gradients: Tensor | None) -> Tensor:
        """Right-hand sides (S, m) from values (S, *value) and weight gradients (S, *weight)."""
        rows = (values * self.value_weight).flatten(1)
        if gradients is None:
            return rows
        flat = gradients.flatten(1)
        if self.block is not None:
            groups, height, _ = self.block.shape
            flat = self.operator.split(gradients).reshape(groups, height, -1, len(gradients)).permute(3, 0, 2, 1).flatten(1)
        return torch.cat([rows, flat * self.gradient_weight], 1)

    def preconditioner(self) -> Preconditioner:
        """A map x = P y on (S, n) that evens out the system's spectrum: A P is well conditioned where A is not.

        P scales pixels by the lengths of the value rows' columns, and within the row space of the gradient block, known by its
        singular vectors, divides by sqrt(1 + singular value^2): the strong gradient equations no longer slow the iteration.
        """
        if self.block is None:
            lengths = self._value_columns()
            total = lengths + self._signs() if self.gradients else lengths
            scale = total.clamp(min=max(float(total.max()) * 1e-8, 1e-300)).rsqrt()
            return Preconditioner.diagonal(scale)
        pixels, vectors, sizes = self._spectrum
        change = 1 / (1 + sizes.square()).sqrt() - 1
        groups, _, columns = self.block.shape
        shape = (-1, groups, self.columns // (groups * columns), columns)

        def even(inputs: Tensor) -> Tensor:
            return inputs + ((inputs @ vectors) * change[:, None]) @ vectors.transpose(1, 2)

        def forward(flat: Tensor) -> Tensor:
            return (even(flat.reshape(shape)) * pixels[:, None]).flatten(1)

        def backward(flat: Tensor) -> Tensor:
            return even(flat.reshape(shape) * pixels[:, None]).flatten(1)

        return Preconditioner(forward, backward)

    def evened(self) -> Evened:
        """A P as one operator, its gradient rows in the basis of their own singular vectors: fewer products for each step."""
        even = self.preconditioner()
        if self.block is None:
            return Evened.of(self, even)
        pixels, vectors, sizes = self._spectrum
        change = 1 / (1 + sizes.square()).sqrt() - 1
        strength = sizes * (1 + change)
        groups, height, columns = self.block.shape
        shape = (-1, groups, self.columns // (groups * columns), columns)
        turned = vectors.transpose(1, 2).contiguous()
        short = sizes.shape[1]

        def apply(flat: Tensor) -> Tensor:
            inputs = flat.reshape(shape)
            inner = inputs @ vectors
            inputs = ((inputs + (inner * change[:, None]) @ turned) * pixels[:, None]).reshape(-1, *self.operator.input_shape)
            values = (self.known.seen(self.operator.apply(inputs)) * self.value_weight).flatten(1)
            return torch.cat([values, (inner * strength[:, None]).flatten(1)], 1)

        def adjoint(flat: Tensor) -> Tensor:
            values = flat[:, : self.values].reshape(-1, *self.known.value.shape) * self.value_weight
            inputs = self.operator.adjoint(self.known.seen_adjoint(values)).reshape(shape) * pixels[:, None]
            rows = flat[:, self.values :].reshape(len(flat), groups, -1, short)
            inner = (inputs @ vectors) * change[:, None] + rows * strength[:, None]
            return (inputs + inner @ turned).flatten(1)

        def right(rows: Tensor) -> Tensor:
            """Rows of the stack (S, m) in the new basis: U^T g = V^T B^T g / sizes, with B the evened block."""
            own = rows[:, self.values :].reshape(len(rows), groups, -1, height)
            assert self.block is not None
            inner = ((own @ (self.block * pixels[:, None] * self.gradient_weight)) @ vectors) / sizes[:, None]
            return torch.cat([rows[:, : self.values], inner.flatten(1)], 1)

        return Evened(apply, adjoint, right, even)

    @cached_property
    def _spectrum(self) -> tuple[Tensor, Tensor, Tensor]:
        """Scales of the pixels (G, columns); right singular vectors (G, columns, r) and values (G, r) of the scaled block."""
        assert self.block is not None
        groups, height, columns = self.block.shape
        pixels = self._value_columns().reshape(groups, -1, columns).mean(1)
        top = float(pixels.max())
        pixels = pixels.clamp(min=1e-4 * top).rsqrt() if top > 0 else torch.ones_like(pixels)
        block = self.block * pixels[:, None] * self.gradient_weight
        wide = height < columns
        squares, basis = torch.linalg.eigh(block @ block.transpose(1, 2) if wide else block.transpose(1, 2) @ block)
        kept = (squares > FAINT**2 * squares.max()).any(0)
        kept[-1] = True  # also where no unit was active: one row of zeros
        squares, basis = squares[:, kept].clamp(min=(FAINT * 1e-3) ** 2 * float(squares.max()) + 1e-300), basis[:, :, kept]
        sizes = squares.sqrt()
        vectors = block.transpose(1, 2) @ basis / sizes[:, None] if wide else basis
        return pixels, vectors, sizes

    def factored(self) -> Preconditioner:
        """The inverse of the Cholesky factor of the normal matrix, which leaves next to no iterations.

        The value rows are sparse, and the gradient rows one block for all channels of a group, so that forming it is cheap.
        """
        eye = torch.eye(self.columns, dtype=self.known.sigma.dtype, device=self.known.sigma.device)
        shape = (-1, *self.operator.input_shape)
        rows = torch.cat(
            [
                (self.known.seen(self.operator.apply(part.reshape(shape))) * self.value_weight).flatten(1)
                for part in torch.split(eye, 256)
            ]
        )
        gram = _sparse_product(rows)
        if self.block is not None:
            groups, _, columns = self.block.shape
            own = self.block.transpose(1, 2) @ self.block * self.gradient_weight**2
            per = self.columns // (groups * columns)
            _add_blocks(gram, own, per)
        elif self.gradients:
            wide = torch.cat(
                [
                    self.operator.weight_gradient(part.reshape(shape), self.known.cotangent).flatten(1)
                    for part in torch.split(eye, 256)
                ]
            )
            gram += wide @ wide.T * self.gradient_weight**2
        return cholesky_preconditioner(gram)

    def _value_columns(self) -> Tensor:
        """(n,) squared lengths of the value rows' columns: exact, or from random signs where only a linear map is known."""
        if self.known.view is None:
            return self.operator.squared().adjoint((self.value_weight * self.known.mask).square()[None]).flatten()
        draws = _signs_like(self.known.sigma, 32, self.known.value.shape)
        return self.operator.adjoint(self.known.seen_adjoint(draws * self.value_weight)).square().mean(0).flatten()

    def _signs(self) -> Tensor:
        """(n,) squared lengths of the gradient rows' columns, estimated from random signs (Bekas, Kokiopoulou & Saad 2007)."""
        draws = _signs_like(self.known.sigma, 32, self.operator.weight_shape) * self.gradient_weight
        return self.operator.weight_gradient_adjoint(draws, self.known.cotangent).square().mean(0).flatten()


def _add_blocks(gram: Tensor, blocks: Tensor, repeats: int) -> None:
    """Adds (G, c, c) blocks, each `repeats` times in a row, along the diagonal."""
    at, size = 0, blocks.shape[1]
    for block in blocks:
        for _ in range(repeats):
            gram[at : at + size, at : at + size] += block
            at += size


def _sparse_product(rows: Tensor) -> Tensor:
    """rows @ rows.T for rows that are mostly zero."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR")
        product: Tensor = torch.sparse.mm(rows.to_sparse_csr(), rows.T.contiguous())
        return product


def _signs_like(like: Tensor, samples: int, shape: tuple[int, ...]) -> Tensor:
    draws = torch.randint(0, 2, (samples, *shape), generator=torch.Generator().manual_seed(1))
    return draws.to(like) * 2 - 1
