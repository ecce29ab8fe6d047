"""Least squares with a verdict: matrix-free LSMR for several right-hand sides at once, and small dense systems."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import eigvalsh_tridiagonal
from torch import Tensor

Product = Callable[[Tensor], Tensor]
DENSE = 4600  # unknowns up to which a dense factor is a matter of seconds
LARGE = 14_000  # and of minutes, with a few GB of memory


@dataclass(frozen=True)
class Preconditioner:
    """x = P y on (S, n), with the transpose of P."""

    apply: Product
    adjoint: Product

    @staticmethod
    def diagonal(scale: Tensor) -> Preconditioner:
        """Column scaling (Jacobi) by (n,)."""
        return Preconditioner(lambda y: y * scale, lambda x: x * scale)


@dataclass(frozen=True)
class LeastSquares:
    """Solutions of min ||A x - b||, one for each right-hand side.

    Args:
        solution: (S, n); of smallest norm (of P^-1 x) where A lacks columns of rank.
        inner: (S, n) y, where x = P y.
        residual: (S,) ||A x - b||.
        slope: (S,) ||A^T (A x - b)|| / (||A|| ||A x - b||), in the unknowns y: how far from a minimum.
        iterations: products with A and with its adjoint.
        smallest, largest: extreme singular values of A P that the right-hand sides brought to light: zero singular
            values never show, so that 'smallest' says nothing about rank.
        converged: (S,) bool.
    """

    solution: Tensor
    inner: Tensor
    residual: Tensor
    slope: Tensor
    iterations: int
    smallest: float
    largest: float
    converged: Tensor

    @property
    def condition(self) -> float:
        """largest / smallest."""
        return self.largest / self.smallest if self.smallest > 0 else float("inf")


def lsmr(
    apply: Product,
    adjoint: Product,
    right: Tensor,
    *,
    precondition: Preconditioner | None = None,
    damping: float = 0.0,
    tolerance: float = 1e-12,
    fit: float | Tensor = 1e-14,
    iterations: int = 2000,
    expired: Callable[[], bool] = lambda: False,
) -> LeastSquares:
    """Minimises ||A x - b||^2 + damping^2 ||P^-1 x||^2 for every row b of `right`, all in the same products.

    Args:
        apply: (S, n) -> (S, m), A on each row.
        adjoint: (S, m) -> (S, n), its transpose.
        right: (S, m).
        precondition: P; the iteration solves A P y = b.
        damping: >= 0.
        tolerance: on `slope`.
        fit: residual relative to b at which a column is done, one number or (S,).
        iterations: largest number of iterations.
        expired: polled before every iteration; True ends it.

    Source: Fong & Saunders 2011, LSMR, SIAM J. Sci. Comput. 33, section 2.
    """
    own = precondition
    forward = apply if own is None else lambda y: apply(own.apply(y))
    backward = adjoint if own is None else lambda u: own.adjoint(adjoint(u))
    with np.errstate(divide="ignore", invalid="ignore"):
        u, beta = _normalised(right.clone())
        v, alpha = _normalised(backward(u).clone())
    enough = beta * (fit.double().cpu().numpy() if isinstance(fit, Tensor) else fit)
    alphas, betas = [alpha.copy()], []
    zetabar, alphabar = alpha * beta, alpha.copy()
    rho, rhobar, cbar, sbar = np.ones_like(beta), np.ones_like(beta), np.ones_like(beta), np.zeros_like(beta)
    h, hbar, x = v.clone(), torch.zeros_like(v), torch.zeros_like(v)
    betadd, betad = beta.copy(), np.zeros_like(beta)
    rhodold, tautildeold, thetatilde, zeta, dsum = (
        np.ones_like(beta),
        np.zeros_like(beta),
        np.zeros_like(beta),
        np.zeros_like(beta),
        np.zeros_like(beta),
    )
    frobenius = alpha**2
    open_ = (alpha > 0) & (beta > 0)
    residual, slope, count = beta.copy(), np.where(open_, 1.0, 0.0), 0
    with np.errstate(divide="ignore", invalid="ignore"):
        while open_.any() and count < iterations and not expired():
            count += 1
            u, beta = _normalised(torch.addcmul(forward(v), _column(-alpha, u), u))
            v, alpha = _normalised(torch.addcmul(backward(u), _column(-beta, v), v))
            alphas.append(alpha.copy())
            betas.append(beta.copy())
            alphahat = np.hypot(alphabar, damping)
            chat, shat = alphabar / alphahat, damping / alphahat
            rhoold = rho
            rho = np.hypot(alphahat, beta)
            c, s = alphahat / rho, beta / rho
            theta, alphabar = s * alpha, c * alpha
            rhobarold, zetaold = rhobar, zeta
            thetabar, rhotemp = sbar * rho, cbar * rho
            rhobar = np.hypot(rhotemp, theta)
            cbar, sbar = rhotemp / rhobar, theta / rhobar
            zeta, zetabar = cbar * zetabar, -sbar * zetabar
            hbar = torch.addcmul(h, _column(-thetabar * rho / (rhoold * rhobarold), hbar), hbar)
            x.addcmul_(_column(np.where(open_, zeta / (rho * rhobar), 0.0), hbar), hbar)
            h = torch.addcmul(v, _column(-theta / rho, h), h)
            # Norm of the residual (section 5.1 of the source).
            betaacute, betacheck = chat * betadd, -shat * betadd
            betahat, betadd = c * betaacute, -s * betaacute
            thetatildeold = thetatilde
            rhotildeold = np.hypot(rhodold, thetabar)
            ctilde, stilde = rhodold / rhotildeold, thetabar / rhotildeold
            thetatilde, rhodold = stilde * rhobar, ctilde * rhobar
            betad = -stilde * betad + ctilde * betahat
            tautildeold = (zetaold - thetatildeold * tautildeold) / rhotildeold
            taud = (zeta - thetatilde * tautildeold) / rhodold
            dsum = dsum + betacheck**2
            found = np.sqrt(dsum + (betad - taud) ** 2 + betadd**2)
            residual = np.where(open_, found, residual)
            frobenius = frobenius + beta**2 + alpha**2
            now = np.abs(zetabar) / np.maximum(np.sqrt(frobenius) * np.maximum(found, 1e-300), 1e-300)
            slope = np.where(open_, now, slope)
            open_ &= np.isfinite(now) & (now > tolerance) & (found > enough) & (alpha > 0) & (beta > 0)
    smallest, largest = _extremes(np.array(alphas), np.array(betas))
    return LeastSquares(
        solution=x if own is None else own.apply(x),
        inner=x,
        residual=torch.as_tensor(residual),
        slope=torch.as_tensor(slope),
        iterations=count,
        smallest=smallest,
        largest=largest,
        converged=torch.as_tensor(~open_),
    )


def dense_least_squares(matrix: Tensor, right: Tensor, tolerance: float = 1e-10) -> tuple[Tensor, Tensor]:
    """Solutions of min ||A x - b|| of smallest norm by the singular value decomposition, and the singular values.

    Args:
        matrix: (m, n).
        right: (m, S).
        tolerance: singular values below it times the largest count as zero.

    Returns:
        (n, S) solutions and (min(m, n),) singular values, descending.
    """
    left, values, turned = torch.linalg.svd(matrix, full_matrices=False)
    kept = values > tolerance * values[0] if len(values) else values > 0
    inverse = torch.where(kept, 1 / torch.where(kept, values, 1.0), 0.0)
    return turned.T @ (inverse[:, None] * (left.T @ right)), values


def _normalised(rows: Tensor) -> tuple[Tensor, NDArray[np.float64]]:
    """Each row divided by its norm (a zero row stays), and the norms."""
    norms = torch.linalg.vector_norm(rows, dim=1).double().cpu().numpy().copy()
    return rows.mul_(_column(np.where(norms > 0, 1 / norms, 0.0), rows)), norms


def _column(values: NDArray[np.float64], like: Tensor) -> Tensor:
    """(S, 1) tensor of finite numbers."""
    if not np.isfinite(values).all():
        values = np.nan_to_num(values)
    return torch.from_numpy(values).to(like)[:, None]


def _extremes(alphas: NDArray[np.float64], betas: NDArray[np.float64]) -> tuple[float, float]:
    """Extreme singular values of the lower bidiagonal matrices (alphas on the diagonal, betas below), over all columns."""
    low, high = float("inf"), 0.0
    for a, b in zip(alphas.T, betas.T, strict=True) if len(betas) else ():
        stop = len(b)
        for index in range(len(b)):
            if not (a[index] > 0 and b[index] > 0):
                stop = index
                break
        if stop == 0:
            continue
        diagonal, beside = a[:stop] ** 2 + b[:stop] ** 2, a[1:stop] * b[: stop - 1]
        if stop == 1:
            values = diagonal
        else:
            ends = [eigvalsh_tridiagonal(diagonal, beside, select="i", select_range=(i, i))[0] for i in (0, stop - 1)]
            values = np.array(ends)
        low, high = min(low, float(np.sqrt(max(values[0], 0.0)))), max(high, float(np.sqrt(values[-1])))
    return (low if high > 0 else 0.0), high


def null_space(
    apply: Product,
    like: Tensor,
    dimension: int,
    generator: torch.Generator,
    factored: Preconditioner | None = None,
) -> Tensor:
    """Orthonormal basis (n, d) of the vectors that A maps to zero, d found from a first estimate, by inverse iteration.

    Args:
        apply: A on (S, n).
        like: (n,) tensor for size, dtype and device.
        dimension: estimate of d, from which the number of directions tried follows.
        generator: of the random directions.
        factored: P with P P^T = (A^T A + a small ridge)^-1; made here, densely, if None.
    """
    size = len(like)
    tried = min(dimension + max(24, dimension // 4), size)
    found = torch.randn(size, tried, generator=generator, dtype=like.dtype).to(like)
    if factored is None:
        eye = torch.eye(size, dtype=like.dtype, device=like.device)
        rows = torch.cat([apply(part) for part in torch.split(eye, 512)])  # A^T
        factored = cholesky_preconditioner(rows @ rows.T)
    probe = apply(found[:, :8].T)
    for _ in range(2):
        found = torch.linalg.qr(factored.apply(factored.adjoint(found.T)).T).Q
    image = apply(found.T).T
    limit = 1e-5 * float(probe.square().sum().sqrt() / (8 * size) ** 0.5)  # of the root mean square singular value
    wide = len(image) < tried
    _, sizes, turned = torch.linalg.svd(image.T @ image if wide else image, full_matrices=False)
    basis: Tensor = found @ turned[(sizes.sqrt() if wide else sizes) < limit].T
    return basis


def cholesky_preconditioner(gram: Tensor) -> Preconditioner:
    """P with P P^T = (G + a small ridge)^-1 for a symmetric positive semidefinite G (n, n), which is overwritten."""
    level = float(gram.diagonal().mean())
    for ridge in (1e-14, 1e-12, 1e-10):
        gram.diagonal().add_(ridge * level)
        factor, failed = torch.linalg.cholesky_ex(gram)
        if int(failed) == 0:
            break
    else:
        gram.diagonal().add_(1e-6 * level + 1e-300)
        factor = torch.linalg.cholesky(gram)

    def apply(flat: Tensor) -> Tensor:
        solved: Tensor = torch.linalg.solve_triangular(factor.T, flat.T, upper=True)
        return solved.T

    def adjoint(flat: Tensor) -> Tensor:
        solved: Tensor = torch.linalg.solve_triangular(factor, flat.T, upper=False)
        return solved.T

    return Preconditioner(apply, adjoint)
