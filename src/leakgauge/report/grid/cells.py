"""The cells of a grid as values: a row of the table, and what opens beneath it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from leakgauge.audit.record import ExampleScore, Record, Score, nearness
from leakgauge.audit.run.result import CellResult
from leakgauge.audit.text_record import TextScore
from leakgauge.report.gallery import ORIGINAL, RECONSTRUCTION, Detail, Picture, examples_of
from leakgauge.report.grid.axes import axis_text, cell_title
from leakgauge.report.grid.findings import line_up_of, rank_of, rank_text
from leakgauge.report.grid.why import Reason, reasons
from leakgauge.report.page import DIAGNOSTIC, REALISTIC, condition_rows
from leakgauge.report.text_words import text_level
from leakgauge.report.texts import TextRow, text_examples
from leakgauge.report.words import (
    CONTROL,
    SEVERITY,
    control_score,
    decibels,
    is_attack,
    record_verdict,
    seconds_in_words,
    similarity,
)

NO_RESULT = "no result"
APART = ("Seeds", "Versions")  # conditions that stand apart: one is an axis, the other is the same for a whole run
Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class CellView:
    """One cell on the page.

    Args:
        number: place in the plan, from 1.
        key: of the cell.
        title: in one phrase.
        axes: texts of the axes on which the cells differ.
        status: of the cell.
        verdict: the worst over its examples by the pictorial rule, 'control', or 'no result'.
        level: its best figure, such as '41.2 dB'; '' without a score.
        level_value: the same as a number to sort by; -inf without a score.
        control: figure of the control for the same example.
        rank: place of that example among its decoys, in words.
        rank_share: the same as a number in (0, 1] to sort by, 2 where it was not tested.
        kind: 'realistic', 'diagnostic' or ''.
        evaluations, seconds: effort.
        reasons: why it failed, where it did.
        facts: what else is known of it.
        scores: one line per private example: number, level, SSIM, control, rank.
        conditions: those in which the cells differ.
        pictures: original and reconstruction of its worst example.
        texts: the same for texts.
    """

    number: int
    key: str
    title: str
    axes: Mapping[str, str]
    status: str
    verdict: str
    level: str
    level_value: float
    control: str
    rank: str
    rank_share: float
    kind: str
    evaluations: int
    seconds: float
    reasons: tuple[Reason, ...]
    facts: Pairs
    scores: tuple[tuple[str, ...], ...] = ()
    conditions: Pairs = ()
    pictures: tuple[Picture, ...] = field(default=(), repr=False)
    texts: tuple[TextRow, ...] = field(default=(), repr=False)

    @property
    def sort_level(self) -> float:
        """A finite number to sort by."""
        return min(max(self.level_value, -1e9), 1e9)

    @property
    def seconds_text(self) -> str:
        """The time in words."""
        return seconds_in_words(self.seconds)

    def size(self) -> int:
        """Estimated bytes on the page."""
        pictures = sum(len(picture.uri) + 400 for picture in self.pictures)
        texts = sum(len(run.text) + 60 for row in self.texts for run in row.runs)
        words = sum(len(name) + len(text) + 60 for name, text in (*self.conditions, *self.facts))
        return 1800 + pictures + texts + words + 220 * len(self.scores) + sum(len(one.text) + 120 for one in self.reasons)


def level_of(score: Score) -> str:
    """'41.2 dB', or for texts '82 % of the tokens'."""
    return text_level(score) if isinstance(score, TextScore) else decibels(score.psnr)


def level_value(score: Score) -> float:
    """A figure to sort and draw by: PSNR in dB, for texts the per cent of tokens in place."""
    return 100 * score.in_place if isinstance(score, TextScore) else score.psnr


def views_of(
    results: Sequence[CellResult], differing: Sequence[str], shared: Sequence[str], detail: Detail, redacted: bool
) -> tuple[CellView, ...]:
    """All cells; the first `detail.cards` by verdict and figure have pictures, and `detail.rows` lines of scores each.

    Args:
        results: in the order of the plan.
        differing: axes on which the cells differ.
        shared: names of the conditions that hold for all cells and are not repeated.
        detail: how much is shown.
        redacted: whether originals are left out.
    """
    order = sorted(range(len(results)), key=lambda place: _weight(results[place]), reverse=True)
    pictured = set(order[: detail.cards])
    return tuple(
        _view(place + 1, result, differing, set(shared), detail if place in pictured else None, redacted, detail.rows)
        for place, result in enumerate(results)
    )


def shared_conditions(results: Sequence[CellResult]) -> Pairs:
    """The conditions that all records have in common."""
    rows = [dict(condition_rows(result.record.conditions)) for result in results if result.record is not None]
    if not rows:
        return ()
    return tuple((name, text) for name, text in rows[0].items() if all(row.get(name) == text for row in rows))


def worst_score(record: Record) -> Score | None:
    """The example that leaked most."""
    return record.worst if is_attack(record) or record.attack == CONTROL else None


def _weight(result: CellResult) -> tuple[int, float]:
    record = result.record
    if record is None:
        return (-2, 0.0)
    worst = worst_score(record)
    return (SEVERITY[record_verdict(record)], nearness(worst) if worst else -math.inf)


def _view(
    number: int,
    result: CellResult,
    differing: Sequence[str],
    shared: set[str],
    detail: Detail | None,
    redacted: bool,
    rows: int,
) -> CellView:
    cell, record = result.cell, result.record
    worst = worst_score(record) if record is not None else None
    line_up = line_up_of(result, worst.index) if worst is not None else None
    control = control_score(record, worst.index) if record is not None and worst is not None else None
    scored = result.status not in ("failed", "unsupported") and record is not None
    return CellView(
        number=number,
        key=cell.key,
        title=cell_title(cell, differing),
        axes={name: axis_text(cell, name) for name in differing},
        status=result.status,
        verdict=record_verdict(record) if scored and record is not None else NO_RESULT,
        level=level_of(worst) if scored and worst is not None else "",
        level_value=level_value(worst) if scored and worst is not None else -math.inf,
        control=level_of(control) if scored and control is not None else "",
        rank=rank_text(line_up),
        rank_share=rank_of(line_up) / (len(line_up.decoys) + 1) if line_up and line_up.decoys else 2.0,
        kind="" if record is None else REALISTIC if record.conditions.realistic else DIAGNOSTIC,
        evaluations=record.evaluations if record is not None else 0,
        seconds=result.seconds,
        reasons=reasons(result),
        facts=_facts(result),
        scores=_lines(result, record, rows) if scored and record is not None else (),
        conditions=_conditions(record, shared),
        pictures=_pictures(record, worst, detail, redacted) if detail is not None and scored else (),
        texts=_texts(record, worst) if scored else (),
    )


def _facts(result: CellResult) -> Pairs:
    record = result.record
    facts: list[tuple[str, str]] = [("Status", result.status)]
    if record is not None:
        facts += [("Outcome", record.outcome_text), ("Why it ended", record.cause)]
        facts += [("What it states", "; ".join(record.notes)), ("Counting bound", record.bound)]
        facts += [
            (f"{one.name}{f' ({one.unit})' if one.unit else ''}", ", ".join(f"{value:.4g}" for value in one.values))
            for one in record.measured
        ]
        facts.append(("To make it again", record.reproduce))
    facts.append(("Decoys", result.decoys))
    return tuple((name, text) for name, text in facts if text)


def _lines(result: CellResult, record: Record, most: int) -> tuple[tuple[str, ...], ...]:
    """The examples that leaked most, by number."""
    kept = sorted(record.scores, key=lambda score: -math.inf if math.isnan(nearness(score)) else nearness(score), reverse=True)
    lines = []
    for score in sorted(kept[:most], key=lambda score: score.index):
        control = control_score(record, score.index)
        ssim = similarity(score.ssim) if isinstance(score, ExampleScore) else "none"
        against = level_of(control) if control is not None else "none"
        lines.append((f"{score.index + 1}", level_of(score), ssim, against, rank_text(line_up_of(result, score.index))))
    return tuple(lines)


def _conditions(record: Record | None, shared: set[str]) -> Pairs:
    if record is None:
        return ()
    return tuple((name, text) for name, text in condition_rows(record.conditions) if name not in shared)


def _pictures(record: Record | None, worst: Score | None, detail: Detail, redacted: bool) -> tuple[Picture, ...]:
    if record is None or worst is None or record.pictures is None:
        return ()
    one = Detail(frames=0, examples=1, pixels=detail.pixels, rows=len(record.scores), cards=1)
    example = next((entry for entry in examples_of(record, one, redacted) if entry.pictures), None)
    wanted = (ORIGINAL, RECONSTRUCTION) if detail.examples else (RECONSTRUCTION,)
    return tuple(picture for picture in example.pictures if picture.what in wanted) if example else ()


def _texts(record: Record | None, worst: Score | None) -> tuple[TextRow, ...]:
    if record is None or worst is None or record.texts is None:
        return ()
    found = next((entry for entry in text_examples(record, len(record.scores)) if entry.number == worst.index + 1), None)
    return tuple(row for row in found.rows if row.what in (ORIGINAL, RECONSTRUCTION)) if found else ()
