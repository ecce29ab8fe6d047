"""Fills what equations leave open: the prior is minimised over their null space alone, so that no equation is given up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from leakgauge.attacks.hybrid.image_prior import PicturePrior
from leakgauge.core.spec import ImageSpec
from leakgauge.linalg import DENSE, Preconditioner, lsmr

RIDGE = 1e-10  # of the mean squared column length: singular values below its root count as zero


@dataclass(frozen=True)
class System:
    """Linear equations A x = b around a point that meets them.

    Args:
        apply, adjoint: A on (S, n) and its transpose on (S, m).
        unknowns: n.
        precondition: for the iterative way; None for none.
    """

    apply: Callable[[Tensor], Tensor]
    adjoint: Callable[[Tensor], Tensor]
    unknowns: int
    precondition: Preconditioner | None = None


def projector(system: System, like: Tensor) -> Callable[[Tensor], Tensor]:
    """The orthogonal projection of (n,) on the null space: by a dense inverse up to a few thousand unknowns, else by LSMR."""
    if system.unknowns > DENSE:

        def iterative(vector: Tensor) -> Tensor:
            image = system.apply(vector[None])
            back = lsmr(
                system.apply, system.adjoint, image, precondition=system.precondition, tolerance=1e-6, fit=1e-6, iterations=400
            )
            return vector - back.solution[0]

        return iterative
    rows = torch.cat(
        [system.apply(part) for part in torch.split(torch.eye(system.unknowns, dtype=like.dtype, device=like.device), 512)]
    )
    gram = rows @ rows.T
    ridge = RIDGE * float(gram.diagonal().mean())
    gram.diagonal().add_(ridge)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram)) * ridge
    return lambda vector: inverse @ vector


def fill(
    point: Tensor,
    project: Callable[[Tensor], Tensor],
    prior: PicturePrior,
    spec: ImageSpec,
    *,
    iterations: int,
    extra: Callable[[Tensor], Tensor] | None = None,
    expired: Callable[[], bool] = lambda: False,
) -> tuple[Tensor, int]:
    """The picture of least penalty among `point` plus the null space, and the evaluations of the penalty that it took.

    Args:
        point: (C, H, W) in model space, meets the equations.
        project: projection of (n,) on their null space.
        prior: the penalty.
        spec: range of values.
        iterations: of L-BFGS, for the smooth start and for the penalty itself.
        extra: a further penalty of the picture, or None.
        expired: polled; True ends it with the best so far.
    """
    shape, count = point.shape, 0
    move = np.zeros(point.numel())
    for penalty, share in ((prior.smooth, 0.3), (prior.value, 1.0)):

        def function(
            flat: NDArray[np.float64], penalty: Callable[[Tensor, ImageSpec], Tensor] = penalty
        ) -> tuple[float, NDArray[np.float64]]:
            nonlocal count
            count += 1
            if expired():
                raise TimeoutError
            leaf = (point.flatten() + project(torch.from_numpy(flat).to(point))).detach().requires_grad_()
            value = penalty(leaf.reshape(shape), spec)
            if extra is not None:
                value = value + extra(leaf.reshape(shape))
            (slope,) = torch.autograd.grad(value, leaf)
            return float(value.detach()), project(slope).cpu().numpy()

        kept = move

        def keep(flat: NDArray[np.float64]) -> None:
            nonlocal kept
            kept = flat.copy()

        try:
            limits = {"maxiter": max(int(iterations * share), 1), "maxcor": 20, "ftol": 1e-9, "gtol": 1e-7}
            kept = minimize(function, move, jac=True, method="L-BFGS-B", callback=keep, options=limits).x
        except TimeoutError:
            break
        finally:
            move = kept
    return (point.flatten() + project(torch.from_numpy(move).to(point))).reshape(shape), count
