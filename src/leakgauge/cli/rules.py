"""`--fail-if 'ssim > 0.5'`: rules over records, read without evaluating any code."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from leakgauge.errors import OptionError, did_you_mean

if TYPE_CHECKING:
    from leakgauge.audit.record import Record, Score
    from leakgauge.report.grid.findings import Findings

COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}
OF_TEXTS = {
    "token_accuracy": "token_accuracy", "exact": "exact", "rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeL",
    "unmasked_accuracy": "unmasked_accuracy", "masked_accuracy": "masked_accuracy",
}  # fmt: skip
PER_EXAMPLE = ("psnr", "ssim", "mse", "mse_unclamped", "certified", "label_right", "rebuilt", *OF_TEXTS)
PER_RECORD = ("explains", "label_accuracy")
OF_VERDICT = {name.replace(" ", "_"): name for name in ("identified", "partly", "incomplete")}  # of a private record of an audit
OF_STATUS = ("failed", "timeout", "unsupported")  # of a cell of an audit
METRICS = (*PER_EXAMPLE, *PER_RECORD, *OF_VERDICT, *OF_STATUS)


@dataclass(frozen=True)
class Rule:
    """A measure, a comparison and a limit; it is broken by any record for which it holds."""

    metric: str
    comparison: str
    limit: float

    def __str__(self) -> str:
        return f"{self.metric} {self.comparison} {self.limit:g}"


@dataclass(frozen=True)
class Breach:
    """One record, or one example of it, for which a rule holds."""

    rule: Rule
    key: str
    title: str
    example: int | None
    value: float

    def __str__(self) -> str:
        whose = "" if self.example is None else f", example {self.example + 1}"
        return f"{self.rule}: {self.title}{whose} has {self.rule.metric} {self.value:.4g}"


def parse_rule(text: str) -> Rule:
    """'ssim > 0.5' as a rule; 'psnr >= 30 dB' and 'certified > 0' too.

    Raises:
        OptionError: for anything else; the nearest measure is suggested.
    """
    match = re.fullmatch(r"\s*([A-Za-z_-]+[12]?)\s*(>=|<=|==|!=|>|<)\s*([-+]?[0-9.eE+-]+|[-+]?inf)\s*(?:dB)?\s*", text)
    if match is None:
        raise OptionError(f"The rule {text!r} cannot be read; expected MEASURE > NUMBER, such as 'ssim > 0.5'.")
    metric = re.sub(r"^rouge_?(?=[12l]$)", "rouge_", match[1].lower().replace("-", "_"))
    if metric not in METRICS:
        raise OptionError(f"The rule {text!r} names the unknown measure {match[1]!r}.{did_you_mean(metric, METRICS)}")
    try:
        return Rule(metric, match[2], float(match[3]))
    except ValueError:
        raise OptionError(f"The rule {text!r} has no number after {match[2]!r}; expected such as 'ssim > 0.5'.") from None


def breaches(records: Sequence[Record], rule: Rule) -> list[Breach]:
    """Where a rule holds; controls are left out.

    Raises:
        OptionError: if no record holds what the rule asks for, since then nothing was judged.
    """
    found, judged = [], 0
    for record in records:
        if record.attack == "control":
            continue
        for example, value in _values(record, rule.metric):
            if math.isnan(value):
                continue
            judged += 1
            if COMPARISONS[rule.comparison](value, rule.limit):
                found.append(Breach(rule, record.key, record.title, example, value))
    if not judged:
        raise OptionError(
            f"The rule '{rule}' cannot be judged: no record holds {rule.metric!r} (no original, or no such measurement)."
        )
    return found


def audit_breaches(findings: Findings, rule: Rule) -> list[Breach]:
    """Where a rule holds in an audit: `identified`, `partly` and `incomplete` of each private record, `failed`, `timeout` and
    `unsupported` of each cell (0 or 1 each), all else of each private example in each cell.

    Raises:
        OptionError: if nothing holds what the rule asks for, since then nothing was judged.
    """
    if rule.metric in OF_VERDICT:
        wanted = OF_VERDICT[rule.metric]
        judged = [
            (entry.record, f"private record {number}", float(entry.verdict == wanted))
            for number, entry in enumerate(findings.judgement.records, start=1)
        ]
    elif rule.metric in OF_STATUS:
        judged = [
            (result.cell.key, f"cell {number} ({result.cell.attack})", float(result.status == rule.metric))
            for number, result in enumerate(findings.results, start=1)
        ]
    else:
        scored = (result.record for result in findings.results if result.status not in ("failed", "unsupported"))
        return breaches([record for record in scored if record is not None], rule)
    if not judged:
        raise OptionError(f"The rule '{rule}' cannot be judged: the audit holds nothing with {rule.metric!r}.")
    holds = COMPARISONS[rule.comparison]
    return [Breach(rule, key, title, None, value) for key, title, value in judged if holds(value, rule.limit)]


def _values(record: Record, metric: str) -> Iterator[tuple[int | None, float]]:
    if metric in PER_EXAMPLE:
        for score in record.scores:
            yield score.index, _of_example(record, score, metric)
        if metric == "certified" and not record.scores:
            yield None, float(record.certified)
    elif metric == "explains":
        yield None, float(record.explains)
    elif metric == "label_accuracy":
        right = [_label_right(score) for score in record.scores]
        known = [value for value in right if not math.isnan(value)]
        if known:
            yield None, sum(known) / len(known)


def _of_example(record: Record, score: Score, metric: str) -> float:
    if metric == "rebuilt":
        from leakgauge.report.words import REBUILT, example_verdict

        return float(example_verdict(record, score) == REBUILT)
    if metric == "label_right":
        return _label_right(score)
    return float(getattr(score, OF_TEXTS.get(metric, metric), math.nan))  # a picture has no ROUGE, a text no PSNR


def _label_right(score: Score) -> float:
    if score.label is None or score.label_guess is None:
        return math.nan
    return float(score.label == score.label_guess)
