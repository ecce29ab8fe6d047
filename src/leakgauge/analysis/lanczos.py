r"""Stochastic Lanczos quadrature of $v^T (I + A)^{-1} v$, with bounds from both sides.

A is symmetric, without negative eigenvalues, and known by its products only. k steps give a tridiagonal matrix T whose
eigenvalues and first eigenvector entries are the nodes and weights of a Gauss rule. Since $1/(1+\lambda)$ has derivatives of
alternating sign, the Gauss rule is a lower bound, and the Gauss-Radau rule with a node at the lower end of the spectrum an
upper one.

Source: Golub & Meurant 1994, Matrices, moments and quadrature; Ubaru, Chen & Saad 2017.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

END = -1e-3  # just below the spectrum, so that a null space that was found leaves the Radau rule regular
EVERY = 10
ROUNDING = 1e-13


@dataclass(frozen=True)
class Bracket:
    """Bounds of v^T (I + A)^{-1} v for each start v.

    Args:
        lower: by the Gauss rule, (k,).
        upper: by the Gauss-Radau rule, (k,).
        steps: products with A taken for each.
    """

    lower: Tensor
    upper: Tensor
    steps: int

    @property
    def middle(self) -> Tensor:
        """The estimate, (k,)."""
        return (self.lower + self.upper) / 2


def quadrature(product: Callable[[Tensor], Tensor], starts: Tensor, steps: int, tolerance: float) -> Bracket:
    """Brackets v^T (I + A)^{-1} v for each row v of `starts`, (k, n), by Lanczos with full reorthogonalisation.

    Args:
        product: (k, n) to (k, n), A applied to each row.
        starts: (k, n), none of them zero.
        steps: products at most for each start; n of them are exact.
        tolerance: width of the mean bracket, relative to the mean, at which it stops.
    """
    squares = starts.square().sum(1)
    steps = min(steps, starts.shape[1])
    basis = starts.new_zeros(len(starts), steps + 1, starts.shape[1])
    basis[:, 0] = starts / squares.sqrt()[:, None]
    diagonal = starts.new_zeros(len(starts), steps)
    beside = starts.new_zeros(len(starts), steps)
    bracket = Bracket(torch.zeros_like(squares), squares, 0)
    for step in range(1, steps + 1):
        image = product(basis[:, step - 1])
        diagonal[:, step - 1] = (basis[:, step - 1] * image).sum(1)
        held = basis[:, :step]
        for _ in range(2):
            image = image - torch.einsum("ksn,ks->kn", held, torch.einsum("ksn,kn->ks", held, image))
        length = image.norm(dim=1)
        alive = length > ROUNDING * diagonal.abs().amax(1).clamp(min=1.0)  # else the Krylov space is complete
        beside[:, step - 1] = torch.where(alive, length, 0.0)
        basis[:, step] = torch.where(alive[:, None], image / length.clamp(min=1e-300)[:, None], 0.0)
        if step % EVERY == 0 or step == steps or not bool(alive.any()):
            bracket = _bracket(diagonal[:, :step], beside[:, :step], squares, step)
            width = (bracket.upper - bracket.lower).mean()
            if float(width) <= tolerance * float(bracket.middle.mean()) or not bool(alive.any()):
                break
    return bracket


def _bracket(diagonal: Tensor, beside: Tensor, squares: Tensor, step: int) -> Bracket:
    inner = _tridiagonal(diagonal, beside[:, :-1])
    shifted = inner - END * torch.eye(step, dtype=inner.dtype, device=inner.device)
    unit = torch.zeros(len(inner), step, 1, dtype=inner.dtype, device=inner.device)
    unit[:, -1] = 1
    corner = torch.linalg.solve(shifted, unit)[:, -1, 0]
    last = END + beside[:, -1].square() * corner
    outer = _tridiagonal(torch.cat([diagonal, last[:, None]], 1), beside)
    return Bracket(_rule(inner) * squares, _rule(outer) * squares, step)


def _tridiagonal(diagonal: Tensor, beside: Tensor) -> Tensor:
    return torch.diag_embed(diagonal) + torch.diag_embed(beside, 1) + torch.diag_embed(beside, -1)


def _rule(matrix: Tensor) -> Tensor:
    """Sum of weight / (1 + node), (k,)."""
    nodes, vectors = torch.linalg.eigh(matrix)
    total: Tensor = (vectors[:, 0].square() / (1.0 + nodes.clamp(min=END))).sum(1)
    return total
