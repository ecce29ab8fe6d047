"""`security`: the published security metric of an architecture, from the rank deficiencies of its layers."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from leakgauge.analysis.rank_profile import RankProfile, rank_profile
from leakgauge.errors import UnsupportedError


@dataclass(frozen=True)
class LayerSecurity:
    """One layer's share of the metric.

    Args:
        name: of the layer.
        weight: (d - 1 - i) / (d - 1): 1 for the first layer, less for later ones.
        rank_deficiency: unknowns minus rank of its equations.
        contribution: minus weight times rank_deficiency, <= 0; with a probe rounded to an integer.
    """

    name: str
    weight: float
    rank_deficiency: int
    contribution: float


@dataclass(frozen=True)
class Security:
    """The metric and its terms.

    Args:
        total: c(M) with the published sign: 0 where every layer can be solved, the more negative the "more secure".
        layers: its terms, input side first.
        method: 'count' or 'numerical'.
        reasons: layers that cannot be counted and are missing in the sum.
    """

    total: float
    layers: tuple[LayerSecurity, ...]
    method: str
    reasons: tuple[str, ...] = ()

    @property
    def deficit(self) -> float:
        """-total: equations missing, weighted by depth; 0 where every layer can be solved."""
        return 0.0 - self.total


def security(model: nn.Module, input_shape: tuple[int, ...], probe: tuple[Tensor, int] | None = None) -> Security:
    """The security metric of Chen & Campbell, with the published sign (<= 0).

        c(M) = sum_{i=0}^{d-2} (d - 1 - i) / (d - 1) (rank(U_i) - n_i)

    with d weight layers, the last linear one included, n_i the unknowns of layer i and U_i its stacked equations. Without a
    probe the rank is the corrected count for generic output gradients. With one it is the numerical rank for the true output
    gradients of that example, each term rounded to an integer as in the released code, but in float64 and with a relative
    tolerance; layers of more than 6,000 unknowns keep the count.

    It predicts how a layer-by-layer attack fares, and that only; it is no measure of leakage. Counter-example: three
    convolutions (channels, kernel, stride, padding) 16,3,1,1; 16,3,2,1; 32,3,2,1 with tanh on 16x16 colour pictures have the
    most negative metric of 24 networks compared, yet matching gradients on all layers together recovers the picture exactly,
    since what the later layers lack the first one's gradient supplies. Only a deficiency of the first layer is final.

    Args:
        model: any module; convolutions inside residual blocks count in the order they are computed, side branches do not.
        input_shape: of one example, without the batch.
        probe: (inputs (1, *shape) as the model takes them, label).

    Raises:
        UnsupportedError: if no layer can be counted.
        ModelError, ShapeError: as `rank_profile`.

    Source: Chen & Campbell 2022 (BMVC), as released; "COPA index" there.
    """
    return security_of(rank_profile(model, input_shape, probe=probe), rounded=probe is not None)


def security_of(profile: RankProfile, *, rounded: bool = False) -> Security:
    """`security` from a profile that is there already.

    Args:
        profile: as `rank_profile` returns it.
        rounded: whether it was taken at a probe: terms are rounded then.

    Raises:
        UnsupportedError: if no layer can be counted.
    """
    counted = [row for row in profile.layers if row.rank_deficiency is not None and not row.side]
    if not counted:
        raise UnsupportedError(f"`security` can count no layer of this network: {'; '.join(profile.reasons)}.")
    depth, terms = len(counted), []
    for number, row in enumerate(counted[:-1]):
        weight = (depth - 1 - number) / (depth - 1)
        term = weight * (row.rank_deficiency or 0)
        terms.append(LayerSecurity(row.name, weight, row.rank_deficiency or 0, 0.0 - (round(term) if rounded else term)))
    total = sum((term.contribution for term in terms), 0.0)
    return Security(total, tuple(terms), "numerical" if rounded else "count", profile.reasons)
