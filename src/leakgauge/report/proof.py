"""Certificates in sentences: what is proof, what merely explains an update, and what contradicts its certificate."""

from __future__ import annotations

from collections.abc import Sequence

from leakgauge.audit.record import Record, Score
from leakgauge.report.text_words import is_text
from leakgauge.report.words import NOT_FOUND, PARTLY, REBUILT, count, example_verdict, is_attack, seconds_in_words, share

SHOWN = 3
PROOF = "That is proof, under the stated conditions: nothing else nearby explains the update."


def proof_sentences(records: Sequence[Record]) -> tuple[str, ...]:
    """What certificates and recomputed updates say, in sentences; only what was rebuilt, or has no original, counts as proof."""
    attacks = [record for record in records if is_attack(record)]
    proven = [(record, number) for record in attacks if (number := proofs(record))]
    lines = []
    total = sum(number for _, number in proven)
    if total:
        was = "was" if total == 1 else "were"
        named = [_named(record) for record, _ in proven[:SHOWN]]
        rest = [f"{count(len(proven) - SHOWN, 'further record')}"] if len(proven) > SHOWN else []
        lines.append(
            f"{count(total, 'reconstruction')} {was} certified by the attack itself, without the original: "
            f"{'; '.join(named + rest)}. {PROOF}"
        )
    broken = sum(_contradicted(record, score) for record in attacks for score in record.scores)
    if broken:
        lines.append(
            f"{count(broken, 'certified reconstruction')} {'is' if broken == 1 else 'are'} not the original to compare with: "
            "that belongs to another update, or a certificate, which looks only nearby, missed another solution."
        )
    explaining = [record for record in attacks if merely_explains(record)]
    explained = len(explaining)
    if explained:
        others = "texts" if all(map(is_text, explaining)) else "inputs" if any(map(is_text, explaining)) else "pictures"
        lines.append(
            f"In {count(explained, 'record')} the result explains the update to rounding and yet is not the original, or not all "
            f"of it: such an update leaves other {others} open, and what explains it is not thereby recovered."
        )
    return tuple(lines)


def proof_seconds(records: Sequence[Record]) -> tuple[str, ...]:
    """How long the certified results took, in a sentence of its own, since times differ from run to run."""
    proven = [record for record in records if is_attack(record) and proofs(record)]
    took = [f"'{record.title}' {seconds_in_words(record.seconds)}" for record in proven[:SHOWN]]
    return (f"The certified results took: {', '.join(took)}.",) if took else ()


def proofs(record: Record) -> int:
    """Certified reconstructions of a record that no original contradicts."""
    if not record.scores:
        return record.certified
    return sum(score.certified and example_verdict(record, score) == REBUILT for score in record.scores)


def _named(record: Record) -> str:
    near = "" if record.radius != record.radius else f", error radius {share(record.radius)} of the range"
    return f"'{record.title}' by {record.attack}{near}"


def _contradicted(record: Record, score: Score) -> bool:
    return score.certified and example_verdict(record, score) != REBUILT


def merely_explains(record: Record) -> bool:
    """Whether a result explains the update, is not certified, and some example was not rebuilt."""
    wrong = (NOT_FOUND, PARTLY)
    return record.explains and any(not score.certified and example_verdict(record, score) in wrong for score in record.scores)
