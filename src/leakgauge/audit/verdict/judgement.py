"""Judgement: what the results of an audit say, as values; every number with its conditions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from leakgauge.audit.folder import strict_json
from leakgauge.audit.verdict.words import ORDER


@dataclass(frozen=True)
class RecordVerdict:
    """One private example, over all cells that attack it.

    Args:
        record: hash of its content.
        name: as the data call it; left out by redaction.
        patient: whose it is; '' where the data do not say.
        verdict: 'identified', 'partly', 'not found', 'not attackable' or 'incomplete'.
        best: key of the cell that came nearest; '' for none.
        p: how often a reconstruction that knows nothing puts it as far ahead of its decoys, in the best of as many cells; NaN
            where that cannot be tested.
        adjusted: p corrected for all private examples of the audit.
        rank: place among decoys, 1 = nearest; 0 where that cannot be tested.
        decoys: how many.
        psnr, ssim: of the best cell; NaN for texts.
        token_accuracy: of the best cell; NaN for pictures.
        control: the control's PSNR, or token accuracy, for this example.
        cells: how many cells attacked it and returned something.
        realistic: whether the verdict rests on cells without more than a real server has; else it is diagnostic.
        certified: an attack certified its reconstruction without seeing the truth.
        sentences: why the verdict is what it is.
    """

    record: str
    name: str
    patient: str
    verdict: str
    best: str = ""
    p: float = math.nan
    adjusted: float = math.nan
    rank: int = 0
    decoys: int = 0
    psnr: float = math.nan
    ssim: float = math.nan
    token_accuracy: float = math.nan
    control: float = math.nan
    cells: int = 0
    realistic: bool = True
    certified: bool = False
    sentences: tuple[str, ...] = ()


@dataclass(frozen=True)
class PatientVerdict:
    """One patient, over all their records: the worst of them, which the correction for all records covers.

    Args:
        patient: as the data call them; left out by redaction.
        verdict: the worst of their records'.
        records: hashes.
        identified: how many of the records are.
        adjusted: the smallest corrected p of a record; NaN where none was tested.
    """

    patient: str
    verdict: str
    records: tuple[str, ...]
    identified: int
    adjusted: float


@dataclass(frozen=True)
class RoundVerdict:
    """One state of the network by itself; the records' own verdicts are over all of them together.

    Args:
        state: as the plan says it.
        records: private examples attacked there.
        counts: verdict -> how many, from the cells of this state alone.
    """

    state: str
    records: int
    counts: Mapping[str, int]


@dataclass(frozen=True)
class GroupVerdict:
    """Cells that differ in data and seed only.

    Args:
        attack, defence, model, state, protocol, threat, budget: what they share; tables as 'name=value, ..'.
        cells: how many.
        statuses: status -> how many.
        records: private examples with something to measure.
        line_ups: tested line-ups, one per private example and seed.
        first: how many of them the private example leads, equals counted against it.
        expected: how many it would lead by chance.
        p: how often chance alone gives ranks as low; NaN where nothing can be tested.
        adjusted: p corrected for all groups (Holm).
        identifying: adjusted is at most the false-alarm rate.
        measure: 'psnr' in dB, or 'token accuracy'.
        median, low, high: over private examples, with a 95 % bootstrap interval that resamples them.
        control: median of the control.
        identified: share of the private examples that these cells alone identify; NaN where there are none.
        realistic: False where the attacker has more than a real server would.
        sentence: the same in words.
    """

    attack: str
    defence: str
    model: str
    state: str
    protocol: str
    threat: str
    budget: str
    cells: int
    statuses: Mapping[str, int]
    records: int
    line_ups: int
    first: int
    expected: float
    p: float
    adjusted: float
    identifying: bool
    measure: str
    median: float
    low: float
    high: float
    control: float
    identified: float
    realistic: bool
    sentence: str


@dataclass(frozen=True)
class Judgement:
    """What an audit says.

    Args:
        sentence: all in all; it names records by number, never by name.
        records: one per private example, in the order of the results; record 1 of a sentence is the first.
        patients, rounds, groups: the same by patient, by state of the network, and by conditions.
        worst: the record that leaked most.
        change: the change of defence or protocol that helped most among the cells, or ''.
        rules: how the verdicts are reached.
        not_testable: what could not be tested, and why.
        false_alarm, resamples, seed: as asked for.
    """

    sentence: str
    records: tuple[RecordVerdict, ...]
    patients: tuple[PatientVerdict, ...] = ()
    rounds: tuple[RoundVerdict, ...] = ()
    groups: tuple[GroupVerdict, ...] = ()
    worst: RecordVerdict | None = None
    change: str = ""
    rules: tuple[str, ...] = ()
    not_testable: tuple[str, ...] = ()
    false_alarm: float = 0.05
    resamples: int = 10_000
    seed: int = 0
    counts: Mapping[str, int] = field(init=False)

    def __post_init__(self) -> None:
        verdicts = [entry.verdict for entry in self.records]
        object.__setattr__(self, "counts", {name: verdicts.count(name) for name in ORDER})

    def to_json(self) -> dict[str, Any]:
        """Strict JSON."""
        entries: dict[str, Any] = strict_json(asdict(self))
        return entries
