"""Words for verdicts on private records, and for the statuses of cells."""

from __future__ import annotations

import math

from leakgauge.audit.verdict.judge import RecordVerdict
from leakgauge.audit.verdict.words import IDENTIFIED, INCOMPLETE, NOT_FOUND, NOT_FOUND_SENTENCE, PARTLY, UNATTACKABLE

VERDICTS = {
    IDENTIFIED: "what was rebuilt points to this record and to no other, or shows it as it is",
    PARTLY: "something of this record came out, but not enough to be sure at the stated false-alarm rate",
    INCOMPLETE: "nothing was found, but a stronger attack was not played out, so that this says little",
    NOT_FOUND: NOT_FOUND_SENTENCE,
    UNATTACKABLE: "every attack showed that the update does not determine this record",
}
SIGNS = {IDENTIFIED: "●", PARTLY: "◐", INCOMPLETE: "◌", NOT_FOUND: "○", UNATTACKABLE: "□"}
STATUSES = {
    "ok": "the attack was played out",
    "underdetermined": "played out; the update leaves more than one solution",
    "unsupported": "the attack does not apply here",
    "failed": "ended with an error; never counted as a score",
    "timeout": "stopped by the clock; scored as far as it came",
}
COUNT_SENTENCE = "A cell is one attack on one update under one set of conditions."


def verdict_meaning(verdict: str) -> str:
    """What a verdict on a private record means."""
    return VERDICTS.get(verdict, "")


def record_name(entry: RecordVerdict, number: int) -> str:
    """'Record 3 (scan-17.png)', or its number alone."""
    return f"Record {number} ({entry.name})" if entry.name else f"Record {number}"


def chance(value: float) -> str:
    """A p-value: '0.003', 'below 0.001', 'not tested' for NaN."""
    if value is None or math.isnan(value):
        return "not tested"
    return "below 0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"
