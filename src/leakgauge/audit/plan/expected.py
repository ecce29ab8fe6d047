"""`expected_work`: what a plan's cells will cost, by timing a little of each kind. Nothing is kept of what is played."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isnan

from leakgauge.attacks.run import attack
from leakgauge.audit.case import attack_call, network_of, observed, tokeniser_of
from leakgauge.audit.making import control_of
from leakgauge.audit.plan.cell import Cell
from leakgauge.audit.plan.cell_case import bare_case
from leakgauge.audit.plan.materials import bytes_of, weightless
from leakgauge.audit.plan.tables import AuditPlan
from leakgauge.audit.prior import with_picture, without_picture
from leakgauge.audit.text_case import load_batch, with_public
from leakgauge.audit.timing import planned_evaluations, seconds_per_evaluation
from leakgauge.errors import KnowledgeError, UnsupportedError
from leakgauge.registry import make
from leakgauge.truth import Batch

CLOSED_FORM = "closed form"
UNSUPPORTED = "not applicable"
CAPPED = 10.0  # seconds that one closed form is played at most
PATIENCE = 60.0  # seconds for all of them together; later ones are not timed
SHARE = 0.5  # of the machine's memory: networks that take more are not built for a first look
COPIES = 6  # of the weights, that an attack holds at once: parameters, update, candidate's update, two sweeps, the client's


@dataclass(frozen=True)
class Expected:
    """What one cell will cost.

    Args:
        cell: what is played.
        work: 'at most 4000 gradient evaluations', 'closed form', or 'not applicable' or 'will fail' with the reason.
        evaluations: gradient evaluations at most; 0 for closed forms.
        seconds: at most, on one worker; None where it was not timed.
    """

    cell: Cell
    work: str
    evaluations: int
    seconds: float | None


def expected_work(plan: AuditPlan, cells: Sequence[Cell], tell: Callable[[float], None] = lambda _: None) -> tuple[Expected, ...]:
    """The expected work of each cell.

    Cells that differ in seed, defence, threat or state alone are taken to cost the same: the first of them is timed. A search
    is timed by a few evaluations, a closed form by playing it for at most ten seconds.

    Args:
        plan: of the cells; its time limit bounds every cell.
        cells: as `cells_of` gives them.
        tell: called with the share of the kinds that are done.
    """
    kinds: dict[tuple[object, ...], tuple[str, int, float | None]] = {}
    distinct = {_kind(cell): cell for cell in reversed(cells)}
    spent = 0.0
    for count, (kind, cell) in enumerate(reversed(distinct.items())):
        begun = time.monotonic()
        kinds[kind] = _timed(cell, patient=spent < PATIENCE)
        if kinds[kind][0] == CLOSED_FORM:
            spent += time.monotonic() - begun
        tell((count + 1) / len(distinct))
    found = []
    for cell in cells:
        work, evaluations, seconds = kinds[_kind(cell)]
        if seconds is not None and plan.time_limit is not None:
            seconds = min(seconds, plan.time_limit)
        found.append(Expected(cell, work, evaluations, seconds))
    return tuple(found)


def in_words(expected: Sequence[Expected], workers: int = 1) -> str:
    """The whole in one sentence: '54 cells, at most 21600 gradient evaluations, about 18 minutes on 2 workers.'"""
    evaluations = sum(one.evaluations for one in expected)
    known = [one.seconds for one in expected if one.seconds is not None]
    seconds = max([sum(known) / max(workers, 1), *known], default=0.0)
    closed = sum(one.work == CLOSED_FORM for one in expected)
    parts = [f"{len(expected)} cell{'s' * (len(expected) != 1)}"]
    parts += [f"at most {evaluations} gradient evaluations"] if evaluations else []
    parts += [f"{closed} closed form{'s' * (closed != 1)}"] if closed else []
    parts.append(f"at most about {_span(seconds)} on {workers} worker{'s' * (workers != 1)}")
    missing = len(expected) - len(known)
    return ", ".join(parts) + (f", and {missing} that {'were' if missing != 1 else 'was'} not timed." if missing else ".")


def _kind(cell: Cell) -> tuple[object, ...]:
    return cell.data, cell.model, cell.protocol, cell.attack, cell.budget, cell.loss, cell.num_classes


def _timed(cell: Cell, *, patient: bool) -> tuple[str, int, float | None]:
    """Work, evaluations and seconds of one cell."""
    name, options = attack_call(cell.attack)
    try:
        chosen = make("attacks", name, **without_picture(options))
        planned = planned_evaluations(chosen, cell.budget)
        work = CLOSED_FORM if planned is None else f"at most {planned} gradient evaluations"
        if planned is None and not patient:
            return work, 0, None
        begun = time.monotonic()
        batch = load_batch(cell.data, cell.model)
        if _too_large(cell, batch):
            return work, planned or 0, None
        case = bare_case(cell)
        model = network_of(case, batch)
        seen = observed(case, model, batch)
        options = with_public(name, with_picture(options, seen.pictures), seen.spec, tokeniser_of(case, seen))
        if batch.pictures is not None:
            control_of(batch)
        around = time.monotonic() - begun
        if planned is None:
            guess = attack(seen, name, seed=cell.seed, time_limit=CAPPED, device="cpu", **options)
            return work, 0, around + guess.seconds
        rate = seconds_per_evaluation(seen, name, options, chosen, "cpu")
    except (UnsupportedError, KnowledgeError) as error:
        return f"{UNSUPPORTED}: {error}", 0, 0.0
    except Exception as error:  # noqa: BLE001 - a network or attack of one's own may raise anything; its cell will be 'failed'
        return f"will fail: {' '.join(str(error).split())[:200] or type(error).__name__}", 0, None
    return work, planned, None if rate is None or isnan(rate) else around + planned * rate


def _too_large(cell: Cell, batch: Batch) -> bool:
    """Whether the network with its copies needs more memory than a first look may take."""
    network = weightless(cell.model, cell.num_classes, batch.pictures.shape if batch.pictures else None)
    return network is not None and COPIES * bytes_of(network) > SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _span(seconds: float) -> str:
    """'40 seconds', '18 minutes', '3.5 hours'."""
    if seconds < 90:
        return f"{max(round(seconds), 2)} seconds"
    return f"{round(seconds / 60)} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
