"""Whole texts of a network that looks both ways: a token for each position, such that every position's input lies in the span."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import torch
from torch import Tensor

from leakgauge.attacks.base import Limits
from leakgauge.attacks.text.network import TextNetwork
from leakgauge.attacks.text.span.decoder import Decoded
from leakgauge.attacks.text.span.sites import Checked

SEVERAL = 16  # texts that are recomputed where the first layer alone must tell them
FEW = 256  # texts that are enumerated instead of searched
RESTARTS = {"fast": 40, "paper": 200, "max": 1000}
NUMBERS = 1 << 22  # hidden numbers that one forward pass may hold


@dataclass
class _Search:
    """Texts (ids) and how far they are from the span.

    Args:
        network: the network.
        further: a site whose input depends on the whole text.
        choices: tokens that may stand at each position.
        checked: texts looked at so far.
    """

    network: TextNetwork
    further: Checked
    choices: list[Tensor]
    checked: int = field(default=0)

    def ratios(self, ids: Tensor) -> Tensor:
        """(n, L): ratio of each position of each text."""
        parts = []
        for part in torch.split(ids, max(NUMBERS // (ids.shape[1] * self.network.hidden * 4), 1)):
            inputs = self.network.inputs_of(self.further.site, part)
            parts.append(self.further.space.ratio(inputs.flatten(0, 1)).reshape(part.shape))
        self.checked += len(ids)
        return torch.cat(parts)

    def value(self, ratios: Tensor) -> Tensor:
        """(n,): what is made small: the mean ratio over positions, by its logarithm."""
        return ratios.mean(1).log()

    def descend(self, ids: Tensor, limits: Limits) -> tuple[Tensor, float]:
        """Changes tokens of one text (L,) while that brings it nearer to the span; returns it with its largest ratio.

        It goes on below the threshold: a text with one wrong token may already pass that.
        """
        ratios = self.ratios(ids[None])
        best = float(self.value(ratios))
        while not limits.expired:
            for tried in (self._changed(ids, best), self._exchanged(ids)):
                if not len(tried):
                    continue
                found = self.ratios(tried)
                scores = self.value(found)
                winner = int(scores.argmin())
                if float(scores[winner]) < best - 1e-9:
                    ids, best, ratios = tried[winner], float(scores[winner]), found[winner : winner + 1]
                    break
            else:
                break
        return ids, float(ratios.max())

    def _changed(self, ids: Tensor, best: float) -> Tensor:
        """The best texts that differ in one position, or in several that are each better alone: (n, L)."""
        moves = [
            (place, token) for place in range(len(ids)) for token in self.choices[place].tolist() if token != int(ids[place])
        ]
        if not moves:
            return ids[None][:0]
        tried = ids.repeat(len(moves), 1)
        places, tokens = (torch.tensor(each, device=ids.device) for each in zip(*moves, strict=True))
        tried[torch.arange(len(moves), device=ids.device), places] = tokens
        return self._together(ids, places, tokens, self.value(self.ratios(tried)), best)

    def _exchanged(self, ids: Tensor) -> Tensor:
        """Texts with two tokens exchanged: (n, L)."""
        allowed = [set(tokens.tolist()) for tokens in self.choices[: len(ids)]]
        text, rows = ids.tolist(), []
        for first, second in itertools.combinations(range(len(text)), 2):
            if text[first] != text[second] and text[second] in allowed[first] and text[first] in allowed[second]:
                row = list(text)
                row[first], row[second] = row[second], row[first]
                rows.append(row)
        return torch.tensor(rows, device=ids.device) if rows else ids[None][:0]

    @staticmethod
    def _together(ids: Tensor, places: Tensor, tokens: Tensor, values: Tensor, best: float) -> Tensor:
        """The best single change, and the best changes of 2, 4, ... positions at once: (n, L)."""
        order = values.argsort()
        chosen: dict[int, int] = {}
        for index in order.tolist():
            if float(values[index]) >= best:
                break
            chosen.setdefault(int(places[index]), int(tokens[index]))
        made, rows, size = ids.clone(), [], 1
        if not chosen:
            made[places[order[0]]] = tokens[order[0]]
            return made[None]
        for count, (place, token) in enumerate(chosen.items(), 1):
            made[place] = token
            if count in (size, len(chosen)):
                rows.append(made.clone())
                size *= 2
        return torch.stack(rows)


def search(
    network: TextNetwork,
    further: Checked | None,
    choices: list[Tensor],
    examples: int,
    generator: torch.Generator,
    limits: Limits,
) -> Decoded:
    """Texts whose tokens pass the first layer at every position and whose inputs further up lie in the span as a whole.

    One text per example is looked for. Where the first layer leaves few texts, all are tried; else tokens are changed one
    position, or several, at a time from random starts.

    Args:
        network: an encoder; a decoder where no layer further up can be used.
        further: a site that depends on the whole text; None where none was shared, which leaves what the first layer says.
        choices: tokens that may stand at each position.
        examples: N.
        generator: source of the starts.
        limits: what may be spent; the budget counts texts.
    """
    longest = next((place for place, tokens in enumerate(choices) if not len(tokens)), len(choices))
    choices = choices[:longest]
    number = 1
    for tokens in choices:
        number = min(number * len(tokens), FEW + 1)
    if longest == 0:
        return Decoded([], [], [], False, 0)
    if further is None:
        few = itertools.product(*(tokens.tolist() for tokens in choices)) if number <= SEVERAL else ()
        left = [torch.tensor(text, device=network.device) for text in few]
        return Decoded(left, [1.0] * len(left), [], number > 1, 0)
    state = _Search(network, further, choices)
    if examples == 1 and number <= FEW:
        texts = torch.tensor(list(itertools.product(*(tokens.tolist() for tokens in choices))), device=network.device)
        worst = state.ratios(texts).amax(1)
        passed = (worst <= further.space.threshold).nonzero().flatten()
        passed = passed[worst[passed].argsort()]
        return Decoded([texts[index] for index in passed], worst[passed].tolist(), [], False, state.checked)
    return _searched(state, examples, generator, limits)


def _searched(state: _Search, examples: int, generator: torch.Generator, limits: Limits) -> Decoded:
    found: dict[tuple[int, ...], float] = {}
    lengths = _lengths(state.choices) if examples > 1 else [len(state.choices)]
    restarts = limits.evaluations(RESTARTS["fast"], RESTARTS["paper"], RESTARTS["max"])
    for start in range(restarts):
        if len(found) == examples or limits.expired:
            break
        length = lengths[start % len(lengths)]
        picks = [int(torch.randint(len(tokens), (1,), generator=generator)) for tokens in state.choices[:length]]
        ids = torch.stack([tokens[pick] for tokens, pick in zip(state.choices, picks, strict=False)])
        if length < len(state.choices):
            ids[-1] = _endings(state.choices, length)[0]
        ids, worst = state.descend(ids, limits)
        if worst <= state.further.space.threshold:
            found.setdefault(tuple(ids.tolist()), worst)
    texts = sorted(found, key=lambda text: found[text])
    device = state.network.device
    return Decoded(
        [torch.tensor(text, device=device) for text in texts], [found[text] for text in texts], [], True, state.checked
    )


def _endings(choices: list[Tensor], length: int) -> Tensor:
    """Tokens that may end a text of this length: those that may also end the longest one."""
    return choices[length - 1][torch.isin(choices[length - 1], choices[-1])]


def _lengths(choices: list[Tensor]) -> list[int]:
    """Lengths that a text may have, the longest first."""
    return [length for length in range(len(choices), 1, -1) if len(_endings(choices, length))]
