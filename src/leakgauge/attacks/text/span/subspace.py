"""The span of a layer's inputs, read off its gradient, and how far a vector lies outside it, in units of its noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

UNIT = {"float64": 1.2e-16, "float32": 6.0e-8, "float16": 4.9e-4, "bfloat16": 3.9e-3}  # unit roundoff
SEPARATION = 3.0  # margin wanted on either side of the threshold: to the noise, and to the nearest decoys
EMPTY = 1e-6  # share of the largest extent along a direction below which inputs have none
CLEAR = 100.0  # ratio of the nearest decoys that needs no clear gap
STEPS = 5.0
ROOM = 8.0  # decades, more than there are pairs of token and position
SPARE = 4  # smallest singular values of a sum over steps, whose gaps are accidents
QUARTER = 8  # singular values that are needed to call them even
LOW = 0.05  # quantile of the decoys that stands for the nearest of them


@dataclass(frozen=True)
class Subspace:
    """Column span of a gradient G = X^T Delta + noise, G (D, M): the span of the layer's inputs X where rank(Delta) allows.

    Args:
        basis: (D, D) left singular vectors, the span's first.
        values: (D,) singular values, descending; zeros beyond min(D, M).
        rank: of the gradient without its noise (`rank_of`).
        outputs: M.
        unit: unit roundoff of the client's arithmetic.
        threshold: largest ratio of a member; set by `with_threshold`.
        nearest: ratio of the nearest decoys (their 5 % quantile), NaN before `with_threshold`.
    """

    basis: Tensor
    values: Tensor
    rank: int
    outputs: int
    unit: float
    threshold: float = float("nan")
    nearest: float = float("nan")

    @property
    def spare(self) -> int:
        """Dimensions outside the span, D - rank."""
        return len(self.values) - self.rank

    @property
    def noise(self) -> float:
        """Standard deviation of an entry of the gradient's noise, from the singular values behind the gap."""
        return float((self.values[self.rank :].square().sum() / max(self.spare * (self.outputs - self.rank), 1)).sqrt())

    @property
    def gap(self) -> float:
        """Decades between the last singular value of the span and the first behind it; 0 where there is none behind."""
        if self.spare == 0:
            return 0.0
        return float((self.values[self.rank - 1] / self.values[self.rank].clamp(min=1e-300)).log10())

    @property
    def noised(self) -> bool:
        """Whether the smallest quarter of the singular values is as even as independent noise of one size makes it.

        The singular values of a q x M matrix of such noise lie between s (sqrt M - sqrt q) and s (sqrt M + sqrt q) (Marchenko &
        Pastur 1967); those of rounding errors and of a layer's own inputs spread wider.
        """
        quarter = len(self.values) // 4
        if not QUARTER <= quarter < self.outputs or self.outputs < len(self.values) or float(self.values[-1]) == 0.0:
            return False
        low, high = self.outputs**0.5 - quarter**0.5, self.outputs**0.5 + quarter**0.5
        return bool(float(self.values[-quarter]) <= float(self.values[-1]) * high / low)

    @property
    def stands_out(self) -> bool:
        """Whether the gap at the rank is `STEPS` times wider than the steps behind it, as in front of noise."""
        held = self.values[self.rank : min(len(self.values), self.outputs)]
        behind = held[held > 0].log10()
        return len(behind) > 1 and self.gap > STEPS * float((behind[:-1] - behind[1:]).median())

    @property
    def room(self) -> float:
        """Decades by which few random inputs pass: a distance in q dimensions is x times smaller than usual with chance x^-q."""
        return self.spare * math.log10(max(self.nearest, 1.0)) / 2

    @property
    def separates(self) -> bool:
        """Whether decoys lie so far that the threshold has a margin on both sides; a narrow one needs a clear gap, and room."""
        narrow = self.nearest > SEPARATION**2 and self.stands_out and self.room > ROOM
        return self.spare > 0 and (self.nearest > CLEAR or narrow)

    def ratio(self, rows: Tensor) -> Tensor:
        """How many times farther outside the span each row (n, D) lies than noise would carry a member: (n,).

        A member is x = G c with the least-norm c = V S^-1 U^T x; with noise N of standard deviation s in G, its part outside
        the span is -Q^T N c, of expected size s sqrt(spare) ||c||. The input's own rounding adds u ||x||.
        """
        inside = rows @ self.basis
        away = inside[:, self.rank :].square().sum(1)
        weight = (inside[:, : self.rank] / self.values[: self.rank]).square().sum(1)
        return (away / self.expected(weight, rows.square().sum(1))).sqrt()

    def expected(self, weight: Tensor, size: Tensor) -> Tensor:
        """Expected square of a member's distance, from ||c||^2 and ||x||^2."""
        return (self.noise**2 * self.spare * weight + self.unit**2 * size).clamp(min=1e-300)

    def with_threshold(self, decoys: Tensor) -> Subspace:
        """The same with a threshold half-way, on a logarithmic scale, between noise (ratio 1) and the nearest decoys.

        Args:
            decoys: (n, D) inputs that are no members, such as the layer's inputs for random texts.
        """
        if self.spare == 0:
            return self._replaced(0.0, 0.0)
        nearest = float(self.ratio(decoys).quantile(LOW))
        return self._replaced(max(nearest, SEPARATION) ** 0.5, nearest)

    def members(self, rows: Tensor) -> Tensor:
        """Which rows lie in the span: (n,) bool."""
        return self.ratio(rows) <= self.threshold

    def _replaced(self, threshold: float, nearest: float) -> Subspace:
        return Subspace(self.basis, self.values, self.rank, self.outputs, self.unit, threshold, nearest)


