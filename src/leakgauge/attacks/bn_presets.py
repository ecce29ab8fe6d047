"""`bn-matching`, and what it is compared with on the same run: without its statistics, and as earlier attacks assume."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from leakgauge.attacks.matching.distance import Cosine, LayerWeighted
from leakgauge.attacks.matching.matching import GradientMatching
from leakgauge.attacks.matching.priors import GroupConsistency, L2Norm, Prior, TotalVariation
from leakgauge.attacks.matching.search.adam import Adam
from leakgauge.attacks.matching.search.matrix_free import MatrixFree
from leakgauge.attacks.matching.starts import Grey, PriorPicture, Start
from leakgauge.attacks.matching.warm import WarmStart
from leakgauge.errors import OptionError
from leakgauge.registry import described

HATAMIZADEH = "Hatamizadeh et al. 2023, Do gradient inversion attacks make federated learning unsafe?"


@described(
    needs="labels (granted or recovered); BatchNorm statistics in the update for its own term",
    source=HATAMIZADEH,
)
def bn_matching(
    gradient: float = 1.0,
    statistics: float = 1.0,
    tv: float = 1e-3,
    l2: float = 0.0,
    prior: Tensor | str | None = None,
    labels: str = "auto",
    mode: str = "observed",
    multistep: str = "replay",
    restarts: int = 1,
    group: float = 0.0,
    shift: int = 2,
    decay: float = 1.0,
    lr: float = 0.1,
    warm: bool = True,
    polish: bool = True,
    grid: bool = True,
    adaptive: bool = True,
    dtype: str = "float32",
) -> GradientMatching:
    """Matches the client's own local training and the BatchNorm statistics recovered from its update.

    The published objective (weight change, statistics, total variation, l2, a prior picture as start) with a differentiable
    replay of the client's steps (`multistep=surrogate`: one gradient between the two models), statistics of the steps as they
    were, a start by first derivatives from the last layer's gradient (`warm=false` leaves it out), and least squares at the end.
    """
    _check(tv=tv, l2=l2, group=group, shift=shift)
    _check(above=True, lr=lr, decay=decay)
    distance = LayerWeighted(Cosine(), decay) if decay != 1.0 else Cosine()
    weighted: tuple[tuple[Prior, float], ...] = ((TotalVariation(tv), tv), (L2Norm(l2), l2))
    return GradientMatching(
        usual=distance,
        priors=tuple(part for part, weight in weighted if weight > 0),
        group=GroupConsistency(group, shift) if group > 0 else None,
        search=Adam(lr=lr, signed=True, schedule="cosine"),
        start=_start(prior),
        warm=WarmStart() if warm else None,
        refine=None,
        polish=MatrixFree(iterations=6, products=40) if polish else None,
        gradient=gradient,
        statistics=statistics,
        multistep=multistep,
        adaptive=adaptive,
        labels=labels,
        restarts=restarts,
        evaluations=(1_600, 12_000, 60_000),
        grid=grid,
        tolerance=1e-10,
        mode=mode,
        box=True,
        dtype=dtype,
        name="bn-matching",
    )


@described(needs="as bn-matching", source=f"{HATAMIZADEH}; its own control")
def without_statistics(
    tv: float = 1e-3,
    prior: Tensor | str | None = None,
    labels: str = "auto",
    restarts: int = 1,
    adaptive: bool = True,
    dtype: str = "float32",
) -> GradientMatching:
    """bn-matching with a client in training mode, but blind to the statistics it shares."""
    parts = bn_matching(statistics=0.0, tv=tv, prior=prior, labels=labels, restarts=restarts, adaptive=adaptive, dtype=dtype)
    return replace(parts, name="bn-matching-no-statistics")


@described(needs="as bn-matching", source="Geiping et al. 2020 and other attacks before Hatamizadeh et al. 2023")
def eval_mode(
    tv: float = 1e-3,
    prior: Tensor | str | None = None,
    labels: str = "auto",
    restarts: int = 1,
    adaptive: bool = True,
    dtype: str = "float32",
) -> GradientMatching:
    """bn-matching under the assumption of earlier attacks: BatchNorm divides by the received running statistics."""
    parts = bn_matching(
        statistics=0.0, tv=tv, prior=prior, labels=labels, mode="eval", restarts=restarts, adaptive=adaptive, dtype=dtype
    )
    return replace(parts, name="bn-matching-eval-mode")


def _start(prior: Tensor | str | None) -> Start:
    if prior is None or (isinstance(prior, str) and prior == "grey"):
        return Grey()
    if isinstance(prior, str):
        raise OptionError(
            f"The prior {prior!r} is a name; expected 'grey' or the picture itself, a tensor (C, H, W) in [0, 1]; on the command "
            "line data, as in prior=demo:cat."
        )
    pixels = torch.as_tensor(prior).float()
    if not bool(((pixels >= 0) & (pixels <= 1)).all()):
        raise OptionError(
            f"The prior picture has values from {float(pixels.min()):g} to {float(pixels.max()):g}; expected pixels in [0, 1]."
        )
    return PriorPicture(pixels)


def _check(*, above: bool = False, **options: float) -> None:
    """Refuses options that are no number >= 0 (or > 0)."""
    for option, value in options.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (number and (value > 0 if above else value >= 0) and value < math.inf):
            raise OptionError(f"bn-matching's {option} is {value!r}; expected a number {'>' if above else '>='} 0.")
