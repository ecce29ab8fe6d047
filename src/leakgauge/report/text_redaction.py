"""Redaction of texts: originals go, and with them what of a reconstruction would give them away."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import replace

from leakgauge.audit.record import Record
from leakgauge.audit.text_record import HALF, Texts, Tokens, half_right
from leakgauge.report.spans import BUILT_IN, Patterns, plain, spans_in

EXPLANATION = (
    "Of texts it leaves out originals, every reconstruction that has half of a private text's tokens or a personally "
    "identifying span of it, and all reconstructions where no original is known."
)


def strip_texts(record: Record, patterns: Patterns = BUILT_IN) -> Record:
    """The record without original texts, and without every text that comes near one; what is removed is None."""
    texts = record.texts
    if texts is None:
        return record
    poor = {score.guess for score in record.text_scores} - {score.guess for score in record.text_scores if half_right(score)}
    known = [tokens for tokens in texts.truth if tokens is not None]
    complete = bool(known) and len(known) == len(texts.truth)
    spans = {span.lower() for tokens in known for _, span in spans_in(plain(tokens), patterns)}

    def kept(rows: Sequence[Tokens | None], allowed: set[int]) -> tuple[Tokens | None, ...]:
        return tuple(
            tokens if tokens is not None and complete and place in allowed and not near_any(tokens, known, spans) else None
            for place, tokens in enumerate(rows)
        )

    return replace(
        record,
        texts=Texts(
            guess=kept(texts.guess, poor),
            truth=tuple(None for _ in texts.truth),
            control=kept(texts.control, set(range(len(texts.control)))),
            bag_precision=texts.bag_precision,
            bag_recall=texts.bag_recall,
        ),
    )


def near_any(tokens: Tokens, known: Sequence[Tokens], spans: Set[str]) -> bool:
    """Whether a text holds half of an original's tokens, wherever they stand, or one of their spans (in lower case)."""
    bag, held = Counter(tokens), plain(tokens).lower()
    if any(span in held for span in spans):
        return True
    return any((Counter(truth) & bag).total() >= HALF * max(len(truth), 1) for truth in known)
