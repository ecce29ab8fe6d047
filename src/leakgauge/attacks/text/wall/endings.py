"""Which tokens stand last: their derivatives are so large that few rows can hold them."""

from __future__ import annotations

import torch
from torch import Tensor

LOUD = 6  # rows that are thought of
STARTS = 60
PRICE = 0.2  # of a last token's squared size, for each further token that ends texts


def last_tokens(words: Tensor, parts: Tensor, generator: torch.Generator) -> Tensor:
    """Index of the row (V, D) to which each of the last tokens' derivatives (N, D) belongs.

    Derivatives of opposite classes cancel in a sum, so a pair of them can be moved between rows at little cost: a further row
    must explain a share of a derivative's size.
    """
    loud = words.norm(dim=1).topk(min(LOUD, len(words))).indices
    price = PRICE * float(parts.square().sum(1).mean())

    def misfit(chosen: Tensor) -> float:
        rest = words[loud].index_add(0, chosen, -parts)
        return float(rest.square().sum()) + price * len(set(chosen.tolist()))

    best: tuple[float, Tensor] | None = None
    for start in range(STARTS):
        few = torch.randperm(len(loud), generator=generator)[: 1 + start % 3]
        chosen = few[torch.randint(len(few), (len(parts),), generator=generator)]
        value, better = misfit(chosen), True
        while better:
            better = False
            for trial in _neighbours(chosen, few):
                tried = misfit(trial)
                if tried < value * (1 - 1e-9):
                    chosen, value, better = trial, tried, True
                    break
        if best is None or value < best[0]:
            best = (value, chosen)
    assert best is not None
    rows: Tensor = loud[best[1]]
    return rows


def _neighbours(chosen: Tensor, few: Tensor) -> list[Tensor]:
    found = []
    for place in range(len(chosen)):
        for row in few.tolist():
            if row != int(chosen[place]):
                found.append(chosen.clone())
                found[-1][place] = row
        for other in range(place):
            if chosen[other] != chosen[place]:
                found.append(chosen.clone())
                found[-1][place], found[-1][other] = chosen[other], chosen[place]
    return found
