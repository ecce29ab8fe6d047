"""The control for texts: what token frequencies of public texts give without the update."""

from __future__ import annotations

import torch
from torch import Tensor

from leakgauge.core.text_spec import IGNORED, TextSpec
from leakgauge.errors import OptionError, ShapeError

TEXT_RULES = ("best", "position", "frequent")


def control_tokens(spec: TextSpec, rule: str = "best", public: Tensor | None = None) -> tuple[str, Tensor]:
    """The control's name in words and its text (L,), of the length of a padded text, since that is granted.

    Rules: 'position' (at each place the token that most public texts have there), 'frequent' (the most frequent tokens of the
    public texts, in that order), 'best' (of the two, the one with more right on the public texts: tokens in place and common
    tokens, each text left out of its own count). The lowest id breaks ties.

    Args:
        spec: length and vocabulary.
        rule: one of the rules.
        public: (M, L') token ids of public texts, -100 beyond their end; without them 'best' is one token throughout.

    Raises:
        OptionError: for an unknown rule, or one that needs public texts without any.
        ShapeError: if the public texts are no token ids of the vocabulary.
    """
    if rule not in TEXT_RULES:
        raise OptionError(f"There is no control rule {rule!r} for texts; expected one of {', '.join(TEXT_RULES)}.")
    if public is None or len(public) == 0:
        if rule != "best":
            raise OptionError(f"The control rule {rule!r} needs public texts.")
        token = next((token for token in range(spec.vocabulary) if token != spec.padding), 0)
        return "one token throughout, since there are no public texts", torch.full((spec.length,), token)
    if public.ndim != 2 or public.is_floating_point() or int(public.max()) >= spec.vocabulary:
        raise ShapeError(
            f"The public texts have shape {tuple(public.shape)}, type {public.dtype} and ids up to {float(public.max()):g}; "
            f"expected token ids (M, L) below {spec.vocabulary}."
        )
    rows = [[int(token) for token in row if token != IGNORED] for row in public]
    makers = {"position": _by_position, "frequent": _by_frequency}
    words = {
        "position": f"the most frequent token at each place of {len(rows)} public texts",
        "frequent": f"the most frequent tokens of {len(rows)} public texts",
    }
    chosen = rule
    if rule == "best":
        right = {
            name: sum(_right(row, make([*rows[:place], *rows[place + 1 :]], len(row))) for place, row in enumerate(rows))
            for name, make in makers.items()
        }
        chosen = max(right, key=lambda name: right[name])
    return words[chosen], torch.tensor(makers[chosen](rows, spec.length), dtype=torch.int64)


def _by_position(rows: list[list[int]], length: int) -> list[int]:
    """The most frequent token at each place; beyond the longest text the most frequent of all."""
    found = []
    for place in range(length):
        there = [row[place] for row in rows if place < len(row)]
        found.append(_ranked(there or [token for row in rows for token in row] or [0])[0])
    return found


def _by_frequency(rows: list[list[int]], length: int) -> list[int]:
    """The most frequent tokens, again from the start where there are fewer than wanted."""
    ranked = _ranked([token for row in rows for token in row] or [0])
    return [ranked[place % len(ranked)] for place in range(length)]


def _ranked(tokens: list[int]) -> list[int]:
    counts: dict[int, int] = {}
    for token in tokens:
        counts[token] = counts.get(token, 0) + 1
    return sorted(counts, key=lambda token: (-counts[token], token))


def _right(text: list[int], guess: list[int]) -> float:
    """Share of the tokens in place plus share of common tokens."""
    if not text:
        return 0.0
    in_place = sum(one == other for one, other in zip(text, guess, strict=True))
    common = sum(min(text.count(token), guess.count(token)) for token in set(text))
    return (in_place + common) / len(text)
