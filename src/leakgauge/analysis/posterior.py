r"""Posterior error of the linear-Gaussian picture, exactly or by stochastic Lanczos quadrature.

With $A = \Sigma^{1/2} J^T J \Sigma^{1/2} / s^2$: error $\frac1n \mathrm{tr}(\Sigma^{1/2} (I + A)^{-1} \Sigma^{1/2})$, leaked
dimensions $\mathrm{tr}(A (I + A)^{-1}) = n - \mathrm{tr}((I + A)^{-1})$.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from leakgauge.analysis.image_prior import ImagePrior
from leakgauge.analysis.jacobian import UpdateJacobian
from leakgauge.analysis.lanczos import quadrature

RANK_TOLERANCE = 1e-10  # singular values below this share of the largest count as zero
GRAM_TOLERANCE = 1e-7  # the same where they come from J^T J, whose rounding is the square root of that of J
TOLERANCE = 0.02  # relative width of the bracket at which Lanczos stops
BASIS_NUMBERS = 120_000_000  # Lanczos vectors held at a time, 8 bytes each number


@dataclass(frozen=True)
class Posterior:
    """What remains unknown at one picture.

    Args:
        error: mean squared error per value.
        leaked: effective number of leaked dimensions.
        deficit: n minus the numerical rank of J; None where only products of J were taken.
        error_spread: standard error of `error`; 0 where it is exact.
        leaked_spread: standard error of `leaked`.
    """

    error: float
    leaked: float
    deficit: int | None
    error_spread: float = 0.0
    leaked_spread: float = 0.0


def gram_factor(jacobian: UpdateJacobian) -> Tensor:
    """A square matrix F with F^T F = J^T J, from n products and without J; (n, n)."""
    eye = torch.eye(jacobian.unknowns, dtype=torch.float64, device=jacobian.point.device)
    gram = jacobian.gram_products(eye)
    values, vectors = torch.linalg.eigh((gram + gram.T) / 2)
    factor: Tensor = values.clamp(min=0.0).sqrt()[:, None] * vectors.T
    return factor


def exact_posterior(matrix: Tensor, prior: ImagePrior, std: float, tolerance: float = RANK_TOLERANCE) -> Posterior:
    """The posterior from a stored Jacobian.

    Args:
        matrix: J, (m, n), or a matrix with the same J^T J.
        prior: of the n values.
        std: s, the standard deviation of the noise on one gradient entry.
        tolerance: singular values below this share of the largest count as zero.
    """
    rows, size = matrix.shape
    factor = torch.linalg.qr(matrix).R if rows > size else matrix
    singular = torch.linalg.svdvals(factor)
    rank = int((singular > tolerance * singular[0]).sum()) if float(singular[0]) > 0 else 0
    root = prior.root(torch.eye(size, dtype=matrix.dtype, device=matrix.device))
    error, remaining = conditional_error(prior.root(factor) / std, root)
    return Posterior(error, size - remaining, size - rank)


def conditional_error(rows: Tensor, root: Tensor) -> tuple[float, float]:
    """(1/n) tr(root (I + A)^-1 root) and tr((I + A)^-1) for A = rows^T rows.

    From the triangular factor of the rows with a unit matrix below, which keeps the one of I + A beside large entries of A.

    Args:
        rows: J Sigma^(1/2) / s, (m, n).
        root: Sigma^(1/2), (n, n).
    """
    eye = torch.eye(len(root), dtype=root.dtype, device=root.device)
    factor = torch.linalg.qr(torch.cat([rows, eye])).R
    inverse = torch.linalg.solve_triangular(factor, eye, upper=True)
    return float((root @ inverse).square().sum()) / len(root), float(inverse.square().sum())


def stochastic_posterior(
    jacobian: UpdateJacobian, prior: ImagePrior, std: float, *, probes: int, steps: int, generator: torch.Generator
) -> Posterior:
    """The posterior from products with J and its transpose.

    Random signs z estimate tr((I + A)^-1) by z^T (I + A)^-1 z, and the error by the same with Sigma^(1/2) z. Few directions can
    hold most of the error (the mean brightness of a picture), so those of largest prior variance are taken one by one, and z
    is random only in the rest. The standard errors join the spread over z with half the width of the Lanczos bracket.

    Args:
        jacobian: J.
        prior: of the n values.
        std: s, the standard deviation of the noise on one gradient entry.
        probes: number of random vectors z, >= 2, and of directions taken one by one.
        steps: Lanczos steps at most.
        generator: source of the signs.

    Source: Meyer, Musco, Musco & Woodruff 2021 (Hutch++: a part exactly, the rest by random signs).
    """
    size = jacobian.unknowns
    signs = torch.randint(0, 2, (probes, size), generator=generator).to(jacobian.point) * 2 - 1
    waves = prior.leading(probes).to(jacobian.point)
    rest = signs - signs @ waves.T @ waves

    def product(vectors: Tensor) -> Tensor:
        return prior.root(jacobian.gram_products(prior.root(vectors))) / std**2

    middle, half = _brackets(product, prior.root(torch.cat([waves, rest])), steps)
    own, random = middle[: len(waves)].sum(), middle[len(waves) :]
    width = half[: len(waves)].sum() + half[len(waves) :].mean()
    error = float(own + random.mean()) / size
    spread = math.hypot(float(random.std()) / math.sqrt(probes), float(width)) / size
    middle, half = _brackets(product, signs, steps)
    leaked_spread = math.hypot(float(middle.std()) / math.sqrt(probes), float(half.mean()))
    return Posterior(error, size - float(middle.mean()), None, spread, leaked_spread)


def _brackets(product: Callable[[Tensor], Tensor], starts: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Estimates of v^T (I + A)^-1 v and half the widths of their brackets, (k,) each."""
    together = max(1, BASIS_NUMBERS // (starts.shape[1] * min(steps, starts.shape[1])))
    brackets = [quadrature(product, part, steps, TOLERANCE) for part in torch.split(starts, together)]
    middle = torch.cat([bracket.middle for bracket in brackets])
    return middle, torch.cat([bracket.upper - bracket.lower for bracket in brackets]) / 2
