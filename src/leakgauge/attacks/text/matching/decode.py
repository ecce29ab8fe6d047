"""From summed embeddings to tokens: the nearest by true cosine, position embeddings included."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from leakgauge.attacks.text.matching.problem import TextProblem

CHUNK = 8192  # rows of the vocabulary compared together


@dataclass(frozen=True)
class Decoded:
    """Tokens read off a continuous candidate.

    Args:
        ids: (N, L) token ids, padding outside the mask.
        cosine: (N, L) cosine of each token's embedding with the slot it was read from.
        slot: (N, L) the slot of the same text from which position t was read; t itself where positions are not assigned.
    """

    ids: Tensor
    cosine: Tensor
    slot: Tensor


def decode(problem: TextProblem, totals: Tensor, allowed: Tensor, *, positions: bool, assign: bool) -> Decoded:
    """The nearest tokens to summed embeddings.

    With `positions` a slot's s = e + p + type is compared with what token v at position t adds up to, less their means where
    a norm takes the mean away; without, e alone is compared with the embedding's rows, as Zhu et al. 2019 do. An encoder's
    continuous candidate has no order (any permutation of its slots causes the same update), so that with `assign` the slots of
    each text are matched to positions by the best sum of cosines.

    Args:
        problem: embeddings, mask.
        totals: (N, L, E).
        allowed: (V,) bool, tokens that may occur.
        positions: compare with token and position together.
        assign: match slots to positions.
    """
    ids = torch.full_like(problem.mask, problem.padding)
    cosine = torch.zeros(problem.mask.shape, dtype=torch.float64)
    slot = torch.arange(ids.shape[1], device=ids.device).expand_as(ids).clone()
    for row in range(len(ids)):
        kept = problem.mask[row].nonzero().flatten()
        if positions and assign:
            best, found = _nearest(problem, totals[row, kept], kept, allowed)
            slots, places = linear_sum_assignment(-best.cpu().numpy())
            ids[row, kept[places]] = found[slots, places]
            cosine[row, kept[places].cpu()] = best[slots, places].cpu()
            slot[row, kept[places]] = kept[slots]
            continue
        for place in kept:
            where = place[None]
            shown = totals[row, where] if positions else totals[row, where] - problem.places[where]
            best, found = _nearest(problem, shown, where if positions else None, allowed)
            ids[row, place], cosine[row, place] = found[0, 0], best[0, 0]
    return Decoded(ids, cosine, slot)


@torch.no_grad()
def _nearest(problem: TextProblem, rows: Tensor, where: Tensor | None, allowed: Tensor) -> tuple[Tensor, Tensor]:
    """Largest cosine (n, T) of each row (n, E) at each position (T,), and the token (n, T) that has it."""
    network = problem.network
    table = network.parameter(network.tokens)
    tokens = allowed.nonzero().flatten().to(table.device)
    added = table.new_zeros(1, table.shape[1]) if where is None else problem.places[where].to(table)
    rows = rows.to(table)
    if where is not None and network.norm is not None:
        rows, added = rows - rows.mean(1, keepdim=True), added - added.mean(1, keepdim=True)
    rows = rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-300)
    best = rows.new_full((len(rows), len(added)), -2.0)
    found = torch.zeros(best.shape, dtype=torch.int64, device=rows.device)
    for chunk in torch.split(tokens, CHUNK):
        part = table[chunk]
        if where is not None and network.norm is not None:
            part = part - part.mean(1, keepdim=True)
        ahead, squares, cross = rows @ part.T, part.square().sum(1), part @ added.T
        for index in range(len(added)):
            length = (squares + 2 * cross[:, index] + added[index].square().sum()).clamp(min=1e-300).sqrt()
            value, place = ((ahead + (rows @ added[index])[:, None]) / length).max(1)
            better = value > best[:, index]
            best[better, index], found[better, index] = value[better], chunk[place[better]]
    return best, found


@torch.no_grad()
def alternatives(problem: TextProblem, totals: Tensor, slot: Tensor, allowed: Tensor, count: int) -> list[list[Tensor]]:
    """For each text and position the `count` tokens nearest to the slot that it was read from, best first.

    Args:
        problem: embeddings, mask.
        totals: (N, L, E).
        slot: (N, L) as `decode` gives it.
        allowed: (V,) bool.
        count: of tokens.
    """
    network = problem.network
    table = network.parameter(network.tokens)
    tokens = allowed.nonzero().flatten().to(table.device)
    found: list[list[Tensor]] = []
    for row in range(len(totals)):
        found.append([])
        for position in range(totals.shape[1]):
            if not bool(problem.mask[row, position]):
                found[row].append(tokens[:0])
                continue
            there = table[tokens] + problem.places[position].to(table)
            here = totals[row, slot[row, position]].to(table)
            if network.norm is not None:
                there, here = there - there.mean(1, keepdim=True), here - here.mean()
            cosine = (there @ here) / there.norm(dim=1).clamp(min=1e-300)
            found[row].append(tokens[cosine.topk(min(count, len(tokens))).indices])
    return found
