"""The rank of a convolution's equations on random instances, where it is small enough to look."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from leakgauge.chain.geometry import ConvGeometry
from leakgauge.randomness import rng

WORK = 1e9  # multiplications of a dense factorisation, as min(m, n)^2 max(m, n): below a second on one core
NUMBERS = 8e6  # of one matrix
TOLERANCE = 1e-10  # of the largest singular value
DRAWS = 4
GAP = 1e3  # between the last singular value that counts and the first that does not


def instance_rank(geometry: ConvGeometry, most: int, left: int) -> int | None:
    """Rank of [W; K] for weights and output gradients drawn from fixed seeds; None where it is too large or unclear.

    With N a basis of the null space of K0, rank [W; K] = C rank K0 + rank W (I x N), for each group. No draw exceeds the generic
    rank, and nearly singular ones fall below it, so that the largest of a few draws counts.

    Args:
        geometry: of the convolution.
        most: an upper bound of the rank; a draw that reaches it ends the search.
        left: columns that K leaves open, at least.

    Source: derived; linear algebra.
    """
    channels, filters = geometry.in_channels // geometry.groups, geometry.out_channels // geometry.groups
    positions, taps, pixels = prod(geometry.output_size), prod(geometry.kernel), prod(geometry.size)
    block, reduced = _work(filters * taps, pixels), _work(filters * positions, left // geometry.groups)
    if positions * taps > NUMBERS / 8 or block > WORK / 4 or reduced > WORK:
        return None
    sees = pixels_seen(geometry)
    largest: int | None = None
    for draw in range(DRAWS):
        generator = rng(0, "rank of a random instance", draw)
        k = torch.randn(filters, positions, generator=generator, dtype=torch.float64)
        w = torch.randn(filters, channels, taps, generator=generator, dtype=torch.float64)
        found = _one_draw(k, w, sees, pixels)
        if found is not None:
            largest = max(largest or 0, geometry.groups * found)
            if largest >= most:
                break
    return largest


def _one_draw(k: Tensor, w: Tensor, sees: Tensor, pixels: int) -> int | None:
    """Rank of one group for k (F, P), w (F, C, T) and sees (T, P)."""
    filters, channels, taps = w.shape
    rank, basis = null_space(k, sees, pixels)
    missing = basis.shape[1]
    rows, columns = filters * k.shape[1], channels * missing
    if _work(rows, columns) > WORK or max(columns * rows, taps * k.shape[1] * missing) > NUMBERS:
        return None
    padded = torch.cat([basis, basis.new_zeros(1, missing)])  # index -1 finds zeros
    more = clear_rank(torch.einsum("fcu,upe->fpce", w, padded[sees]).reshape(rows, columns))
    return None if more is None else channels * rank + more


def _work(rows: int, columns: int) -> int:
    return min(rows, columns) ** 2 * max(rows, columns) if columns > 0 else 0


def clear_rank(matrix: Tensor) -> int | None:
    """Number of singular values above `TOLERANCE` times the largest; None if there is no clear gap there.

    Args:
        matrix: (rows, columns), float64.
    """
    if 0 in matrix.shape:
        return 0
    values = torch.linalg.svdvals(matrix)
    largest = float(values[0])
    if largest == 0.0:
        return 0
    rank = int((values > TOLERANCE * largest).sum())
    if rank < len(values) and float(values[rank - 1]) < GAP * max(float(values[rank]), 1e-16 * largest):
        return None
    return rank


def pixels_seen(geometry: ConvGeometry) -> Tensor:
    """Flat index of the pixel that tap u of position p sees, (T, P); -1 in the padding."""
    axes = list(zip(geometry.size, geometry.stride, geometry.dilation, geometry.padding, strict=True))
    index = torch.zeros(1, 1, dtype=torch.long)
    inside = torch.ones(1, 1, dtype=torch.bool)
    for (size, stride, dilation, (before, _)), taps, outputs in zip(axes, geometry.kernel, geometry.output_size, strict=True):
        place = dilation * torch.arange(taps)[:, None] + stride * torch.arange(outputs)[None, :] - before  # (k, P)
        good = (place >= 0) & (place < size)
        shape = (index.shape[0] * taps, index.shape[1] * outputs)
        index = (index[:, None, :, None] * size + place[None, :, None, :]).reshape(shape)
        inside = (inside[:, None, :, None] & good[None, :, None, :]).reshape(shape)
    return torch.where(inside, index, -1)


def null_space(k: Tensor, sees: Tensor, pixels: int) -> tuple[int, Tensor]:
    """Rank of K0 and a basis of its null space on the touched pixels, (pixels, e).

    Args:
        k: output gradients of one group, (F, P), not all zero.
        sees: as `pixels_seen` returns it.
        pixels: of one channel.
    """
    filters, taps = len(k), len(sees)
    block = k.new_zeros(filters, taps, pixels + 1)
    block.scatter_(2, torch.where(sees < 0, pixels, sees)[None].expand(filters, -1, -1), k[:, None].expand(-1, taps, -1))
    touched = torch.zeros(pixels + 1, dtype=torch.bool)
    touched[sees.reshape(-1)] = True
    touched[-1] = False
    kept = touched[:-1].nonzero()[:, 0]
    if len(kept) == 0:
        return 0, k.new_zeros(pixels, 0)
    matrix = block[:, :, :-1].reshape(filters * taps, pixels)[:, kept]
    if len(matrix) > len(kept):
        matrix = torch.linalg.qr(matrix, mode="r").R
    _, values, right = torch.linalg.svd(matrix, full_matrices=True)
    rank = int((values > TOLERANCE * values[0]).sum())
    basis = k.new_zeros(pixels, len(kept) - rank)
    basis[kept] = right[rank:].T
    return rank, basis
