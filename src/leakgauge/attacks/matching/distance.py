"""Distances between two updates: what gradient matching makes small, and which one a known defence dictates.

The distance that fits a known defence is the negative log-likelihood of what it does (Balunovic et al. 2022): Gaussian noise
dictates squared L2, Laplacian noise L1, pruning the comparison of what was kept, rounding a dead zone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from leakgauge.attacks.matching.likelihood import Kept, Rescaled, Rounded, Signs
from leakgauge.attacks.matching.norms import L1, Cosine, Distance, LayerWeighted, SquaredL2, SquaredL2Once, Tensors, squared_norm
from leakgauge.core.update import DefenceRecord

__all__ = [
    "L1", "Cosine", "Distance", "Kept", "LayerWeighted", "Rescaled", "Rounded", "Signs", "SquaredL2", "SquaredL2Once", "Tensors",
    "adapts", "dictated_by", "squared_norm",
]  # fmt: skip

SMOOTH = 0.3  # of L1, in mean magnitudes: wide enough for least squares to move, narrow enough for outliers
GAUSSIAN = ("gaussian-noise", "percentile-noise", "dp-sgd", "central-dp")
ADAPTED = (
    *GAUSSIAN,
    *("laplacian-noise", "clip", "prune", "top-k", "percentile-sharing", "svt", "sign", "quantise", "half-precision", "bfloat16"),
)


def adapts(name: str) -> bool:
    """Whether a defence of this name has an adaptive attack: `dictated_by` knows what it does."""
    return name in ADAPTED


def dictated_by(defences: Sequence[DefenceRecord], usual: Distance = SquaredL2()) -> Distance | None:  # noqa: B008 - frozen
    """The negative log-likelihood (up to scale) that known defences dictate, in the order in which they were applied.

    None where they dictate nothing. Noise after pruning hides what was kept; a clip anywhere loses the norm. Gaussian noise
    leaves an attack its usual distance, and pruning restricts that one to what was kept: squared L2 is the likelihood itself,
    and a cosine is the same with the scale left open, which signed searches follow better.

    Args:
        defences: public records, in the order of application.
        usual: the attack's distance where nothing is known.

    Source: Balunovic et al. 2022, Bayesian Framework for Gradient Leakage, section 4.
    """
    law: Distance | None = None
    kept: Kept | None = None
    rounded: Rounded | None = None
    signs = scaled = False
    for record in defences:
        name, strengths = record.name, record.parameters
        if name in GAUSSIAN or name == "laplacian-noise":
            law = L1(smooth=SMOOTH) if name == "laplacian-noise" or isinstance(law, L1) else usual
            scaled = scaled or signs or name == "central-dp"
            kept, rounded, signs = None, None, False
        elif name == "clip":
            scaled = True
        elif name in ("prune", "top-k", "percentile-sharing", "svt"):
            kept = _kept_by(name)
            law = L1(smooth=SMOOTH) if name == "svt" else law
        elif name == "sign":
            signs = True
        elif name in ("quantise", "half-precision", "bfloat16"):
            rounded = _rounded_by(name, strengths)
    if signs:
        return Signs(kept=kept is not None, scale_free=scaled)
    distance: Distance = law or usual
    if isinstance(distance, Cosine) and (rounded is not None or scaled):
        distance = SquaredL2()
    if rounded is not None:
        distance = replace(rounded, distance=distance)
    if kept is not None:
        distance = replace(kept, distance=distance)
    if scaled:
        distance = Rescaled(distance)
    return distance if any(adapts(record.name) for record in defences) else None


def _kept_by(name: str) -> Kept:
    if name == "prune":
        return Kept(below="tensor")
    return Kept(below="" if name == "svt" else "whole", bounded=name in ("svt", "percentile-sharing"))


def _rounded_by(name: str, strengths: Mapping[str, float]) -> Rounded:
    if name == "quantise":
        steps = 1.0 if strengths.get("stochastic") else 0.5
        return Rounded(levels=2 ** (int(strengths.get("bits", 8)) - 1) - 1, steps=steps)
    return Rounded(relative=2.0**-11 if name == "half-precision" else 2.0**-8)
