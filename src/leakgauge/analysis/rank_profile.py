"""`rank_profile`: layer by layer, how much of its input a network's gradients determine. No data is needed."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from torch import Tensor, nn

from leakgauge.analysis.layers import WeightLayer, front, weight_layers
from leakgauge.analysis.numerical import LARGEST, Seen, numerical_rank, random_gradients, seen_at
from leakgauge.analysis.words import layer_verdict, limits, profile_verdict
from leakgauge.chain.link import Chain
from leakgauge.chain.rank_law import generic_rank
from leakgauge.chain.trace import trace


@dataclass(frozen=True)
class LayerRank:
    """One layer with weights, or one that cannot be counted.

    Args:
        name, type: of the layer in the network.
        unknowns: values of its input.
        weight_equations: outputs that are known further on, at most; pooling leaves only what it returns, and as many more as
            biases and normalisations between the layer and the pooling share.
        gradient_equations: its shared weights.
        naive_deficiency: unknowns minus equations, at least 0, without regard to identities.
        rank: independent equations; None where `reason` is given.
        rank_deficiency: unknowns minus rank, never negative.
        redundancy: identities between weight and gradient equations that the rank takes into account.
        dead: input values that no output depends on (borders that a stride leaves out).
        virtual: what earlier, widening layers add: sum over n before this one of max(|z_n| - |x_n|, 0).
        side: a side branch, whose input other layers see too; its deficiency is left out of index, verdict and metric.
        limited: ReLU or side branches withhold equations that were counted, so that the rank is an upper bound.
        method: 'count' (an upper bound of the rank for generic weights), 'confirmed' (that rank, seen on a random instance) or
            'numerical' (of this network's weights).
        reason: why it cannot be counted; '' if it can.
        verdict: the same in a sentence.
    """

    name: str
    type: str
    unknowns: int
    weight_equations: int
    gradient_equations: int
    naive_deficiency: int
    rank: int | None
    rank_deficiency: int | None
    redundancy: int
    dead: int
    virtual: int
    side: bool
    limited: bool
    method: str
    reason: str
    verdict: str


@dataclass(frozen=True)
class RankProfile:
    """What each layer's equations determine, for one example and one shared gradient.

    Args:
        layers: input side first; layers inside residual blocks too, and a row with the reason for each that cannot be counted.
        index: the largest of unknowns - rank - virtual over the layers. Our own sign: positive means that equations are
            missing at the worst layer, 0 or less that there are enough everywhere. In the spirit of R-GAP's index; its
            published form could not be checked. None if no layer can be counted.
        critical: name of that layer.
        inputs: values of one input.
        undetermined: input values that the first layer leaves open, at least; nothing after it can make up for them. None
            where the input enters something that cannot be counted, or several layers at once.
        verdict: one sentence for a person.
        reasons: every layer that cannot be counted, with why.
    """

    layers: tuple[LayerRank, ...]
    index: int | None
    critical: str | None
    inputs: int
    undetermined: int | None
    verdict: str
    reasons: tuple[str, ...] = ()


def rank_profile(
    model: nn.Module,
    input_shape: tuple[int, ...],
    *,
    numerical: bool = False,
    probe: tuple[Tensor, int] | None = None,
) -> RankProfile:
    """Counts, for each layer, the independent equations that a shared gradient gives about its input.

    Going back from the output, a layer z = W x offers weight equations W x = z (once z is known) and gradient equations
    K x = vec(dL/dW). Their rank for generic weights and output gradients is counted (`chain.rank_law`); small layers are
    confirmed on a random instance. Where a ReLU follows, or the layer stands in a residual block, fewer outputs are known than
    are counted, so that the rank is an upper bound; pooling leaves the outputs that it returns. A linear layer determines its
    input wherever an output gradient is not zero.

    Args:
        model: any module, taken in eval mode.
        input_shape: of one example, without the batch.
        numerical: replace the count by the numerical rank of this network's own weights, in float64 and with random output
            gradients, where a layer has at most 6,000 unknowns. Takes seconds to minutes.
        probe: (inputs (1, *shape) as the model takes them, label): take the true output gradients of this example, and only
            the outputs that a ReLU lets through; implies `numerical`.

    Returns:
        The profile; layers that cannot be counted are in it with the reason.

    Raises:
        ModelError: if the model does not accept the shape.
        ShapeError: if the probe does not fit.

    Source: Zhu & Blaschko 2021 (R-GAP), section 3, for the equations and the virtual constraints; the identities between the
    equations and the formula for the rank are ours.
    """
    return profile_of(model, trace(model, tuple(input_shape)), numerical=numerical, probe=probe)


def profile_of(
    model: nn.Module, chain: Chain, *, numerical: bool = False, probe: tuple[Tensor, int] | None = None
) -> RankProfile:
    """`rank_profile` of a network that was traced already.

    Args:
        model, numerical, probe: as `rank_profile`.
        chain: as `trace` returns it.
    """
    seen = None if probe is None else seen_at(model, chain, probe)
    layers = weight_layers(chain)
    rows: list[LayerRank] = []
    virtual = 0
    for layer in layers:
        row = _row(layer, virtual, numerical or probe is not None, seen)
        rows.append(row)
        if row.rank is not None and not layer.in_block:
            virtual += max(layer.outputs - row.unknowns, 0)
    main = [row for row in rows if row.rank is not None and not row.side]
    worst = max(main, key=_missing, default=None)
    way = front(chain)
    first = next((layer for layer in layers if layer.link is way.link), None)
    inputs, undetermined = prod(chain.input_shape), None
    if first is not None:
        rank = next(row.rank for row in rows if row.name == first.link.name)
        undetermined = None if rank is None else way.undetermined(inputs, rank)
    verdict = profile_verdict(
        inputs,
        undetermined,
        first,
        [(row.name, row.rank_deficiency or 0) for row in main],
        [f"{row.name} ({row.type})" for row in rows if row.reason],
        any(layer.link.kind == "conv" and (layer.inactive or layer.in_block or layer.doubts) for layer in layers),
    )
    index, critical = (None, None) if worst is None else (_missing(worst), worst.name)
    return RankProfile(tuple(rows), index, critical, inputs, undetermined, verdict, chain.reasons)


def _missing(row: LayerRank) -> int:
    return (row.rank_deficiency or 0) - row.virtual


def _row(layer: WeightLayer, virtual: int, numerical: bool, seen: Seen | None) -> LayerRank:
    link = layer.link
    unknowns = prod(link.input_shape)
    weight = getattr(link.module, "weight", None)
    weights = weight.numel() if isinstance(weight, Tensor) else 0
    if layer.reason:
        verdict = f"Not counted: {layer.reason}."
        return LayerRank(
            link.name, link.type, unknowns, 0, 0, 0, None, None, 0, 0, virtual, layer.side, False, "", layer.reason, verdict
        )
    if link.geometry is None:
        zero = seen is not None and not bool(seen.gradients[link.name].any())
        rank, redundancy, dead, method = (0 if zero else unknowns), 0, 0, "numerical" if seen else "count"
    else:
        count = generic_rank(link.geometry)
        rank, redundancy, dead, method = count.rank, count.redundancy, count.dead, "confirmed" if count.confirmed else "count"
        if numerical and unknowns <= LARGEST:
            assert isinstance(weight, Tensor)
            k = random_gradients(link.geometry, link.name) if seen is None else seen.gradients[link.name][0]
            active = None if seen is None else seen.active.get(link.name)
            rank, method = numerical_rank(link.geometry, weight.detach().cpu(), k, active), "numerical"
        if layer.outputs < link.geometry.weight_equations:  # pooling: what it returns is all that is known of z
            rank, redundancy = min(rank, count.gradient_rank + layer.outputs), 0
    exact = seen is not None and method == "numerical"
    return LayerRank(
        link.name,
        link.type,
        unknowns,
        layer.outputs,
        weights,
        max(0, unknowns - layer.outputs - weights),
        rank,
        unknowns - rank,
        redundancy,
        dead,
        virtual,
        layer.side,
        link.kind == "conv" and bool(limits(layer, exact)),
        method,
        "",
        layer_verdict(layer, unknowns, rank, dead, virtual, exact=exact),
    )
