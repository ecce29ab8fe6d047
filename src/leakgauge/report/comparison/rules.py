"""Rules over two runs: how much a measure may grow between them."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from leakgauge.audit.record import ExampleScore, Record, Score
from leakgauge.errors import OptionError
from leakgauge.report.comparison.match import pairing
from leakgauge.report.grid.findings import Findings
from leakgauge.report.words import REBUILT, example_verdict

COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge, "<=": operator.le, "==": operator.eq, "!=": operator.ne, ">": operator.gt, "<": operator.lt,
}  # fmt: skip
MEASURES = ("psnr", "ssim", "token_accuracy", "rebuilt", "identified")


@dataclass(frozen=True)
class Growth:
    """A rule: it is broken wherever `measure` after minus `measure` before compares so with the limit."""

    measure: str
    comparison: str
    limit: float

    def __str__(self) -> str:
        return f"{self.measure} {self.comparison} {self.limit:+g}"


def growths(before: Findings, after: Findings, rule: Growth) -> list[str]:
    """Where a rule is broken, in words.

    Raises:
        OptionError: if the two runs hold nothing that could be compared so.
    """
    judged = 0
    broken = []
    for what, was, now in _values(before, after, rule.measure):
        if math.isnan(was) or math.isnan(now):
            continue
        judged += 1
        difference = 0.0 if was == now else now - was
        if COMPARISONS[rule.comparison](difference, rule.limit):
            broken.append(f"{rule}: {what} went from {was:.4g} to {now:.4g}")
    if not judged:
        raise OptionError(f"The rule '{rule}' cannot be judged: the two runs share nothing with {rule.measure!r}.")
    return broken


def _values(before: Findings, after: Findings, measure: str) -> Iterator[tuple[str, float, float]]:
    if measure == "identified":
        mine = {entry.record: entry for entry in before.judgement.records}
        for number, entry in enumerate(after.judgement.records, start=1):
            if entry.record in mine:
                was, now = (float(one.verdict == "identified") for one in (mine[entry.record], entry))
                yield f"private record {number}", was, now
        return
    for title, old, new in pairing(before, after).pairs:
        if old.record is None or new.record is None:
            continue
        scores = {score.index: score for score in old.record.scores}
        for score in new.record.scores:
            if score.index in scores:
                was = _value(old.record, scores[score.index], measure)
                yield f"{title}, example {score.index + 1}", was, _value(new.record, score, measure)


def _value(record: Record, score: Score, measure: str) -> float:
    if measure == "rebuilt":
        return float(example_verdict(record, score) == REBUILT)
    if isinstance(score, ExampleScore) or measure == "token_accuracy":
        return float(getattr(score, measure, math.nan))
    return math.nan
