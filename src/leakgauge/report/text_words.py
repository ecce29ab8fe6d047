"""Words for figures of texts, beside those for pictures in `words`."""

from __future__ import annotations

import math
from collections.abc import Sequence

from leakgauge.audit.record import Record
from leakgauge.audit.text_record import ABOVE_CONTROL, HALF, TextScore, near_text

TEXT_RULE = (
    "A text counts as rebuilt when every token of it is the same, in a masked text also the words under the mask. It counts as "
    f"partly rebuilt when {HALF:.0%} of its tokens stand at their place, or ROUGE-L reaches {HALF}, and that measure is at least "
    f"{ABOVE_CONTROL} above the control, a guess by the frequencies of public texts without the update. Otherwise it was not "
    "found"
).replace("%", " %")
TEXT_SCALE = (
    "Token accuracy is the share of a text's tokens that stand at their own place; in masked texts the places under the mask are "
    "scored apart. ROUGE-1 and ROUGE-2 compare tokens and pairs of neighbouring tokens wherever they stand, ROUGE-L the longest "
    "sequence of tokens that both hold in the same order; 1 means the same, 0 nothing in common. Bag precision and recall do so "
    "for all tokens of a batch together, whatever their order. In the texts, ‹these signs› enclose what differs, ‹…› stands "
    "where something is missing, and ⟦these⟧ enclose a word under the mask."
)


def is_text(record: Record) -> bool:
    """Whether a record is about texts."""
    return record.conditions.text is not None


def percent(value: float) -> str:
    """A share as '82 %', never '100 %' for less; 'no score' for NaN."""
    if math.isnan(value):
        return "no score"
    whole = round(100 * value)
    return f"{99 if whole == 100 and value < 1 else whole} %"


def rouge(value: float) -> str:
    """ROUGE with two decimals."""
    return "none" if math.isnan(value) else f"{value:.2f}"


def text_level(score: TextScore) -> str:
    """'exact', '82 % of the tokens', or 'no score'."""
    if score.whole:
        return "exact"
    return "no score" if math.isnan(near_text(score)) else f"{percent(score.in_place)} of the tokens"


def text_in_words(score: TextScore) -> str:
    """What a score means to a reader, as the end of a sentence."""
    if math.isnan(near_text(score)):
        return "it could not be compared"
    if score.whole:
        return "it equals the original, token for token"
    under = ""
    if not math.isnan(score.unmasked_accuracy):
        named = "none" if math.isnan(score.masked_accuracy) else percent(score.masked_accuracy)
        under = f", with {named} of the words under the mask named"
    return f"{percent(score.in_place)} of its tokens stand at their place, ROUGE-L {rouge(score.rougeL)}{under}"


def noun_of(records: Sequence[Record]) -> str:
    """'text' where all records are about texts, 'picture' where all are about pictures, else 'example'."""
    if records and all(map(is_text, records)):
        return "text"
    pictures = all(len(r.conditions.shape) == 3 and min(r.conditions.shape[1:]) > 1 for r in records)
    return "picture" if pictures else "example"
