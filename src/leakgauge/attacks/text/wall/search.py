"""Texts past the rank wall: lengths and classes, last tokens, then rounds of prediction and assignment."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from leakgauge.attacks.text.wall.endings import last_tokens
from leakgauge.attacks.text.wall.fit import Fit
from leakgauge.attacks.text.wall.rows import TOGETHER, Rows, lengths_and_labels

ROUNDS = 10
FLOORS = (0.2, 0.1, 0.05, 0.02, 0.01, 0.005)  # E as a share of a place's usual variance, round by round
SHARES = (0.3, 0.25, 0.2, 0.15, 0.1)  # of the places that hold a tried token in one text, round by round
FULL = 3  # rounds in which every token is tried at every place
TRIED = 24  # tokens tried at each place later
SWEEPS = 3
EXACT = 1e-4  # relative residual of the rows that ends the search


@dataclass(frozen=True)
class Read:
    """What was read.

    Args:
        texts: token ids (t,) each.
        labels: (N,).
        residual: relative residual of the rows of both embeddings.
        rounds: how many.
        evaluations: backward passes over as many texts as the batch has.
    """

    texts: list[Tensor]
    labels: Tensor
    residual: float
    rounds: int
    evaluations: int


class Places:
    """The (text, position) pairs of texts with known lengths and classes."""

    def __init__(self, rows: Rows, texts: list[tuple[int, int]]) -> None:
        self.rows = rows
        self.spent = 0  # texts that went through a backward pass
        self.lengths = torch.tensor([length for length, _ in texts])
        self.labels = torch.tensor([label for _, label in texts])
        pairs = (torch.arange(int(self.lengths.max()))[None] < self.lengths[:, None]).nonzero()
        self.owner, self.spots = pairs[:, 0], pairs[:, 1]
        self.last = (self.spots == self.lengths[self.owner] - 1).nonzero().flatten()

    def __len__(self) -> int:
        return len(self.spots)

    def derivatives(self, chosen: Tensor) -> Tensor:
        """(n, S, D) for indices into the bag (n, S)."""
        found = self.rows.words.new_zeros(*chosen.shape, self.rows.words.shape[1])
        self.spent += len(chosen) * len(self.labels)
        for text, label in enumerate(self.labels):
            own = self.owner == text
            found[:, own] = self.rows.derivatives(self.rows.bag[chosen[:, own]], label.expand(len(chosen)))
        return found

    def predict(self, table: Tensor, around: Tensor, tried: Tensor, share: float, generator: torch.Generator) -> None:
        """Fills a table (V, S, D) at tokens tried (K, S), each in a text around (S,) in which a share of places is tried."""
        count = max(int(len(tried) / share), len(tried))
        slots = torch.stack([torch.randperm(count, generator=generator) for _ in range(len(self))], dim=1)
        every = torch.arange(len(self))
        for part in torch.split(slots, TOGETHER):
            chosen = torch.where(part < len(tried), tried[part.clamp(max=len(tried) - 1), every], around)
            found = self.derivatives(chosen)
            which, where = (part < len(tried)).nonzero(as_tuple=True)
            table[chosen[which, where], where] = found[which, where]


def read_texts(
    rows: Rows, generator: torch.Generator, expired: Callable[[], bool] = lambda: False, most: float = math.inf
) -> Read:
    """Searches for the texts whose derivatives add up to the rows.

    A table holds the predicted derivative of each token at each place, first within random texts, then within the texts found
    so far: what a place gives depends on its text's class, length and last token much more than on its other tokens. Tokens
    go to places by these predictions and by the sums that both kinds of rows must have. A right assignment gives right
    predictions, and then the rows agree to rounding.

    Args:
        rows: what is matched.
        generator: source of every draw.
        expired: whether time is up; the texts that are best by then come back.
        most: evaluations after which no further round begins.
    """
    places = Places(rows, lengths_and_labels(rows, generator))
    words, count = rows.words, len(rows.bag)
    sizes = words.square().sum(1)
    both = torch.cat([words, rows.places])
    every = torch.arange(count)[:, None].expand(count, len(places))
    table = words.new_zeros(count, len(places), words.shape[1])
    start = torch.randint(count, (len(places),), generator=generator)
    places.predict(table, start, every, 1.0, generator)
    parts, chosen, best = table.mean(0), start, None
    for number in range(ROUNDS):
        if number < FULL:
            ends = _last(rows, places, parts, chosen if number else None, generator)
        variance = table.square().sum(-1).mean(0).double()
        floor = FLOORS[min(number, len(FLOORS) - 1)] * variance.median().expand(len(both)).clone()
        cost = torch.stack([(table[:, place] - words).square().sum(1) / sizes for place in range(len(places))], dim=1)
        trial = _assigned(cost, places, ends if number < FULL else None, chosen if number else None)
        fit = Fit(table, both, places.spots, trial, variance, floor)
        for _ in range(SWEEPS if number else 0):
            if expired() or not fit.sweep(generator):
                break
        before = Fit(table, both, places.spots, chosen, variance, floor)
        if number >= FULL:
            before.sweep(generator)
        fit = before if number and before.misfit < fit.misfit else fit
        chosen = fit.chosen
        parts = places.derivatives(chosen[None])[0]
        residual = float(fit.left(parts).norm() / both.norm())
        if best is None or residual < best[0]:
            best = (residual, chosen.clone(), number + 1)
        if residual < EXACT or expired() or places.spent >= most * rows.examples:
            break
        tried = every if number < FULL else _likely(fit)
        places.predict(table, chosen, tried, SHARES[min(number, len(SHARES) - 1)], generator)
        table[chosen, torch.arange(len(places))] = parts
    assert best is not None
    texts = [rows.bag[best[1][places.owner == text]] for text in range(rows.examples)]
    return Read(texts, places.labels, best[0], best[2], places.spent // rows.examples)


def _last(rows: Rows, places: Places, parts: Tensor, chosen: Tensor | None, generator: torch.Generator) -> Tensor:
    """Last tokens from the rows less what all other places give."""
    quiet = parts.clone()
    quiet[places.last] = 0
    own = rows.places.index_add(0, places.spots, -quiet)[places.spots[places.last]]
    for index, place in enumerate(places.last.tolist()):  # texts of one length share a position's row
        same = places.last[(places.spots[places.last] == places.spots[place]) & (places.last != place)]
        own[index] -= parts[same].sum(0)
    words = rows.words if chosen is None else rows.words.index_add(0, chosen, -quiet)
    return last_tokens(words, own, generator)


def _assigned(cost: Tensor, places: Places, ends: Tensor | None, chosen: Tensor | None) -> Tensor:
    """One place for each token by predicted rows; other places keep their token or take the likeliest that is not settled."""
    free = torch.ones(len(places), dtype=torch.bool)
    if ends is not None:
        free[places.last] = False
    spots = free.nonzero().flatten()
    tokens, where = linear_sum_assignment(cost[:, spots].clamp(max=1).numpy())
    rows, spots = torch.tensor(tokens), spots[torch.tensor(where)]
    found = torch.full((len(places),), -1) if chosen is None else chosen.clone()
    settled = torch.zeros(len(cost), dtype=torch.bool)
    if chosen is not None:  # a token that fits one place well stands there and nowhere else
        values = cost[rows, spots]
        good = values < max(4 * float(values.median()), 0.02)
        rows, spots = rows[good], spots[good]
        settled[rows] = True
        found[settled[found]] = -1
    found[spots] = rows
    if ends is not None:
        found[places.last] = ends
    rest = (found < 0).nonzero().flatten()
    found[rest] = torch.where(settled[:, None], torch.inf, cost[:, rest]).argmin(0)
    return found


def _likely(fit: Fit) -> Tensor:
    """(K, S): the tokens whose change improves the fit most, or harms it least, at each place."""
    tokens = torch.arange(len(fit.table))[:, None]
    scores = [fit.changes(torch.full_like(tokens, place), tokens) for place in range(len(fit.chosen))]
    return torch.stack(scores, dim=1).topk(min(TRIED, len(tokens)), dim=0, largest=False).indices
