"""`judge`: results of an audit to a judgement, by stated rules and with a stated false-alarm rate."""

from __future__ import annotations

from collections.abc import Sequence

from leakgauge.audit.run.result import CellResult
from leakgauge.audit.verdict.changes import best_change
from leakgauge.audit.verdict.groupings import groups_of, patients_of, rounds_of, verdicts_of
from leakgauge.audit.verdict.judgement import GroupVerdict, Judgement, PatientVerdict, RecordVerdict, RoundVerdict
from leakgauge.audit.verdict.saying import overall, rules_of, severity, untestable
from leakgauge.audit.verdict.words import NOT_FOUND_SENTENCE
from leakgauge.errors import OptionError

__all__ = [
    "NOT_FOUND_SENTENCE",
    "GroupVerdict",
    "Judgement",
    "PatientVerdict",
    "RecordVerdict",
    "RoundVerdict",
    "judge",
]


def judge(results: Sequence[CellResult], *, false_alarm: float = 0.05, resamples: int = 10_000, seed: int = 0) -> Judgement:
    """What the results of an audit say.

    Args:
        results: one per cell, in the order of the plan.
        false_alarm: the chance of calling any private example identified by its rank that no reconstruction tells anything
            about, over the whole audit; and, apart from that, the chance of calling any group identifying.
        resamples: draws of the test of groups and of the bootstrap.
        seed: of those draws.

    Raises:
        OptionError: if the rate or the number of draws is out of range.
    """
    if not 0 < false_alarm < 1:
        raise OptionError(f"The false-alarm rate is {false_alarm!r}; expected a number between 0 and 1, such as 0.05.")
    if resamples < 1:
        raise OptionError(f"The number of resamples is {resamples!r}; expected a whole number >= 1.")
    verdicts = verdicts_of(results, false_alarm)
    records = tuple(verdicts.values())
    groups, controls = groups_of(results, false_alarm, resamples, seed)
    change = best_change(results, false_alarm)
    patients, rounds = patients_of(records), rounds_of(results, false_alarm)
    text = change.text if change else ""
    return Judgement(
        sentence=overall(records, groups, text, patients, rounds),
        records=records,
        patients=patients,
        rounds=rounds,
        groups=groups,
        worst=min(records, key=severity, default=None),
        change=text,
        rules=rules_of(false_alarm),
        not_testable=untestable(results, records, controls, false_alarm),
        false_alarm=false_alarm,
        resamples=resamples,
        seed=seed,
    )
