"""Why an attack failed: rules over what its record says. Each names what it saw and what would tell more."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from leakgauge.audit.plan.cell import Cell
from leakgauge.audit.record import Record
from leakgauge.audit.run.result import CellResult
from leakgauge.report.words import NOT_FOUND, PARTLY, UNKNOWN, count, number, record_verdict, sentence

RANK, SATURATION, BATCH_NORM, GAP, STALL = "rank", "saturation", "BatchNorm", "objective gap", "optimiser stall"
DEFENCE, BUDGET, AMBIGUOUS, LABELS, NONFINITE = "defence", "budget", "several solutions", "labels", "values not finite"
FAILED, TIME, APPLIES = "error", "time", "does not apply"
KINDS = {
    RANK: "What is shared holds fewer independent equations than there are unknown values.",
    SATURATION: "The update hardly depends on the input where the attack searched.",
    BATCH_NORM: "The client normalised with statistics of its own batch that the attack did not have or did not use.",
    AMBIGUOUS: "The result explains the update and still is another input: the update fits more than one.",
    DEFENCE: "The update was rewritten, so that the private batch itself no longer explains it.",
    GAP: "The private batch explains the update and the result does not: the search missed it, the information was there.",
    STALL: "The search no longer came nearer long before its effort was used up.",
    BUDGET: "The search was still coming nearer when its effort was used up: more effort may find more.",
    LABELS: "The attack worked with wrong labels.",
    NONFINITE: "The search ran into values that are not finite.",
    TIME: "The clock ended the attack.",
    APPLIES: "The attack cannot treat this network or protocol, or needs what the attacker is not granted.",
    FAILED: "The cell ended with an error; it is counted as failed and never as a score.",
}
EVAL_MODE = ("dlg", "idlg", "inverting-gradients", "mu-2022")  # presets that replay a client in eval mode, as published
TOLERANCE = 1e-3  # relative norm of what is left of the update, from which a search counts as having missed it
STALLED = 0.01  # relative fall of the objective over the last third of the evaluations


@dataclass(frozen=True)
class Reason:
    """One reason: its kind, which is a key of KINDS, and what was seen here, in a sentence."""

    kind: str
    text: str


def reasons(result: CellResult) -> tuple[Reason, ...]:
    """Why a cell's attack found nothing, or not everything; () where it rebuilt something, and where nobody can know.

    Controls are no attacks and have no reasons.
    """
    record = result.record
    if result.status == "failed":
        text = result.reason or "no reason was kept"
        kind = NONFINITE if record is not None and record.outcome == "NONFINITE" else FAILED
        return (Reason(kind, sentence(text)),)
    if result.status == "unsupported":
        return (Reason(APPLIES, sentence(result.reason or (record.cause if record else ""))),)
    if record is None:
        return (Reason(TIME, sentence(result.reason)),) if result.status == "timeout" else ()
    if record_verdict(record) not in (NOT_FOUND, PARTLY, UNKNOWN) or (not record.scores and record.explains):
        return ()
    found = list(_found(result, record))
    return tuple({reason.kind: reason for reason in reversed(found)}[kind] for kind in dict.fromkeys(one.kind for one in found))


def _found(result: CellResult, record: Record) -> Iterator[Reason]:
    if result.status == "timeout" or record.outcome == "TIMEOUT":
        after = f"after {count(record.evaluations, 'evaluation')}"
        yield Reason(TIME, sentence(result.reason or f"Stopped by the clock {after}"))
    if record.outcome == "NONFINITE":
        yield Reason(NONFINITE, sentence(record.cause or record.outcome_text))
    yield from _information(record)
    yield from _batch_norm(result.cell, record)
    yield from _labels(record)
    yield from _search(result.cell, record)


def _information(record: Record) -> Iterator[Reason]:
    """What the update does not hold, whatever the effort."""
    lacking = [layer for layer in record.layers if layer.rank < layer.unknowns]
    if lacking:
        worst = max(lacking, key=lambda layer: layer.rank_deficiency / max(layer.unknowns, 1))
        more = f", and {count(len(lacking) - 1, 'more layer')} likewise" if len(lacking) > 1 else ""
        yield Reason(RANK, f"Layer {worst.name} determines {worst.rank} of its {worst.unknowns} values{more}.")
    elif not record.determinable:
        yield Reason(RANK, sentence(record.bound) or "By counting, the update cannot determine the batch without a prior.")
    elif record.outcome == "UNDERDETERMINED":
        yield Reason(RANK, sentence(record.cause or record.outcome_text))
    if record.outcome in ("SATURATED", "NO_GRADIENT_SIGNAL"):
        yield Reason(SATURATION, sentence(record.cause or record.outcome_text))
    elif record.explains and record.scores and not lacking and record.determinable:
        yield Reason(
            AMBIGUOUS, f"The recomputed update is {number(record.residual)} away (relative norm), and the input is another one."
        )


def _batch_norm(cell: Cell, record: Record) -> Iterator[Reason]:
    conditions = record.conditions
    if conditions.batch_norm == "none in the network" or conditions.mode != "train":
        return
    name, _, options = cell.attack.partition(":")
    if conditions.batch_norm == "statistics not seen":
        yield Reason(BATCH_NORM, "The statistics of the client's batch were not shared with the attacker.")
    elif name in EVAL_MODE and not re.search(r"(^|,)\s*mode\s*=\s*observed", options):
        yield Reason(
            BATCH_NORM, f"{name} replays a client in eval mode, and this one trained with the statistics of its own batch."
        )


def _labels(record: Record) -> Iterator[Reason]:
    pairs = [(score.label, score.label_guess) for score in record.scores]
    wrong = sum(None not in pair and pair[0] != pair[1] for pair in pairs)
    if wrong:
        yield Reason(LABELS, f"{wrong} of {count(len(record.scores), 'label')} were wrong.")


def _search(cell: Cell, record: Record) -> Iterator[Reason]:
    """What the search left lying: a gap to the private batch, a stall, or a budget that ended too early."""
    residual = record.residual
    if record.explains or record.outcome in ("SATURATED", "NO_GRADIENT_SIGNAL", "NONFINITE") or not residual > TOLERANCE:
        return
    away = f"{number(residual)} away from the update (relative norm)"
    if cell.defence != "none":
        yield Reason(DEFENCE, f"Behind {cell.defence} the best fit is {away}.")
    else:
        yield Reason(GAP, f"The private batch reproduces the update to rounding; the result is {away}.")
    fall = _late_fall(record.curve)
    if math.isnan(fall):
        return
    text = f"The objective fell by {100 * fall:.2g} % over the last third of {count(record.evaluations, 'evaluation')}."
    if fall < STALLED:
        yield Reason(STALL, text)
    elif record.outcome in ("STEP_LIMIT", "TIMEOUT") and cell.defence == "none":
        yield Reason(BUDGET, text)


def _late_fall(curve: Sequence[tuple[int, float]]) -> float:
    """Relative fall of the best objective over the last third of the evaluations; NaN where the curve is too short."""
    points = [(at, value) for at, value in curve if math.isfinite(value)]
    if len(points) < 4 or points[-1][0] <= points[0][0]:
        return math.nan
    start = points[0][0] + 2 * (points[-1][0] - points[0][0]) / 3
    before = min(value for at, value in points if at <= start)
    after = min(value for _, value in points)
    return (before - after) / abs(before) if before else math.nan