def subspace_of(gradient: Tensor, unit: float, decoys: Tensor | None = None, *, drifted: bool = False) -> Subspace:
    """The span of a gradient's columns, its rank where the singular values fall most steeply.

    Args:
        gradient: (D, M), float64.
        unit: unit roundoff of the client's arithmetic.
        decoys: (n, D) inputs of other texts; what no input ever holds (its mean, behind a LayerNorm without shift) is no gap.
        drifted: the gradient is a sum over steps between which the inputs moved (`rank_of`).
    """
    width, outputs = gradient.shape
    if outputs > 2 * width:  # the factor R^T of G^T = Q R has the same left singular vectors and values
        gradient = torch.linalg.qr(gradient.T, mode="r").R.T
    basis, found, _ = torch.linalg.svd(gradient, full_matrices=True)
    values = gradient.new_zeros(width)
    values[: len(found)] = found
    held = min(len(found), width if decoys is None else _held(basis, decoys))
    return Subspace(basis, values, rank_of(found[:held], unit, drifted=drifted), outputs, unit)


def _held(basis: Tensor, decoys: Tensor) -> int:
    """How many leading directions (columns of `basis`) remain when the last ones, in which no input differs from 0, are left."""
    reach = (decoys @ basis).norm(dim=0)
    kept = (reach > EMPTY * reach.max()).nonzero()
    return int(kept.max()) + 1 if len(kept) else 0


def rank_of(values: Tensor, unit: float, *, drifted: bool = False) -> int:
    """The rank that descending singular values show; 0 where all are zero.

    It ends at a gap. Only gaps above the rounding floor (unit roundoff times the largest value) count, since values below it
    are all rounding; of those at least half as wide as the widest (in decades) the last one is taken: a span that is too wide
    lets a few more candidates pass, one that is too narrow loses members.

    Args:
        values: singular values of a matrix with rounding errors.
        unit: unit roundoff of the arithmetic that made it.
        drifted: the inputs moved between the gradients that were added up: behind the gap lie powers of the learning rate with
            gaps of their own, so the widest one is taken, and none of the last `SPARE`.
    """
    if len(values) == 0 or float(values[0]) == 0.0:
        return 0
    logs = values.clamp(min=float(values[0]) * 1e-17).log()
    gaps = (logs[:-1] - logs[1:]) * (values[:-1] > unit * values[0])
    if not bool((gaps > 0).any()):
        return len(values)
    if drifted and len(gaps) > SPARE:
        return int(gaps[:-SPARE].argmax()) + 1
    return int((gaps >= gaps.max() / 2).nonzero().max()) + 1
