"""The verdict on one private example."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from leakgauge.audit.record import ExampleScore, nearness
from leakgauge.audit.text_record import TextScore
from leakgauge.audit.verdict.judgement import RecordVerdict
from leakgauge.audit.verdict.sightings import PLAYED, Evidence, Sighting
from leakgauge.audit.verdict.words import IDENTIFIED, INCOMPLETE, NOT_FOUND, NOT_FOUND_SENTENCE, PARTLY, UNATTACKABLE

LEVEL = {"exact": 3, "rebuilt": 2, "partly": 1, "not found": 0}


def record_verdict(record: str, seen: Sequence[Sighting], everything: Evidence, realistic: Evidence) -> RecordVerdict:
    """The verdict on one private example.

    Args:
        record: its hash.
        seen: it in every cell that attacks it.
        everything: evidence of all cells of the audit.
        realistic: evidence of those alone where the attacker has no more than a real server.
    """
    level = max((sighting.pictorial for sighting in seen), key=LEVEL.__getitem__, default="not found")
    real = [sighting for sighting in seen if sighting.realistic]
    near_real = any(sighting.pictorial != "not found" for sighting in real)
    if everything.identifies(record, seen):
        verdict, rests = IDENTIFIED, realistic.identifies(record, real)
    elif level != "not found" or everything.stands_out(record):
        verdict, rests = PARTLY, near_real or realistic.stands_out(record)
    else:
        verdict, rests = _nothing(seen), bool(real)
    best = _best(record, seen, everything, level)
    first = next((sighting.line_up for sighting in seen if sighting.line_up), None)
    names = [sighting.score.name for sighting in seen if sighting.score]
    found = RecordVerdict(
        record=record,
        name=first.name if first else names[0] if names else "",
        patient=first.patient if first else "",
        verdict=verdict,
        best=best.key if best else "",
        cells=sum(sighting.score is not None and not math.isnan(nearness(sighting.score)) for sighting in seen),
        realistic=rests,
        certified=any(sighting.score is not None and sighting.score.certified for sighting in seen),
    )
    if record in everything.adjusted:
        suspect = everything.suspects[record]
        found = replace(found, p=suspect.p, adjusted=everything.adjusted[record], rank=suspect.rank, decoys=suspect.decoys)
    else:
        found = replace(found, decoys=max((len(sighting.line_up.decoys) for sighting in seen if sighting.line_up), default=0))
    found = _with_scores(found, best)
    return replace(found, sentences=_sentences(found, seen, best, level, everything.false_alarm))


def _nothing(seen: Sequence[Sighting]) -> str:
    """'not attackable', 'incomplete' or 'not found'."""
    if seen and all(_undeterminable(sighting) for sighting in seen):
        return UNATTACKABLE
    return INCOMPLETE if unfinished(seen) else NOT_FOUND


def unfinished(seen: Sequence[Sighting]) -> tuple[tuple[str, str], ...]:
    """Attacks that ended under no seed of their conditions, with their status: each may have been the stronger one."""
    ended = {replace(sighting.result.cell, seed=0) for sighting in seen if sighting.result.status in PLAYED}
    open_ones = [
        (sighting.result.cell.attack.partition(":")[0], sighting.result.status)
        for sighting in seen
        if sighting.result.status not in PLAYED and replace(sighting.result.cell, seed=0) not in ended
    ]
    return tuple(dict.fromkeys(open_ones))


def _undeterminable(sighting: Sighting) -> bool:
    """Whether the cell's own analysis says that the update does not determine the batch: by counting, or by rank."""
    record = sighting.result.record
    if record is None or sighting.result.status not in ("underdetermined", "unsupported"):
        return False
    return not record.determinable or any(layer.rank_deficiency > 0 for layer in record.layers)


