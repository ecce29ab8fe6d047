"""`line_ups_of`: distances from private examples and decoys alike to the nearest reconstruction of a batch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from leakgauge.audit.record import Record
from leakgauge.audit.verdict.decoys import Decoys
from leakgauge.audit.verdict.lineup import LineUp
from leakgauge.audit.verdict.look_alikes import Tokens, words_of

DIGITS = 6  # of a distance; rounding treats all alike, and equals count against the private example


def line_ups_of(record: Record, decoys: Decoys) -> tuple[LineUp, ...]:
    """One line-up for each private example, whatever the attack returned.

    An update has no order. Assigning reconstructions to private examples by nearness would favour these over their decoys, so
    every candidate, private or decoy, counts with the reconstruction that is nearest to it.

    Args:
        record: with its pictures or texts, truth included.
        decoys: of its batch.
    """
    truth, others = _text_distances(record, decoys) if record.texts is not None else _picture_distances(record, decoys)
    distance = "tokens" if record.texts is not None else "mse"
    line_ups = []
    for place, example in enumerate(decoys.private):
        pool, rows = decoys.rows[place]
        at = truth[place] if place < len(truth) else math.inf
        returned = math.isfinite(at) and bool(rows)
        line_ups.append(
            LineUp(
                example=place,
                record=example.record,
                name=decoys.names[place],
                patient=example.patient,
                distance=distance,
                truth=at,
                decoys=tuple(others[pool][row] for row in rows) if returned else (),
                others=tuple(decoys.pools[pool].records[row] for row in rows) if returned else (),
            )
        )
    return tuple(line_ups)


def nearest_pixels(candidates: Tensor, guess: Tensor) -> list[float]:
    """The least mean squared error of each candidate to a reconstruction; inf where there is none.

    Args:
        candidates: (M, *shape).
        guess: (N, *shape); rows that are not finite are left out.
    """
    found = guess.detach().to("cpu", torch.float64).flatten(1)
    found = found[torch.isfinite(found).all(1)]
    if len(found) == 0 or len(candidates) == 0:
        return [math.inf] * len(candidates)
    best = []
    for start in range(0, len(candidates), 64):
        wanted = candidates[start : start + 64].detach().to("cpu", torch.float64).flatten(1)
        # |a - b|^2 = |a|^2 + |b|^2 - 2 ab, and once more in full for the nearest, which rounding would spoil
        nearest = (found.square().sum(1)[None] - 2 * wanted @ found.T).argmin(1)
        best += (wanted - found[nearest]).square().mean(1).tolist()
    return [_rounded(value) for value in best]


def missing_share(candidate: Tokens, guesses: Sequence[Tokens]) -> float:
    """The least share of a candidate's tokens that a reconstruction lacks, each counted as often as it occurs; in [0, 1].

    Unlike an F-measure, this does not favour candidates as long as the reconstruction, whose length an attacker is told.
    """
    if not guesses or not candidate:
        return math.inf
    wanted = Counter(candidate)
    common = max((wanted & Counter(guess)).total() for guess in guesses)
    return _rounded(1.0 - common / len(candidate))


def _picture_distances(record: Record, decoys: Decoys) -> tuple[list[float], list[list[float]]]:
    held = record.pictures
    if held is None or held.truth is None:
        return [], [[math.inf] * len(pool.records) for pool in decoys.pools]
    pools = [nearest_pixels(pool.pixels, held.guess) if pool.pixels is not None else [] for pool in decoys.pools]
    return nearest_pixels(held.truth, held.guess), pools


def _text_distances(record: Record, decoys: Decoys) -> tuple[list[float], list[list[float]]]:
    assert record.texts is not None
    guesses = [words_of(tokens, decoys.special) for tokens in record.texts.guess if tokens]
    truth = [missing_share(words_of(tokens or (), decoys.special), guesses) for tokens in record.texts.truth]
    return truth, [[missing_share(tokens, guesses) for tokens in pool.tokens] for pool in decoys.pools]


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
