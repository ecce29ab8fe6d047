"""The verdict in plain words, for somebody who reads no code: data, which page, table and JSON all show."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from leakgauge.audit.folder import strict_json
from leakgauge.audit.record import Record, Score, nearness
from leakgauge.audit.text_record import TextScore
from leakgauge.report.advice import recommendations, untested
from leakgauge.report.by_attack import AttackRow, attack_rows
from leakgauge.report.proof import proof_seconds, proof_sentences, proofs
from leakgauge.report.spans import BUILT_IN, Patterns, SpanCount, count_spans, spans_sentence
from leakgauge.report.text_attacks import TextAttackRow, text_attack_rows
from leakgauge.report.text_words import TEXT_RULE, is_text, noun_of, text_in_words, text_level
from leakgauge.report.words import (
    NOT_FOUND,
    NOT_FOUND_SENTENCE,
    PARTLY,
    REBUILT,
    RULE,
    SEVERITY,
    UNKNOWN,
    control_score,
    count,
    decibels,
    example_verdict,
    in_words,
    is_attack,
    listed,
    sentence,
)

THREATS = {"honest-but-curious server": "an honest-but-curious server: it follows the protocol, and studies what it receives"}
ALWAYS_HELD = (
    "The model and its state, the loss, the protocol of local training, the size of one input, the number of examples, "
    "and the update that one client shares."
)


@dataclass(frozen=True)
class Worst:
    """The example that leaked most.

    Args:
        record: position of its record in the list.
        score: its score.
        verdict: 'rebuilt', 'partly' or 'not found'.
        text: what it is, in a sentence.
    """

    record: int
    score: Score
    verdict: str
    text: str

    @property
    def level(self) -> str:
        """Its figure in short: '41.2 dB', '82 % of the tokens' or 'exact'."""
        return _level(self.score)


@dataclass(frozen=True)
class Summary:
    """What the records say, in sentences.

    Args:
        verdict: the worst verdict over all records.
        headline: the result in one sentence.
        pictures: how many different private examples were tried; then how many of them `rebuilt`, `partly`, `not_found`.
        attempts: attacks on one example each.
        who, holds, found, change: sentences.
        proof_seconds: how long certified results took, in sentences; apart from `found`, since times differ between runs.
        untested: phrases.
        rule: how the verdicts are reached.
        worst: the example that leaked most, or None.
        attacks: medians attack by attack, pictures.
        text_attacks: the same for texts.
        spans: personally identifying spans of the private texts, pattern by pattern.
    """

    verdict: str
    headline: str
    pictures: int
    rebuilt: int
    partly: int
    not_found: int
    attempts: int
    who: tuple[str, ...]
    holds: tuple[str, ...]
    found: tuple[str, ...]
    proof_seconds: tuple[str, ...]
    change: tuple[str, ...]
    untested: tuple[str, ...]
    rule: str
    worst: Worst | None
    attacks: tuple[AttackRow, ...]
    text_attacks: tuple[TextAttackRow, ...] = ()
    spans: tuple[SpanCount, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Strict JSON."""
        entries: dict[str, Any] = strict_json(asdict(self))
        return entries

    def sentences(self) -> tuple[str, ...]:
        """All that is said, as lines of text."""
        parts = {
            "Who could attack": " ".join(self.who),
            "What they hold": " ".join(self.holds),
            "What was rebuilt": " ".join(self.found + self.proof_seconds),
            "What leaked most": self.worst.text if self.worst else "",
            "What to change": " ".join(self.change),
            "What was not tested": "; ".join(self.untested) + ".",
            "How to read this": self.rule,
        }
        return (self.headline, *(f"{name}: {text}" for name, text in parts.items() if text))


def summarise(records: Sequence[Record], patterns: Patterns = BUILT_IN) -> Summary:
    """The verdict over all records that are attacks; controls do not count. `patterns` are those of identifying spans."""
    attacks = [record for record in records if is_attack(record)]
    verdicts = _by_example(attacks)
    tally = [list(verdicts.values()).count(verdict) for verdict in (REBUILT, PARTLY, NOT_FOUND)]
    attempts = sum(len(record.scores) for record in attacks)
    noun, spans = noun_of(attacks), count_spans(attacks, patterns)
    worst = _worst(records)
    return Summary(
        verdict=worst.verdict if worst else UNKNOWN,
        headline=_headline(noun, tally[0], tally[1], tally[2], proven=sum(map(proofs, attacks))),
        pictures=len(verdicts),
        rebuilt=tally[0],
        partly=tally[1],
        not_found=tally[2],
        attempts=attempts,
        who=_who(attacks),
        holds=_holds(attacks),
        found=(*_found(attacks, noun, attempts, tally, verdicts), *filter(None, [spans_sentence(spans)])),
        proof_seconds=proof_seconds(attacks),
        change=recommendations(records),
        untested=untested(records),
        rule=_rule(records),
        worst=worst,
        attacks=attack_rows(records),
        text_attacks=text_attack_rows(records),
        spans=spans,
    )


def _rule(records: Sequence[Record]) -> str:
    """The rule for pictures, for texts, or both."""
    texts = any(map(is_text, records))
    pictures = RULE if not texts or not all(map(is_text, records)) else ""
    ending = "." if pictures else f": {NOT_FOUND_SENTENCE}. The limits are a convention; the texts decide."
    return " ".join(filter(None, (pictures, TEXT_RULE + ending if texts else "")))


