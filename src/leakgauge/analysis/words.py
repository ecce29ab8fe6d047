"""The sentences of the rank profile."""

from __future__ import annotations

from collections.abc import Sequence

from leakgauge.analysis.layers import WeightLayer


def layer_verdict(layer: WeightLayer, unknowns: int, rank: int, dead: int, virtual: int, *, exact: bool) -> str:
    """What a layer's counts mean, in a sentence.

    Args:
        layer: the layer.
        unknowns, rank, dead, virtual: see `LayerRank`.
        exact: the rank is that of one example, inactive units left out.
    """
    missing = unknowns - rank
    if layer.link.kind == "linear":
        if missing:
            return "The example gives this layer no gradient at all, so that nothing is known of its input."
        if layer.link.bias is not None:
            return "Its input follows exactly from its own gradient, by one division."
        return "Its input follows from its own gradient up to one factor, which later layers fix."
    bounds = limits(layer, exact)
    if missing == 0:
        return f"All {unknowns:,} values of its input follow from its equations{bounds}."
    sentence = f"{'' if exact else 'At least '}{missing:,} of {unknowns:,} values of its input do not follow from its equations"
    if dead:
        sentence += f"; {'all of them' if dead == missing else f'{dead:,} of them'} reach no output at all"
    if layer.side:
        sentence += "; this is a side branch, and other layers see the same input"
    elif virtual >= missing > dead:
        sentence += "; wider layers before it can make up for that if all layers are solved together"
    return f"{sentence}{bounds}."


def profile_verdict(
    inputs: int,
    undetermined: int | None,
    first: WeightLayer | None,
    deficits: Sequence[tuple[str, int]],
    uncounted: Sequence[str],
    bound: bool,
) -> str:
    """The whole profile in one sentence.

    Args:
        inputs, undetermined: see `RankProfile`.
        first: the layer that the input enters, if it is one.
        deficits: (name, rank deficiency) of the layers that were counted.
        uncounted: names of those that were not.
        bound: whether ReLU, pooling or side branches withhold equations that were counted.
    """
    left_out = f" ({_few(uncounted)} cannot be counted)" if uncounted else ""
    if not deficits:
        return (
            f"Nothing can be counted here: {_few(uncounted)} cannot be treated." if uncounted else "There is no layer to count."
        )
    if undetermined and first is not None:
        return (
            f"At least {undetermined:,} of {inputs:,} input values ({undetermined / inputs:.0%}) cannot be determined from one "
            f"gradient of one example: layer {first.link.name} passes on too little, no later layer sees more, and only a prior "
            "can guess the rest."
        )
    if undetermined == 0 and first is not None and first.link.kind == "linear" and first.link.bias is not None:
        return f"The input of one example follows exactly from the gradient of layer {first.link.name}, by one division."
    if undetermined is None:
        return f"Counting cannot tell whether the input is protected, since what it enters first is not counted{left_out}."
    start = "The architecture does not protect the input"
    later = [one for one in deficits if one[1] and (first is None or one[0] != first.link.name)]
    if later:
        name, deficit = max(later, key=lambda one: one[1])
        tail = (
            f"layer {name} is {deficit:,} equations short, which stops a layer-by-layer attack but need not stop one on all "
            "layers together"
        )
    elif bound:
        tail = "every layer has enough equations, as far as ReLU, pooling and side branches let its outputs be known"
    else:
        tail = "every layer has enough equations to be solved, one after the other"
    return f"{start}: {tail}{left_out}."


def limits(layer: WeightLayer, exact: bool) -> str:
    """What withholds equations that were counted, in brackets; '' if nothing does."""
    parts = []
    if layer.inactive and not exact:
        parts.append("ReLU withholds inactive units")
    if layer.in_block:
        parts.append("side branches hide its output")
    if layer.doubts:
        parts.append(f"what follows cannot be undone, {layer.doubts[0]}")
    return f" (an upper limit: {'; '.join(parts)})" if parts else ""


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
