"""The layers with weights in a chain, and how much of what each computes is known further on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from leakgauge.chain.link import Chain, Link

PASSING = ("affine", "identity", "reshape")


@dataclass(frozen=True)
class WeightLayer:
    """A convolution or linear layer, or one that counting cannot treat.

    Args:
        link: the layer.
        outputs: values of it that are known further on, at most: all its outputs, or where pooling follows what that returns,
            and the gradients of biases and normalisations in between, which depend on the hidden values too.
        inactive: the activation after it lets only some values through (ReLU).
        in_block: it stands in a block with side branches.
        side: it is a side branch, whose input other layers of the block see too (its shape is not that of the step before).
        reason: why it cannot be counted; '' if it can.
        doubts: reasons of what stands between it and the next layer.
    """

    link: Link
    outputs: int
    inactive: bool = False
    in_block: bool = False
    side: bool = False
    reason: str = ""
    doubts: tuple[str, ...] = ()


def weight_layers(chain: Chain) -> tuple[WeightLayer, ...]:
    """Every layer with weights, input side first, those inside blocks too, and every link that cannot be counted."""
    found: list[WeightLayer] = []
    for position, link in enumerate(chain.links):
        if link.kind == "block":
            for place, inner in enumerate(link.inner):
                before = link.inner[place - 1].output_shape if place else link.input_shape
                found += _layer(inner, link.inner[place + 1 :], True, inner.input_shape != before)
        else:
            found += _layer(link, chain.links[position + 1 :])
    return tuple(found)


@dataclass(frozen=True)
class Front:
    """What stands between the input and the first layer with weights.

    Args:
        reached: input values that reach that layer, at most (pooling reduces them).
        equations: shared numbers of what stands before it (a normalisation of the input) that also depend on the input.
        link: the layer; None where a block or something that cannot be counted comes first.
    """

    reached: int
    equations: int
    link: Link | None

    def undetermined(self, inputs: int, rank: int) -> int:
        """Input values left open, at least, where the layer's equations have the given rank."""
        return max(0, inputs - min(self.reached, rank) - self.equations)


def front(chain: Chain) -> Front:
    """The way of the input to the first layer with weights."""
    reached, equations = prod(chain.input_shape), 0
    for link in chain.links:
        if link.kind in ("conv", "linear"):
            return Front(reached, equations, link)
        if link.kind not in (*PASSING, "pool", "activation"):
            break
        reached = min(reached, prod(link.output_shape))
        if link.module is not None:
            equations += sum(parameter.numel() for parameter in link.module.parameters())
    return Front(reached, equations, None)


def _layer(link: Link, later: Sequence[Link], in_block: bool = False, side: bool = False) -> list[WeightLayer]:
    if link.kind == "unsupported":
        return [WeightLayer(link, prod(link.output_shape), in_block=in_block, side=side, reason=link.reason)]
    if link.kind not in ("conv", "linear"):
        return []
    outputs, inactive, doubts = prod(link.output_shape), False, []
    beside = _biases(link)  # shared numbers that depend on z itself, also where pooling hides it
    for following in later:
        if following.kind in ("conv", "linear", "block", "join"):
            break
        if following.kind == "unsupported":
            doubts.append(f"{following.type}: {following.reason}")
            if following.parameters:
                break
        if following.activation is not None and following.activation.partial:
            inactive = True
        if prod(following.output_shape) < prod(following.input_shape):
            outputs = min(outputs, prod(following.output_shape) + beside)
        beside += _biases(following, also_weight=True)
    return [WeightLayer(link, outputs, inactive, in_block, side, doubts=tuple(doubts))]


def _biases(link: Link, *, also_weight: bool = False) -> int:
    own = [] if link.module is None else list(link.module.named_parameters())
    return sum(parameter.numel() for name, parameter in own if also_weight or name == "bias")
