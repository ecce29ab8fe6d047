"""`recommendations`: which change of the first layer would leave the input undetermined, and what it costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod

from torch import Tensor, nn

from leakgauge.analysis.layers import Front, front
from leakgauge.chain.geometry import ConvGeometry
from leakgauge.chain.link import Chain, Link
from leakgauge.chain.rank_law import count_rank
from leakgauge.chain.trace import trace
from leakgauge.errors import OptionError, ShapeError

POOLS = (2, 3, 4)
STRIDES = 16


@dataclass(frozen=True)
class Recommendation:
    """One change, judged by the corrected count for one example and one shared gradient.

    Args:
        layer: name of the layer it concerns; '' for the whole network.
        kind: 'none', 'channels', 'stride', 'kernel', 'pooling', 'bias', 'activation' or 'depth'.
        change: what to do, in short.
        undetermined: input values left open, at least.
        share: the same as a share of all input values, 0 to 1.
        sufficient: whether the share reaches the threshold.
        parameters: parameters of the whole network relative to now, about, with the layers behind it shrunk or grown to fit.
        outputs: values that the layer passes on, relative to now.
        cost: |parameters - 1| + |outputs - 1|: how far the network moves from what it is.
        sentence: for a person.
    """

    layer: str
    kind: str
    change: str
    undetermined: int
    share: float
    sufficient: bool
    parameters: float
    outputs: float
    cost: float
    sentence: str


def recommendations(model: nn.Module, input_shape: tuple[int, ...], *, threshold: float = 0.5) -> tuple[Recommendation, ...]:
    """Changes that would keep the input from being determined, cheapest sufficient one first.

    Only the first layer with weights counts: nothing after it sees more of the input than its output and the gradient at it, so
    that what its equations leave open stays open for any attack on one gradient without a prior. Deficiencies of deeper layers
    alone are no protection, since the gradients of earlier layers can fill them. Candidates are fewer channels, a larger stride,
    a kernel as large as the stride, and average pooling in front; each is judged by the corrected count, which can only
    understate what is left open. Several local steps give further equations, and a prior can guess much of what is open.

    Args:
        model: any module.
        input_shape: of one example, without the batch.
        threshold: share of the input values that a sufficient change leaves undetermined, above 0 and at most 1.

    Returns:
        Sufficient candidates by cost, then the others by what they leave open. The first has the kind 'none' where nothing
        needs to change, or nothing can be counted.

    Raises:
        OptionError: for a threshold out of range.
        ModelError: if the model does not accept the shape.

    Source: derived; the first layer as a cut follows from the recursion of Zhu & Blaschko 2021, section 3.
    """
    if not 0 < threshold <= 1:
        raise OptionError(f"`recommendations` takes a threshold above 0 and at most 1; got {threshold}.")
    return recommendations_of(model, trace(model, tuple(input_shape)), threshold)


def recommendations_of(model: nn.Module, chain: Chain, threshold: float) -> tuple[Recommendation, ...]:
    """`recommendations` for a network that was traced already.

    Args:
        model: the network of the chain.
        chain: as `trace` returns it.
        threshold: as `recommendations`.
    """
    inputs = prod(chain.input_shape)
    way = front(chain)
    link = way.link
    if link is None:
        sentence = "The input enters a block or a layer that cannot be counted, so that no change can be judged by counting."
        return (Recommendation("", "none", "nothing can be counted", 0, 0.0, False, 1.0, 1.0, 0.0, sentence),)
    weights = sum(parameter.numel() for parameter in model.parameters())
    judge = _Judge(link, chain.input_shape, inputs, way, weights, _behind(chain.links, link), threshold)
    open_now = judge.open_with(link.geometry)
    if open_now >= threshold * inputs:
        sentence = (
            f"Layer {link.name} already leaves at least {open_now:,} of {inputs:,} input values ({open_now / inputs:.0%}) "
            "undetermined: nothing needs to change for one gradient of one example."
        )
        return (Recommendation(link.name, "none", "none needed", open_now, open_now / inputs, True, 1.0, 1.0, 0.0, sentence),)
    found = [one for one in judge.candidates() if one.undetermined > open_now or one.kind in ("bias", "activation", "depth")]
    good = sorted((one for one in found if one.sufficient), key=lambda one: (one.cost, -one.share))
    rest = sorted((one for one in found if not one.sufficient), key=lambda one: (-one.share, one.cost))
    return (*good, *rest)


def _behind(links: Sequence[Link], first: Link) -> tuple[int, int]:
    """Weights behind a layer that follow its channels, and those that follow the size of its map.

    The former are those of the next layer with weights; the latter those of a first linear layer that sees every pixel.
    """
    later = [inner for link in links[links.index(first) + 1 :] for inner in link.inner or (link,)]
    weighted = [link for link in later if link.kind in ("conv", "linear") and link.module is not None]
    channels = _weights(weighted[0]) if weighted else 0
    for link in later:
        if link.kind == "linear":
            return channels, _weights(link)
        if link.kind == "pool" and set(link.output_shape[1:]) <= {1}:
            break  # pooled to one value per channel
    return channels, 0


def _weights(link: Link) -> int:
    return link.module.weight.numel() if link.module is not None and isinstance(link.module.weight, Tensor) else 0


def _still(size: tuple[int, ...], side: int) -> str:
    small = "x".join(str(length // side) for length in size)
    return f", though a picture of {small} can still come back"


@dataclass(frozen=True)
class _Judge:
    link: Link
    shape: tuple[int, ...]  # of the input
    inputs: int
    way: Front
    weights: int  # of the network
    behind: tuple[int, int]  # of those, that follow its channels and the size of its map
    threshold: float

    def open_with(self, geometry: ConvGeometry | None) -> int:
        """Input values that the layer leaves open with this geometry; a linear layer, without one, leaves none of its own."""
        rank = prod(self.link.input_shape) if geometry is None else count_rank(geometry).rank
        return self.way.undetermined(self.inputs, rank)

    def candidates(self) -> Iterator[Recommendation]:
        geometry = self.link.geometry
        if geometry is None:
            yield from self._linear()
        else:
            yield from self._fewer_channels(geometry)
            yield from self._larger_stride(geometry)
            yield from self._pooling(geometry)
            yield self._remark(
                "activation",
                "ReLU instead of an invertible activation",
                "ReLU after it withholds the outputs of inactive units, but how many are inactive depends on the data, and the "
                "weight gradient still adds them up: this may help, and proves nothing.",
            )
        yield self._remark(
            "depth",
            "a bottleneck further on",
            "Bottlenecks behind the first layer are no protection by themselves: the first layer's own gradient can supply what "
            "they withhold, and attacks on all layers together find it.",
        )

    def _fewer_channels(self, geometry: ConvGeometry) -> Iterator[Recommendation]:
        step = geometry.groups
        enough = [
            channels
            for channels in range(geometry.out_channels - step, 0, -step)
            if self.open_with(replace(geometry, out_channels=channels)) >= self.threshold * self.inputs
        ][:1]
        for channels in enough or [step] * (geometry.out_channels > step):
            yield self._of(
                replace(geometry, out_channels=channels), "channels", f"{channels} instead of {geometry.out_channels} channels"
            )

    def _larger_stride(self, geometry: ConvGeometry) -> Iterator[Recommendation]:
        """The smallest stride that is sufficient, with the kernel as it is and with one that covers the stride."""
        for kind in ("stride", "kernel"):
            for stride in range(max(geometry.stride) + 1, STRIDES + 1):
                every = (stride,) * len(geometry.size)
                kernel = geometry.kernel if kind == "stride" else tuple(max(stride, side) for side in geometry.kernel)
                try:
                    wider = replace(geometry, stride=every, kernel=kernel)
                except ShapeError:
                    break
                if self.open_with(wider) >= self.threshold * self.inputs:
                    if kind == "stride" or kernel != geometry.kernel:
                        words = f"stride {stride} instead of {max(geometry.stride)}"
                        yield self._of(wider, kind, words if kind == "stride" else f"kernel and {words}")
                    break

    def _pooling(self, geometry: ConvGeometry) -> Iterator[Recommendation]:
        for side in POOLS:
            small = tuple(length // side for length in geometry.size)
            strides = [geometry.stride]
            if all(stride % side == 0 for stride in geometry.stride):
                strides.append(tuple(stride // side for stride in geometry.stride))
            for stride in strides:
                try:
                    pooled = replace(geometry, size=small, stride=stride)
                except ShapeError:
                    continue
                also = (
                    "" if stride == geometry.stride else f", and stride {max(stride)} instead of {max(geometry.stride)} after it"
                )
                yield self._of(pooled, "pooling", f"average pooling by {side} in front of it{also}")

    def _linear(self) -> Iterator[Recommendation]:
        name, shape = self.link.name, self.link.input_shape
        if self.link.bias is not None:
            yield self._remark(
                "bias",
                "no bias",
                f"Layer {name} is linear with a bias, so that one example's input is a quotient of two gradients, whatever its "
                "width; without the bias it shows the input up to one factor, which later layers can fix: that is no protection.",
            )
        axes = self.shape[1:] or self.shape
        for side in POOLS:
            kept = prod(self.shape) // prod(axes) * prod(length // side for length in axes)
            if kept == 0 or self.way.reached < self.inputs:
                continue
            weights = self.weights - (prod(shape) - kept) * prod(self.link.output_shape)
            change = f"average pooling by {side} in front of it"
            yield self._record("pooling", change, self.inputs - kept, weights / self.weights, 1.0, _still(axes, side))

    def _of(self, geometry: ConvGeometry, kind: str, change: str) -> Recommendation:
        now = self.link.geometry
        assert now is not None
        open_ = self.open_with(geometry)
        outputs = geometry.weight_equations / now.weight_equations
        area = prod(geometry.output_size) / prod(now.output_size)
        width = geometry.out_channels / now.out_channels
        channels, head = self.behind
        weights = self.weights + geometry.gradient_equations - now.gradient_equations + channels * (width - 1) + head * (area - 1)
        note = _still(now.size, now.size[0] // geometry.size[0]) if kind == "pooling" else ""
        return self._record(kind, change, open_, weights / self.weights, outputs, note)

    def _record(self, kind: str, change: str, open_: int, parameters: float, outputs: float, note: str = "") -> Recommendation:
        share = open_ / self.inputs
        sufficient = share >= self.threshold
        sentence = (
            f"{change[0].upper()}{change[1:]} (layer {self.link.name}) leaves at least {open_:,} of {self.inputs:,} input values "
            f"({share:.0%}) undetermined{'' if sufficient else ', which is not enough'}{note}; the layer then passes on "
            f"{outputs:.0%} as many values, and the network has {parameters:.0%} as many parameters."
        )
        cost = abs(parameters - 1) + abs(outputs - 1)
        return Recommendation(self.link.name, kind, change, open_, share, sufficient, parameters, outputs, cost, sentence)

    def _remark(self, kind: str, change: str, sentence: str) -> Recommendation:
        open_ = self.open_with(self.link.geometry)
        return Recommendation(self.link.name, kind, change, open_, open_ / self.inputs, False, 1.0, 1.0, 0.0, sentence)
