"""Patches P (T, K) from G = D^T P: least squares, and the smoothest picture where a few directions are open."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from leakgauge.attacks.exact.patches.layer import PatchLayer

ROUNDS = 400  # of conjugate gradients
FINISHED = 1e-10  # share of the first residual at which they end


@dataclass(frozen=True)
class Patches:
    """What the equations give.

    Args:
        patches: (T, K).
        rank: of D; T where every patch is determined.
        weakest: smallest over largest singular value of D with its rows brought to one norm.
    """

    patches: Tensor
    rank: int
    weakest: float


def solve_patches(
    layer: PatchLayer, shape: tuple[int, ...], rows: Tensor, gradient: Tensor, unit: float, middle: Tensor
) -> Patches:
    """Patches of one picture from the gradient of the layer that reads them.

    Args:
        layer: the layer.
        shape: (C, H, W).
        rows: D (T, width), the loss's gradient by each token that the layer makes.
        gradient: G (width, K), of the layer's weight.
        unit: relative rounding error of both.
        middle: (C, H, W) mid-grey, taken where a patch has no gradient at all.

    Returns:
        the patches; with T - rank directions open, of all solutions the picture with the least sum of squared differences
        between neighbouring pixels.
    """
    sizes = rows.norm(dim=1)
    level = rows / torch.where(sizes > 0, sizes, 1.0)[:, None]
    left, values, right = torch.linalg.svd(level, full_matrices=True)  # level = left S right
    rank = int((values > unit * len(rows) ** 0.5 * values[0]).sum()) if bool((sizes > 0).any()) else 0
    scaled = left[:, :rank] @ ((right[:rank] @ gradient) / values[:rank, None])
    known = scaled / torch.where(sizes > 0, sizes, 1.0)[:, None]
    weakest = float(values[rank - 1] / values[0]) if rank else 0.0
    if rank == len(rows):
        return Patches(known, rank, weakest)
    open_ = torch.linalg.qr(left[:, rank:] / torch.where(sizes > 0, sizes, 1.0)[:, None]).Q  # (T, T - rank), D^T open_ = 0
    grey = layer.cut(middle)
    known = known - open_ @ (open_.T @ (known - grey))
    return Patches(_smoothest(layer, shape, known, open_), rank, weakest)


def _smoothest(layer: PatchLayer, shape: tuple[int, ...], known: Tensor, open_: Tensor) -> Tensor:
    """known + open_ c with the c of the smoothest picture, by conjugate gradients."""

    counts = layer.seen(known.new_zeros(shape).numel()).clamp(min=1).to(known).reshape(shape)

    def pulled(patches: Tensor) -> Tensor:  # joined is the transpose of cut, divided by the counts
        return open_.T @ layer.cut(_rough(layer.joined(patches, shape)) / counts)

    rest = -pulled(known)
    change, step, size = torch.zeros_like(rest), rest, rest.square().sum()
    target = FINISHED**2 * size
    for _ in range(ROUNDS):
        if float(size) <= float(target) or float(size) == 0.0:
            break
        bent = pulled(open_ @ step)
        curve = (step * bent).sum()
        if float(curve) <= 0:
            break
        change, rest = change + size / curve * step, rest - size / curve * bent
        new = rest.square().sum()
        step, size = rest + new / size * step, new
    return known + open_ @ change


def _rough(picture: Tensor) -> Tensor:
    """Derivative of half the sum of squared differences between neighbours, (C, H, W)."""
    down, across = picture[:, 1:] - picture[:, :-1], picture[:, :, 1:] - picture[:, :, :-1]
    total = torch.zeros_like(picture)
    total[:, 1:] += down
    total[:, :-1] -= down
    total[:, :, 1:] += across
    total[:, :, :-1] -= across
    return total
