"""Personally identifying spans, by patterns: how many the originals hold, and how many a reconstruction gave away."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from leakgauge.audit.record import Record
from leakgauge.audit.text_record import Tokens
from leakgauge.errors import DataError, OptionError
from leakgauge.report.words import is_attack

MONTHS = (
    "jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|"
    "dec(?:ember)?"
)
Patterns = Mapping[str, "re.Pattern[str]"]
# In this order: what one pattern took is not looked at by the next, so that a date is no telephone number as well.
BUILT_IN: Patterns = {
    name: re.compile(text, re.IGNORECASE)
    for name, text in {
        "e-mail address": r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+",
        "date": (
            r"(?<!\w)(?:\d{4}-\d{1,2}-\d{1,2}|\d{1,2}[./-]\d{1,2}[./-]\d{2,4}"
            rf"|\d{{1,2}}(?:st|nd|rd|th)?\s+(?:{MONTHS})(?:,?\s+\d{{4}})?|(?:{MONTHS})\s+\d{{1,2}}(?:st|nd|rd|th)?(?:,?\s+\d{{4}})?)(?!\w)"
        ),
        "telephone number": r"(?<!\w)(?:\+\d|\(?0\d)(?:[ ()/.-]{0,2}\d){6,13}(?!\w)",
        "long number": r"(?<!\w)\d(?:[ -]?\d){5,}(?!\w)",
    }.items()
}
LOOSE_ADDRESS = re.compile(r"(?:[\w+-]+\. )?[\w+-]+@[\w-]+\. [\w-]+")


@dataclass(frozen=True)
class SpanCount:
    """One pattern.

    Args:
        pattern: its name.
        originals: spans of it in the private texts.
        recovered: those of them that a reconstruction holds.
    """

    pattern: str
    originals: int
    recovered: int


def read_patterns(path: str | Path) -> Patterns:
    """The built-in patterns and those of a file, one 'NAME = REGULAR EXPRESSION' per line; '#' begins a remark.

    Upper and lower case do not matter. A name that is built in replaces that pattern.

    Raises:
        DataError: if the file cannot be read.
        OptionError: for a line that is no pattern, a pattern that cannot be read, or one that matches an empty text.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The patterns in {path} cannot be read ({getattr(error, 'strerror', None) or error}).") from error
    found = dict(BUILT_IN)
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, sign, text = (part.strip() for part in line.partition("="))
        if not (name and sign and text):
            raise OptionError(
                f"Line {number} of {path} is no pattern; expected NAME = REGULAR EXPRESSION, as in name = lindgren|okafor."
            )
        try:
            pattern = re.compile(text, re.IGNORECASE)
        except (re.error, OverflowError, RecursionError) as error:
            raise OptionError(f"The pattern {name!r} in line {number} of {path} cannot be read ({error}): {text!r}.") from error
        if pattern.search("") is not None:
            raise OptionError(
                f"The pattern {name!r} in line {number} of {path} matches an empty text, so it says nothing: {text!r}."
            )
        found[name] = pattern
    return found


def plain(tokens: Tokens) -> str:
    """Tokens as running text, without the blanks that word pieces bring in around '@', '-' and '/', and into numbers."""
    text = re.sub(r"\s+", " ", "".join(tokens).replace("\u27e6", "").replace("\u27e7", ""))
    text = re.sub(r"(?<=\w) ([@/_+-]) (?=\w)", r"\1", text)
    text = re.sub(r"(?<=\d)\. (?=\d)", ".", text)
    return LOOSE_ADDRESS.sub(lambda match: match[0].replace(". ", "."), text)


def spans_in(text: str, patterns: Patterns) -> list[tuple[str, str]]:
    """(name of the pattern, what it found), pattern by pattern; no two of them overlap."""
    found = []
    for name, pattern in patterns.items():
        matches = [match for match in pattern.finditer(text) if match[0].strip()]
        found += [(name, match[0]) for match in matches]
        for match in matches:
            text = text[: match.start()] + "\n" * len(match[0]) + text[match.end() :]
    return found


def count_spans(records: Sequence[Record], patterns: Patterns = BUILT_IN) -> tuple[SpanCount, ...]:
    """Each pattern over all different private texts of the attacks; recovered if any attack recovered it.

    A span is recovered if the reconstruction that is assigned to its text holds it, upper and lower case alike.
    """
    seen: dict[Hashable, list[tuple[str, bool]]] = {}
    for record in records:
        texts = record.texts
        if texts is None or not is_attack(record):
            continue
        for score in record.text_scores:
            truth = texts.truth[score.index] if score.index < len(texts.truth) else None
            if truth is None:
                continue
            guess = texts.guess[score.guess] if 0 <= score.guess < len(texts.guess) else None
            held = plain(guess or ()).lower()
            now = [(name, _holds(held, span.lower())) for name, span in spans_in(plain(truth), patterns)]
            before = seen.get(truth, now)
            seen[truth] = [(name, one or other) for (name, one), (_, other) in zip(now, before, strict=True)]
    everything = [entry for entries in seen.values() for entry in entries]
    if not seen:
        return ()
    return tuple(
        SpanCount(
            pattern=name,
            originals=sum(found == name for found, _ in everything),
            recovered=sum(found == name and recovered for found, recovered in everything),
        )
        for name in patterns
    )


def spans_sentence(counts: Sequence[SpanCount]) -> str:
    """The count in a sentence; '' where there are no texts to count in."""
    held = [count for count in counts if count.originals]
    if not counts:
        return ""
    names = ", ".join(count.pattern for count in counts)
    if not held:
        return f"Personally identifying spans: the patterns ({names}) match nothing in the originals."
    parts = "; ".join(f"{count.pattern} {count.recovered} of {count.originals}" for count in held)
    total, recovered = sum(count.originals for count in held), sum(count.recovered for count in held)
    return (
        f"Personally identifying spans: {recovered} of the {total} that the patterns find in the originals stand in a "
        f"reconstruction ({parts}). Patterns miss what they do not describe, such as names."
    )


def _holds(text: str, span: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(span)}(?!\w)", text) is not None
