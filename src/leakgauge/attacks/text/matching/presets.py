"""Named text attacks: each is a choice of parts for `TextMatching`, registered as an entry point."""

from __future__ import annotations

from dataclasses import replace

from leakgauge.attacks.matching.distance import Distance, SquaredL2
from leakgauge.attacks.matching.search.adam import Adam
from leakgauge.attacks.matching.search.lbfgs import LBFGS
from leakgauge.attacks.text.matching.attack import TextMatching
from leakgauge.attacks.text.matching.balanced import Balanced
from leakgauge.attacks.text.matching.cosines import Cosines
from leakgauge.attacks.text.matching.tag import Tag
from leakgauge.errors import OptionError
from leakgauge.registry import described

DISTANCES: dict[str, Distance] = {"balanced": Balanced(), "l2": SquaredL2(), "cosine": Cosines()}


def _distance(name: str) -> Distance:
    if name not in DISTANCES:
        raise OptionError(f"There is no distance {name!r} for text; expected one of {', '.join(DISTANCES)}.")
    return DISTANCES[name]


def _unaided(
    name: str, distance: Distance, lr: float, start: str, span: bool, positions: bool, rounds: int, bag: str, dtype: str
) -> TextMatching:
    """Adam in the space of embeddings, without the snapping and the token moves that dlg-text has."""
    return TextMatching(
        distance=distance,
        search=Adam(lr=lr, schedule="cosine"),
        start=start,
        span=span,
        positions=positions,
        snap=False,
        discrete=False,
        rounds=rounds,
        bag=bag,
        dtype=dtype,
        name=name,
    )


@described(needs="a transformer that takes embeddings as inputs; one text, or few", source="Zhu, Liu & Han 2019 (DLG)")
def dlg_text(
    start: str = "span",
    span: bool = True,
    positions: bool = True,
    snap: bool = True,
    discrete: bool = True,
    distance: str = "balanced",
    bag: str = "auto",
    rounds: int = 5,
    history: int = 30,
    dtype: str = "float32",
) -> TextMatching:
    """Deep Leakage from Gradients for text: embeddings whose update equals the observed one, then the nearest tokens.

    The published attack is `distance=l2 start=noise span=false positions=false snap=false discrete=false rounds=1`; what the
    defaults add is not DLG's (see docs/text-matching.md).
    """
    return TextMatching(
        distance=_distance(distance),
        search=LBFGS(history=history),
        start=start,
        span=span,
        positions=positions,
        snap=snap,
        discrete=discrete,
        rounds=rounds,
        bag=bag,
        dtype=dtype,
        name="dlg-text",
    )


@described(needs="a transformer that takes embeddings as inputs; one text, or few", source="Deng et al. 2021 (TAG)")
def tag(
    l1: float = 10.0,
    lr: float = 0.5,
    start: str = "noise",
    span: bool = False,
    positions: bool = False,
    bag: str = "auto",
    dtype: str = "float32",
) -> TextMatching:
    """TAG: squared L2 and a layer-weighted L1 distance, Adam on embeddings, then the nearest tokens."""
    return _unaided("tag", Tag(l1), lr, start, span, positions, 1, bag, dtype)


@described(
    needs="a transformer that takes embeddings as inputs; for the prior a causal language model of the same vocabulary",
    source="Balunovic et al. 2022 (LAMP)",
)
def lamp(
    prior: str = "",
    prior_weight: float = 0.01,
    norm_weight: float = 0.1,
    distance: str = "cosine",
    lr: float = 0.5,
    rearrange: int = 20,
    rounds: int = 5,
    start: str = "noise",
    span: bool = False,
    positions: bool = False,
    bag: str = "auto",
    dtype: str = "float32",
) -> TextMatching:
    """LAMP: Adam on embeddings in turn with rearrangements that gradient distance and a language model choose."""
    return replace(
        _unaided("lamp", _distance(distance), lr, start, span, positions, rounds, bag, dtype),
        rearrange=rearrange,
        prior=prior,
        prior_weight=prior_weight,
        norm_weight=norm_weight,
    )
