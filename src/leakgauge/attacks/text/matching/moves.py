"""Discrete moves: tokens replaced, exchanged and shifted; a move is kept only if the objective falls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from leakgauge.attacks.text.matching.language import LanguagePrior
from leakgauge.attacks.text.matching.problem import TextProblem


@dataclass(frozen=True)
class Tokens:
    """A discrete candidate.

    Args:
        ids: (N, L).
        mask: (N, L).
        labels: as the loss takes them.
        value: the objective of the update recomputed from them.
        residual: its relative distance from the observed one.
    """

    ids: Tensor
    mask: Tensor
    labels: Tensor
    value: float
    residual: float


Candidates = Sequence[Sequence[Tensor]]  # per text, per position: token ids worth a try


def descend(
    tokens: Tokens,
    choices: Candidates,
    evaluate: Callable[[Tensor, Tensor, Tensor], Tokens],
    stop: Callable[[Tokens], bool],
    padded: bool,
) -> Tokens:
    """Coordinate descent over tokens: sweeps of moves until none helps, or `stop`.

    Args:
        tokens: where to begin.
        choices: token ids to try at each place.
        evaluate: (ids, mask, labels) -> candidate with its objective.
        stop: polled after each evaluation.
        padded: lengths are open too.
    """
    now, improved = [tokens], True
    while improved and not stop(now[0]):
        improved = False
        for move in (_crossed, _resized, _exchanged, _replaced) if padded else (_crossed, _exchanged, _replaced):
            for ids, mask in move(now, choices):
                found = evaluate(ids, mask, now[0].labels)
                if found.value < now[0].value * (1 - 1e-6):
                    now[0], improved = found, True
                if stop(now[0]):
                    return now[0]
    return now[0]


def _crossed(now: list[Tokens], _: Candidates) -> Iterator[tuple[Tensor, Tensor]]:
    """Two texts exchange everything from a position on, lengths included; position 0 exchanges the texts, labels stay."""
    count, length = now[0].ids.shape
    for position in range(length):
        for first in range(count):
            for second in range(first + 1, count):
                ids, mask = now[0].ids.clone(), now[0].mask.clone()
                if torch.equal(ids[first, position:], ids[second, position:]):
                    continue
                for tensor in (ids, mask):
                    tensor[[first, second], position:] = tensor[[second, first], position:]
                yield ids, mask


def _resized(now: list[Tokens], choices: Candidates) -> Iterator[tuple[Tensor, Tensor]]:
    """One text loses its last token, or gains one of those worth a try."""
    count, length = now[0].ids.shape
    for row in range(count):
        end = int(now[0].mask[row].sum())
        if end > 1:
            mask = now[0].mask.clone()
            mask[row, end - 1] = 0
            yield now[0].ids, mask
        end = int(now[0].mask[row].sum())
        for token in choices[row][end].tolist() if end < length else ():
            ids, mask = now[0].ids.clone(), now[0].mask.clone()
            ids[row, end], mask[row, end] = token, 1
            yield ids, mask


def _exchanged(now: list[Tokens], _: Candidates) -> Iterator[tuple[Tensor, Tensor]]:
    """Two texts exchange the token at one position."""
    count, length = now[0].ids.shape
    for position in range(length):
        for first in range(count):
            for second in range(first + 1, count):
                ids, mask = now[0].ids.clone(), now[0].mask
                both = bool(mask[first, position]) and bool(mask[second, position])
                if both and int(ids[first, position]) != int(ids[second, position]):
                    ids[[first, second], position] = ids[[second, first], position]
                    yield ids, mask


def _replaced(now: list[Tokens], choices: Candidates) -> Iterator[tuple[Tensor, Tensor]]:
    """One token becomes another of those worth a try."""
    count, length = now[0].ids.shape
    for row in range(count):
        for position in range(length):
            for token in choices[row][position].tolist():
                if bool(now[0].mask[row, position]) and token != int(now[0].ids[row, position]):
                    ids = now[0].ids.clone()
                    ids[row, position] = token
                    yield ids, now[0].mask


def permutation(length: int, kind: int, generator: torch.Generator) -> Tensor:
    """A random rearrangement of `length` places: where each new place takes its content from.

    Kinds: 0 two places exchanged, 1 one place moved, 2 a stretch moved, 3 a beginning moved to the end.

    Source: Balunovic et al. 2022 (LAMP), section 4.2.
    """
    order = list(range(length))
    if length < 2:
        return torch.tensor(order)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=generator))

    first, last = sorted((draw(0, length), draw(0, length)))
    if kind == 0:
        order[first], order[last] = order[last], order[first]
    elif kind == 1:
        place = order.pop(draw(0, length))
        order.insert(draw(0, length), place)
    elif kind == 2:
        stretch = order[first : last + 1]
        del order[first : last + 1]
        place = draw(0, len(order) + 1)
        order[place:place] = stretch
    else:
        cut = draw(1, length)
        order = order[cut:] + order[:cut]
    return torch.tensor(order)


def rearranged(
    problem: TextProblem,
    totals: Tensor,
    ids: Tensor,
    prior: LanguagePrior | None,
    weight: float,
    proposals: int,
    generator: torch.Generator,
    stop: Callable[[], bool],
) -> tuple[Tensor, int]:
    """The best of some random rearrangements of a continuous candidate, and the evaluations spent.

    Scored by the objective plus `weight` times the prior's log-likelihood of the tokens it decodes to; the candidate itself
    takes part.

    Args:
        problem: objective.
        totals: (N, L, E) continuous candidate.
        ids: (N, L) tokens it decodes to.
        prior: language model, or None.
        weight: of the prior.
        proposals: how many.
        generator: of the draws.
        stop: polled between evaluations.

    Source: Balunovic et al. 2022 (LAMP), algorithm 1, lines 7 to 12.
    """

    def score(candidate: Tensor, tokens: Tensor) -> float:
        value = float(problem.value(candidate).detach())
        return value if prior is None else value + weight * prior(tokens, problem.mask)

    best, lowest, spent = totals, score(totals, ids), 1
    for index in range(proposals):
        if stop():
            break
        row = int(torch.randint(len(ids), (), generator=generator))
        kept = problem.mask[row].nonzero().flatten()
        order = kept[permutation(len(kept), index % 4, generator).to(kept.device)]
        candidate, tokens = totals.clone(), ids.clone()
        candidate[row, kept] = (totals[row] - problem.places)[order] + problem.places[kept]
        tokens[row, kept] = ids[row, order]
        value, spent = score(candidate, tokens), spent + 1
        if value < lowest:
            best, lowest = candidate, value
    return best, spent