def _by_example(records: Sequence[Record]) -> dict[Hashable, str]:
    """Each different private example with the worst verdict that any attack reached on it."""
    verdicts: dict[Hashable, str] = {}
    for record in records:
        for score in record.scores:
            key, verdict = _identity(record, score), example_verdict(record, score)
            verdicts[key] = max(verdicts.get(key, NOT_FOUND), verdict, key=lambda entry: SEVERITY[entry])
    return verdicts


def _identity(record: Record, score: Score) -> Hashable:
    """Equal for the same private example in two records: by its pixels or tokens, else its name, else its place."""
    tokens = record.texts.truth if record.texts else ()
    if score.index < len(tokens) and tokens[score.index] is not None:
        return tokens[score.index]
    truth = record.pictures.truth if record.pictures else None
    if truth is not None and score.index < len(truth):
        return tuple(truth.shape[1:]), truth[score.index].detach().cpu().contiguous().double().numpy().tobytes()
    return (score.name, record.conditions.shape) if score.name else (record.key, score.index)


def _headline(noun: str, rebuilt: int, partly: int, not_found: int, *, proven: int) -> str:
    total = rebuilt + partly + not_found
    if not total and proven:
        were = "is" if proven == 1 else "are"
        return f"No original was given; {count(proven, 'reconstruction')} {were} certified from the update alone."
    if not total:
        return "No original was given: what was rebuilt cannot be judged here."
    private = f"{total} private {noun}{'s' if total != 1 else ''}"
    if rebuilt:
        rest = f", {partly} more partly" if partly else ""
        return f"{rebuilt} of {private} {'was' if rebuilt == 1 else 'were'} rebuilt{rest}."
    if partly:
        return f"{partly} of {private} {'was' if partly == 1 else 'were'} partly rebuilt."
    return f"Not found: {NOT_FOUND_SENTENCE}."


def _who(records: Sequence[Record]) -> tuple[str, ...]:
    names = dict.fromkeys(record.conditions.threat for record in records)
    return tuple(sentence(THREATS.get(name, name)) for name in names)


def _holds(records: Sequence[Record]) -> tuple[str, ...]:
    granted: dict[str, int] = {}
    for record in records:
        for fact in record.conditions.knowledge:
            granted[fact] = granted.get(fact, 0) + 1
    extra = [f"{fact} ({_share(number, len(records))})" for fact, number in granted.items()]
    return (ALWAYS_HELD, *([f"Also {listed(extra)}."] if extra else []))


def _share(part: int, whole: int) -> str:
    return "in all records" if part == whole else f"in {part} of {count(whole, 'record')}"


def _found(
    records: Sequence[Record], noun: str, attempts: int, tally: list[int], verdicts: dict[Hashable, str]
) -> tuple[str, ...]:
    rebuilt, partly, not_found = tally
    lines = []
    if attempts:
        tried = count(len(verdicts), f"different private {noun}")
        lines.append(
            f"{tried} in {count(attempts, 'attempt')}, one attempt being one attack on one {noun}: "
            f"{rebuilt} rebuilt, {partly} partly rebuilt, {not_found} not found by any attempt."
        )
        if not_found:
            lines.append(f"For what was not found: {NOT_FOUND_SENTENCE}.")
    labels = [(s.label, s.label_guess) for r in records for s in r.scores if s.label is not None and s.label_guess is not None]
    if labels:
        lines.append(f"The attacks named the right label in {sum(a == b for a, b in labels)} of {count(len(labels), 'attempt')}.")
    realistic = [
        verdict for verdict in _by_example([r for r in records if r.conditions.realistic]).values() if verdict == REBUILT
    ]
    if rebuilt and len(realistic) < rebuilt:
        only = "was" if rebuilt - len(realistic) == 1 else "were"
        lines.append(
            f"{rebuilt - len(realistic)} of the rebuilt {only} rebuilt only in diagnostic records, "
            "where the attacker was given more than a real server has."
        )
    lines += proof_sentences(records)
    unsure = sum(not record.determinable for record in records)
    if unsure:
        lines.append(
            f"In {count(unsure, 'record')} the shared update cannot determine the batch without a prior, by counting unknowns."
        )
    blind = sum(not record.scores for record in records)
    if blind:
        lines.append(f"In {count(blind, 'record')} no original was given; only the attack's own verdict is known there.")
    return tuple(lines)


def _worst(records: Sequence[Record]) -> Worst | None:
    """The highest verdict, and among those what comes nearest; the first of equals."""
    scored = [
        (SEVERITY[example_verdict(record, score)], nearness(score), position, score)
        for position, record in enumerate(records)
        if is_attack(record)
        for score in record.scores
        if not math.isnan(nearness(score))
    ]
    if not scored:
        return None
    _, _, position, score = max(scored, key=lambda entry: entry[:2])
    record = records[position]
    control = control_score(record, score.index)
    level = (
        f"; without the update, a fixed rule ({record.control.rule}) reaches {_level(control)}"
        if control and record.control
        else ""
    )
    kind = "" if record.conditions.realistic else " (diagnostic: the attacker was given more than a real server has)"
    text = f"{record.title}, example {score.index + 1}: {_level(score)}, that is, {_words(score)}{level}{kind}."
    return Worst(position, score, example_verdict(record, score), text)


def _level(score: Score) -> str:
    return text_level(score) if isinstance(score, TextScore) else decibels(score.psnr)


def _words(score: Score) -> str:
    return text_in_words(score) if isinstance(score, TextScore) else in_words(score.psnr)
