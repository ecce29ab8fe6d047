"""A judgement in words: the overall sentence, the rules behind it, and what could not be tested."""

from __future__ import annotations

import math
from collections.abc import Sequence

from leakgauge.audit.record import ABOVE_CONTROL_DB, PARTLY_DB, REBUILT_DB
from leakgauge.audit.run.result import CellResult
from leakgauge.audit.verdict.decoys import ALONE
from leakgauge.audit.verdict.judgement import GroupVerdict, PatientVerdict, RecordVerdict, RoundVerdict
from leakgauge.audit.verdict.records import level_text, rank_text
from leakgauge.audit.verdict.sightings import fewest_decoys
from leakgauge.audit.verdict.words import IDENTIFIED, INCOMPLETE, NOT_FOUND, NOT_FOUND_SENTENCE, ORDER, PARTLY, UNATTACKABLE

UNREAD = "Not testable: "
DECOYS_UNFIT = 0.01  # a control that reaches this p, which sees no update, shows that decoys are no look-alikes


def overall(
    records: Sequence[RecordVerdict],
    groups: Sequence[GroupVerdict],
    change: str = "",
    patients: Sequence[PatientVerdict] = (),
    rounds: Sequence[RoundVerdict] = (),
) -> str:
    """The judgement in a few sentences, worst first, by stated rules."""
    total = len(records)
    if not total:
        return "No private record was attacked, so nothing can be said."
    named = {verdict: [entry for entry in records if entry.verdict == verdict] for verdict in ORDER}
    found = named[IDENTIFIED]
    lines = []
    if found:
        diagnostic = [entry for entry in found if not entry.realistic]
        only = (
            ""
            if not diagnostic
            else (
                ", only with more than a real server has"
                if len(diagnostic) == len(found)
                else f", {len(diagnostic)} of them only with more than a real server has"
            )
        )
        lines.append(f"{_records(len(found), total)} identified{only}.")
    else:
        lines.append(f"None of {_of(total)} is identified.")
    if patients:
        hit = sum(entry.verdict == IDENTIFIED for entry in patients)
        lines.append(f"{hit} of {len(patients)} patients {'has' if hit == 1 else 'have'} an identified record.")
    if rounds:
        apart = ", ".join(str(entry.counts[IDENTIFIED]) for entry in rounds)
        lines.append(f"That is over {len(rounds)} states of the network together; each by itself identifies {apart}.")
    pointing = [group for group in groups if group.identifying]
    if pointing and not found:
        group = max(pointing, key=lambda one: one.first / one.line_ups)
        lines.append(
            f"Taken together, though, reconstructions point to private records: with '{group.attack.partition(':')[0]}', "
            f"{group.first} of {group.line_ups} are nearer than all decoys, where {group.expected:.1f} are expected by chance."
        )
    if named[PARTLY]:
        lines.append(f"{_records(len(named[PARTLY]), total)} partly rebuilt, or ranked before decoys more than is usual.")
    if named[INCOMPLETE]:
        lines.append(f"For {len(named[INCOMPLETE])} the audit is incomplete: an attack that may be stronger was not played out.")
    if named[UNATTACKABLE]:
        lines.append(
            f"{_records(len(named[UNATTACKABLE]), total)} not attackable: the updates do not determine them without a prior."
        )
    if named[NOT_FOUND]:
        lines.append(f"{_records(len(named[NOT_FOUND]), total)} not found: {NOT_FOUND_SENTENCE}.")
    lines += _worst(records)
    if change:
        lines.append(f"What helped most: {change[0].lower()}{change[1:]}")
    return " ".join(lines)


def rules_of(false_alarm: float) -> tuple[str, ...]:
    """How verdicts are reached, in words."""
    rate = f"{100 * false_alarm:g} %"
    above = f"{ABOVE_CONTROL_DB:.0f} dB above the control"
    return (
        "Identified by rank: the private record is further ahead of its decoys, others of its class and source, than chance "
        "explains, in the best of all cells that attack it. Whatever else leaks, the chance that a record about which nothing "
        f"leaks is called identified by its rank is at most {rate}, over the whole audit and all its cells together.",
        f"Identified as it is: a reconstruction equals the record, or reaches {REBUILT_DB:.0f} dB (of a text: all of it) and "
        f"{above}, with no decoy as near where that can be tested.",
        f"Partly: a reconstruction reaches {PARTLY_DB:.0f} dB (of a text: half of its tokens) and {above}; or the rank is "
        f"unlikely at {rate} before correction, as it is by chance for {rate} of the records.",
        "Not attackable: every attack ended as underdetermined or unsupported, and the count of equations or their rank says "
        "that the updates do not determine the record without a prior.",
        "Incomplete: nothing was found, and an attack of the plan was unsupported, failed or ran out of time; it may have been "
        "the stronger one.",
        f"Not found: {NOT_FOUND_SENTENCE}.",
        "A group (cells that differ in data and seed only) points to private records where their ranks together are lower than "
        f"chance explains. The chance of saying so of any group that tells nothing is at most {rate}, besides that for records.",
        f"With fewer than {fewest_decoys(false_alarm)} decoys a rank is not testable. Equals count against the private record.",
        "A verdict is diagnostic where it rests on cells whose attacker has more than a real server, else realistic.",
    )


def untestable(
    results: Sequence[CellResult], records: Sequence[RecordVerdict], controls: Sequence[GroupVerdict], false_alarm: float
) -> tuple[str, ...]:
    """What could not be tested, and what speaks against a test."""
    lines = []
    untested = [entry for entry in records if math.isnan(entry.p)]
    if untested:
        few = [entry.decoys for entry in untested if entry.decoys]
        why = (
            f"they have at most {max(few)} decoys, and {fewest_decoys(false_alarm)} are needed" if few else "they have no decoys"
        )
        lines.append(f"The rank of {len(untested)} of {_of(len(records))} is not testable: {why}.")
    unread = sum(result.decoys.startswith(UNREAD) and not result.decoys.startswith(ALONE) for result in results)
    if unread:
        lines.append(f"The decoys of {unread} of {len(results)} cells could not be read; these cells say why.")
    failed = sum(result.status == "failed" for result in results)
    if failed:
        lines.append(f"{failed} of {len(results)} cells failed; they count as attacks that may be stronger, and in no average.")
    for group in controls:
        if group.p <= DECOYS_UNFIT:
            lines.append(
                f"The control, which sees no update, ranks private records before their decoys (p = {group.p:.2g}): these are "
                "not alike, and identification by rank cannot be trusted here."
            )
    return tuple(lines)


def severity(entry: RecordVerdict) -> tuple[float, ...]:
    """To sort by, worst first: by verdict, realistic before diagnostic, then by what can be seen, then by rank."""
    seen = entry.psnr if math.isnan(entry.token_accuracy) else entry.token_accuracy
    level = -math.inf if math.isnan(seen) else seen
    return ORDER.index(entry.verdict), not entry.realistic, -level, 1.0 if math.isnan(entry.adjusted) else entry.adjusted


def _worst(records: Sequence[RecordVerdict]) -> list[str]:
    number, worst = min(enumerate(records, start=1), key=lambda entry: severity(entry[1]))
    if worst.verdict not in (IDENTIFIED, PARTLY):
        return []
    facts = [text for text in (level_text(worst), rank_text(worst)) if text]
    return [f"The worst is record {number}: {', '.join(facts) or 'no figure'}."]


def _of(total: int) -> str:
    return f"{total} private record{'' if total == 1 else 's'}"


def _records(number: int, total: int) -> str:
    return f"{number} of {_of(total)} {'is' if number == 1 else 'are'}"