def _best(record: str, seen: Sequence[Sighting], evidence: Evidence, level: str) -> Sighting | None:
    """The cell that shows most; where none shows anything, the one whose rank is most telling."""
    scored = [sighting for sighting in seen if sighting.score is not None and not math.isnan(nearness(sighting.score))]
    suspect = evidence.suspects.get(record)
    if level == "not found" and suspect is not None:
        return next((sighting for sighting in seen if sighting.key == suspect.cell), None)
    return max(
        scored, key=lambda one: (LEVEL[one.pictorial], one.realistic, nearness(one.score) if one.score else 0.0), default=None
    )


def _with_scores(found: RecordVerdict, best: Sighting | None) -> RecordVerdict:
    if best is None:
        return found
    score, control = best.score, best.control
    if isinstance(score, TextScore):
        other = control.in_place if isinstance(control, TextScore) else math.nan
        return replace(found, token_accuracy=score.in_place, control=other)
    if isinstance(score, ExampleScore):
        other = control.psnr if isinstance(control, ExampleScore) else math.nan
        return replace(found, psnr=score.psnr, ssim=score.ssim, control=other)
    return found


def level_text(found: RecordVerdict) -> str:
    """'41.2 dB (control 11.0 dB)', '82 % of its tokens (control 5 %)', or ''."""
    if not math.isnan(found.token_accuracy):
        other = "" if math.isnan(found.control) else f" (control {100 * found.control:.0f} %)"
        return f"{100 * found.token_accuracy:.0f} % of its tokens{other}"
    if math.isnan(found.psnr):
        return ""
    other = "" if math.isnan(found.control) else f" (control {_decibels(found.control)})"
    return _decibels(found.psnr) + other


def rank_text(found: RecordVerdict) -> str:
    """'nearer than all 99 decoys', 'nearer than 90 of 99 decoys', or '' where that cannot be tested."""
    if found.rank == 0:
        return ""
    ahead = found.decoys + 1 - found.rank
    return f"nearer than {'all ' if found.rank == 1 else f'{ahead} of '}{found.decoys} decoys"


def _decibels(psnr: float) -> str:
    return "exact" if psnr == math.inf else f"{psnr:.1f} dB"


def _sentences(
    found: RecordVerdict, seen: Sequence[Sighting], best: Sighting | None, level: str, false_alarm: float
) -> tuple[str, ...]:
    lines = []
    if best is not None and level_text(found):
        lines.append(f"Nearest in '{best.result.cell.attack.partition(':')[0]}': {level_text(found)}.")
    if found.rank:
        lines.append(
            f"Its reconstruction is {rank_text(found)}, in the best of the cells that attack it: p = {found.p:.2g}, "
            f"{found.adjusted:.2g} after correction for all records (the limit is {false_alarm:g})."
        )
    else:
        held = f"{found.decoys} decoys are too few" if found.decoys else "there are no decoys"
        lines.append(f"Whether it ranks before others cannot be tested: {held}.")
    if found.verdict == IDENTIFIED and not found.adjusted <= false_alarm:
        lines.append("Identified since the reconstruction shows it as it is, whatever the rank.")
    if level in ("rebuilt", "exact") and found.verdict == PARTLY:
        lines.append("Others of its class lie as near to the reconstruction: what was rebuilt may be the look of the class.")
    if level == "not found" and found.verdict == IDENTIFIED:
        lines.append("It is identified by its rank, though nothing can be made out in the reconstruction.")
    if level == "not found" and found.verdict == PARTLY:
        lines.append("Its rank is unlikely by itself, and not after correction: among many records a few are, by chance.")
    if found.certified:
        lines.append("An attack certified its reconstruction without seeing the original.")
    if found.verdict in (IDENTIFIED, PARTLY) and not found.realistic:
        lines.append("Diagnostic: only with more than a real server has.")
    if found.verdict == NOT_FOUND:
        lines.append(f"Not found: {NOT_FOUND_SENTENCE}.")
    if found.verdict == UNATTACKABLE:
        lines.append("By the count of equations or their rank, the updates do not determine it without a prior.")
    if found.verdict == INCOMPLETE:
        names = ", ".join(f"'{attack}' ({status})" for attack, status in unfinished(seen))
        lines.append(f"Nothing was found, and attacks that may be stronger were not played out: {names}.")
    return tuple(lines)
