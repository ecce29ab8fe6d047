"""Whole sequences of a causal network: prefixes grow token by token, and only those whose input stays in the span are kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from leakgauge.attacks.text.span.grow import Growth
from leakgauge.attacks.text.span.subspace import Subspace

BEAM = 4  # prefixes kept, as a multiple of the number of examples


@dataclass(frozen=True)
class Decoded:
    """Sequences that cannot grow any further.

    Args:
        sequences: token ids (t,) each; those that the noise explains best first.
        ratios: largest ratio along each sequence.
        stems: prefixes that did grow, shorter ones first.
        cut: whether prefixes were dropped because there were too many.
        checked: extensions that were looked at.
    """

    sequences: list[Tensor]
    ratios: list[float]
    stems: list[Tensor]
    cut: bool
    checked: int


def decode(
    growth: Growth, space: Subspace, choices: list[Tensor], examples: int, expired: Callable[[], bool] = lambda: False
) -> Decoded:
    """Grows prefixes from the empty one until none can be extended.

    Args:
        growth: inputs of a site of kind 'prefix'.
        space: that site's subspace, with a threshold.
        choices: tokens that may stand at each position; its length is the longest text.
        examples: N.
        expired: polled at every position; True ends the search.
    """
    empty = torch.zeros(0, dtype=torch.int64, device=growth.network.device)
    alive: list[tuple[Tensor, float]] = [(empty, 0.0)]
    ended: list[tuple[Tensor, float]] = []
    stems: list[Tensor] = []
    cut, checked, room = False, 0, BEAM * examples + 8
    for tokens in choices:
        grown: list[tuple[Tensor, float]] = []
        for prefix, worst in alive:
            ratios = space.ratio(growth(prefix, tokens)) if len(tokens) and not expired() else torch.zeros(0)
            checked += len(tokens)
            kept = (ratios <= space.threshold).nonzero().flatten().tolist()
            if not kept and len(prefix):
                ended.append((prefix, worst))
            elif kept and len(prefix):
                stems.append(prefix)
            grown += [(torch.cat([prefix, tokens[index][None]]), max(worst, float(ratios[index]))) for index in kept]
        if len(grown) > room:
            grown.sort(key=lambda item: item[1])
            grown, cut = grown[:room], True
        alive = grown
    ended += alive if len(alive) != 1 or len(alive[0][0]) else []
    ended.sort(key=lambda item: item[1])
    return Decoded([prefix for prefix, _ in ended], [ratio for _, ratio in ended], stems, cut, checked)
