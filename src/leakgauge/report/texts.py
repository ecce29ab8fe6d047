"""The texts of one record as values: original, reconstruction and control with what differs, and the scores in words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from difflib import SequenceMatcher

from leakgauge.audit.record import Record
from leakgauge.audit.text_record import TextScore, Tokens
from leakgauge.report.text_words import percent, rouge, text_level
from leakgauge.report.words import UNKNOWN, control_score, example_verdict, label_text

ORIGINAL, RECONSTRUCTION, CONTROL = "original", "reconstruction", "control"
MISSING = "…"
LEFT_OUT = "left out: redacted"


@dataclass(frozen=True)
class Run:
    """Neighbouring tokens that all agree with the other text, or all differ from it.

    Args:
        blank: ' ' before it, or ''.
        text: the tokens strung together.
        differs: whether they are not in the other text at this point.
    """

    blank: str
    text: str
    differs: bool


@dataclass(frozen=True)
class TextRow:
    """One line: 'original', 'reconstruction' or 'control'; no runs where `missing` says why."""

    what: str
    runs: tuple[Run, ...]
    missing: str = ""

    @property
    def plain(self) -> str:
        """The line without marks."""
        return "".join(run.blank + run.text for run in self.runs).strip()


@dataclass(frozen=True)
class TextExample:
    """One private text (or, without originals, one reconstruction) with its scores in words."""

    number: int
    name: str
    verdict: str
    level: str
    facts: tuple[tuple[str, str], ...]
    certified: bool
    rows: tuple[TextRow, ...]

    def size(self) -> int:
        """Estimated bytes on the page."""
        return 900 + sum(200 + sum(len(run.text.encode()) + 30 for run in row.runs) for row in self.rows)


def text_examples(record: Record, most: int) -> tuple[TextExample, ...]:
    """The texts of a record in the order of the batch, at most so many; those that leaked most are kept."""
    if record.texts is None:
        return ()
    if not record.text_scores:
        guesses = record.texts.guess[:most]
        return tuple(_blind(place, guess) for place, guess in enumerate(guesses, start=1))
    ranked = sorted(record.text_scores, key=lambda score: -math.inf if math.isnan(score.rougeL) else score.rougeL, reverse=True)
    kept = {score.index for score in ranked[:most]}
    return tuple(_scored(record, score) for score in record.text_scores if score.index in kept)


def batch_facts(record: Record) -> str:
    """Bag precision and recall in a sentence; '' without a truth."""
    if record.texts is None or math.isnan(record.texts.bag_recall):
        return ""
    return (
        f"All tokens of the batch together, whatever their order: precision {percent(record.texts.bag_precision)}, recall "
        f"{percent(record.texts.bag_recall)}."
    )


def compared(truth: Tokens, guess: Tokens) -> tuple[tuple[Run, ...], tuple[Run, ...]]:
    """Original and reconstruction as runs, aligned by their common stretches; a gap in the reconstruction is one '…'."""
    ours: list[tuple[str, bool]] = []
    theirs: list[tuple[str, bool]] = []
    for what, start, end, first, last in SequenceMatcher(None, truth, guess, autojunk=False).get_opcodes():
        ours += [(token, what != "equal") for token in truth[start:end]]
        theirs += [(token, what != "equal") for token in guess[first:last]]
        if first == last and end > start:
            theirs.append((f" {MISSING}", True))
    return _runs(ours), _runs(theirs)


def _runs(marked: list[tuple[str, bool]]) -> tuple[Run, ...]:
    groups: list[tuple[str, bool]] = []
    for token, differs in marked:
        if groups and groups[-1][1] == differs:
            groups[-1] = (groups[-1][0] + token, differs)
        else:
            groups.append((token, differs))
    return tuple(Run(" " if text[:1].isspace() else "", text.strip(), differs) for text, differs in groups if text)


def _scored(record: Record, score: TextScore) -> TextExample:
    texts = record.texts
    assert texts is not None
    control = control_score(record, score.index)
    truth, guess = _at(texts.truth, score.index), _at(texts.guess, score.guess)
    rows = []
    if truth is not None and guess is not None:
        ours, theirs = compared(truth, guess)
    else:
        ours, theirs = (_runs([(token, False) for token in tokens or ()]) for tokens in (truth, guess))
    rows.append(TextRow(ORIGINAL, ours, "" if truth is not None else LEFT_OUT))
    empty = "nothing was rebuilt" if guess is not None or score.guess < 0 else LEFT_OUT
    rows.append(TextRow(RECONSTRUCTION, theirs, "" if theirs else empty))
    if isinstance(control, TextScore) and texts.control:
        tokens = _at(texts.control, control.guess)
        runs = _runs([(token, False) for token in tokens or ()])
        rows.append(TextRow(CONTROL, runs, "" if runs else "nothing" if tokens is not None else LEFT_OUT))
    return TextExample(
        number=score.index + 1,
        name=score.name,
        verdict=example_verdict(record, score),
        level=text_level(score),
        facts=_facts(score, control if isinstance(control, TextScore) else None),
        certified=score.certified,
        rows=tuple(rows),
    )


def _facts(score: TextScore, control: TextScore | None) -> tuple[tuple[str, str], ...]:
    def beside(value: str, other: str) -> str:
        return f"{value} (control {other})" if control else value

    nothing = control or score
    facts = [
        ("Token accuracy", beside(percent(score.token_accuracy), percent(nothing.token_accuracy))),
        ("Whole sequence", "the same" if score.exact else "not the same"),
        ("ROUGE-1", beside(rouge(score.rouge1), rouge(nothing.rouge1))),
        ("ROUGE-2", beside(rouge(score.rouge2), rouge(nothing.rouge2))),
        ("ROUGE-L", beside(rouge(score.rougeL), rouge(nothing.rougeL))),
    ]
    if not math.isnan(score.unmasked_accuracy):
        facts.append(("Outside the mask", beside(percent(score.unmasked_accuracy), percent(nothing.unmasked_accuracy))))
        facts.append(
            ("Words under the mask", "none named" if math.isnan(score.masked_accuracy) else percent(score.masked_accuracy))
        )
    label = label_text(score)
    return (*facts, *([("Label", label)] if label else []), ("Tokens", str(score.length)))


def _blind(number: int, guess: Tokens | None) -> TextExample:
    runs = _runs([(token, False) for token in guess or ()])
    missing = "" if runs else "nothing was rebuilt" if guess is not None else LEFT_OUT
    return TextExample(number, "", UNKNOWN, "", (), False, (TextRow(RECONSTRUCTION, runs, missing),))


def _at(rows: tuple[Tokens | None, ...], index: int) -> Tokens | None:
    return rows[index] if 0 <= index < len(rows) else None
