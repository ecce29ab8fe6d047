"""What the records support changing, and what they did not test."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import fields

from leakgauge.audit.record import Conditions, Record
from leakgauge.report.proof import proofs
from leakgauge.report.text_words import is_text, noun_of
from leakgauge.report.words import (
    NOT_FOUND,
    NOT_FOUND_SENTENCE,
    PARTLY,
    REBUILT,
    SEVERITY,
    is_attack,
    is_unsupported,
    listed,
    record_verdict,
    sentence,
)

FOUND = (REBUILT, PARTLY)
COST = "What this costs in accuracy is not measured here, and an attacker who adapts to it may do better."
CHANGES = {
    "defence": ("the defence '{new}'", COST),
    "batch_size": (
        "a batch of {new} instead of {old}",
        "An attacker with good prior knowledge of the pictures may still do better.",
    ),
    "batch_norm": ("BatchNorm statistics that are not shared", "The rest of the update stays as informative as it was."),
    "training": ("'{new}' instead of '{old}' as local training", "An attack that models these steps better may do better."),
}
IRRELEVANT = frozenset({"seeds", "versions", "knowledge", "device"})  # may differ between two records that are compared
ATTACK_SIDE = frozenset({"labels", "budget"})


def recommendations(records: Sequence[Record]) -> tuple[str, ...]:
    """What to change, in sentences, and only as far as the records show a difference."""
    attacks = [record for record in records if is_attack(record) and record.scores]
    if not attacks:
        return ("Nothing follows from these records about what to change: no attack was compared with an original.",)
    advice = [*_from_series(attacks), *_from_contrasts(attacks), *_from_layers(attacks)]
    if advice:
        return tuple(dict.fromkeys(advice))
    if any(record_verdict(record) in FOUND for record in attacks):
        return (
            "None of these records shows a change that stopped the attack. Sweep a defence, such as noise on the update, "
            "clipping or sharing fewer layers, and read this page again.",
        )
    return (f"These records ask for no change. That is all they say: {NOT_FOUND_SENTENCE}.",)


def _from_series(records: Sequence[Record]) -> Iterator[str]:
    for name in dict.fromkeys(record.series.name for record in records if record.series):
        noun = noun_of([record for record in records if record.series and record.series.name == name])
        worst: dict[float, str] = {}
        texts: dict[float, str] = {}
        for record in records:
            if record.series and record.series.name == name:
                value, verdict = record.series.value, record_verdict(record)
                worst[value] = max(worst.get(value, NOT_FOUND), verdict, key=lambda entry: SEVERITY[entry])
                texts[value] = record.series.text
        values = sorted(worst)
        found = [value for value in values if worst[value] in FOUND]
        if not found or len(values) < 2:
            continue
        if found[-1] < values[-1]:
            safe, edge, span = values[values.index(found[-1]) + 1], found[-1], "from {} on"
        elif found[0] > values[0]:
            safe, edge, span = values[values.index(found[0]) - 1], found[0], "at {} and below"
        else:
            yield f"{sentence(name)[:-1]}: none of the tested strengths, up to {texts[values[-1]]}, stopped the attack."
            continue
        how = "rebuilt" if worst[edge] == REBUILT else "partly rebuilt"
        yield (
            f"{sentence(name)[:-1]}: at {texts[edge]} the {noun} was still {how}; {span.format(texts[safe])}, "
            f"{NOT_FOUND_SENTENCE}. {COST}"
        )


def _from_contrasts(records: Sequence[Record]) -> Iterator[str]:
    """Pairs of conditions that differ in one field, where the same attack found it in one and nothing did in the other."""
    for name, (change, caveat) in CHANGES.items():
        candidates = [record for record in records if not (name == "defence" and record.series)]
        for old, new in _contrasts(candidates, name):
            unknowns = ""
            if name == "batch_size" and all(
                not record.determinable for record in candidates if record.conditions.batch_size == new
            ):
                unknowns = " By the counting bound such a batch cannot be determined without a prior."
            warning = caveat.replace("pictures", "texts") if all(map(is_text, candidates)) else caveat
            yield f"{sentence(change.format(old=old, new=new))[:-1]}: {NOT_FOUND_SENTENCE}.{unknowns} {warning}"


def _from_layers(records: Sequence[Record]) -> Iterator[str]:
    """Networks whose layers, solved one after the other, gave the picture away with a certificate."""
    models = dict.fromkeys(record.conditions.model for record in records if record.layers and proofs(record))
    if models:
        yield (
            f"The architecture: the layers of {listed(list(models))} determine a picture that is alone in its batch, as a closed "
            "form proved. The command 'leakgauge inspect' names changes of the first layer that leave values open. What they "
            "cost in accuracy is not measured here, and what is left open a prior may still guess."
        )


def _contrasts(records: Sequence[Record], name: str) -> Iterator[tuple[object, object]]:
    found_anywhere = {
        (_setting(record, name, IRRELEVANT | ATTACK_SIDE), _value(record, name)) for record in records if _found(record)
    }
    groups: dict[Hashable, list[Record]] = {}
    for record in records:
        groups.setdefault((record.attack, _setting(record, name, IRRELEVANT)), []).append(record)
    for members in groups.values():
        tried = dict.fromkeys(_value(record, name) for record in members)
        found = dict.fromkeys(_value(record, name) for record in members if _found(record))
        setting = _setting(members[0], name, IRRELEVANT | ATTACK_SIDE)
        for old in found:
            for new in tried:
                if _is_change(name, old, new) and (setting, new) not in found_anywhere:
                    yield old, new


def _is_change(name: str, before: object, after: object) -> bool:
    if name == "defence":
        return before == "none" and after != "none"
    if name == "batch_size":
        return isinstance(before, int) and isinstance(after, int) and after > before
    if name == "batch_norm":
        return (before, after) == ("statistics seen", "statistics not seen")
    return before != after


def _value(record: Record, name: str) -> object:
    value: object = getattr(record.conditions, name)
    return value


def _setting(record: Record, without: str, ignored: frozenset[str]) -> tuple[object, ...]:
    return tuple(getattr(record.conditions, item.name) for item in fields(Conditions) if item.name not in ignored | {without})


def _found(record: Record) -> bool:
    return record_verdict(record) in FOUND


def untested(records: Sequence[Record]) -> tuple[str, ...]:
    """What these records say nothing about, in phrases."""
    attacks = [record for record in records if is_attack(record)]
    conditions = [record.conditions for record in attacks]
    threats = " ".join(item.threat for item in conditions).lower()
    names = list(dict.fromkeys(record.attack for record in attacks))
    gaps = [f"attacks other than {listed(names)}, or the same with more effort" if names else "any attack"]
    unsupported = (record for record in records if is_unsupported(record))
    gaps += [f"{record.attack}, which does not apply ({record.cause.rstrip('.')})" for record in unsupported]
    if "malicious" not in threats and "active" not in threats:
        gaps.append("a malicious server, which alters the model or the protocol so that it leaks more")
    if "round" not in threats:
        gaps.append("an attacker who combines what is shared in several rounds, or who works together with other clients")
    gaps.append("other questions about the data: whether somebody is in it (membership) or what it has in common (properties)")
    noun = noun_of(attacks)
    if noun == "picture":
        gaps.append("texts, tables and other data that are not pictures")
    elif noun == "text":
        gaps.append("pictures, tables and other data that are not texts")
    states = list(dict.fromkeys(item.model_state for item in conditions))
    if len(states) == 1:
        gaps.append(f"the model in another state than '{states[0]}', and other models")
    sizes = sorted({item.batch_size for item in conditions})
    if sizes:
        others = "texts" if noun == "text" else "pictures"
        gaps.append(f"batches of other sizes than {listed([str(size) for size in sizes])}, and other {others} than these")
    if len({item.training for item in conditions}) == 1:
        gaps.append(f"other local training than '{conditions[0].training}'")
    if any(item.batch_norm == "statistics seen" for item in conditions) and not any(
        item.batch_norm == "statistics not seen" for item in conditions
    ):
        gaps.append("the same attacks without sight of the BatchNorm statistics")
    if all(item.defence == "none" for item in conditions):
        gaps.append("any defence")
    else:
        gaps.append("attacks made for the defences that were used")
    return tuple(dict.fromkeys(gaps))
