"""Medians with intervals, attack by attack."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from leakgauge.audit.record import ExampleScore, Record
from leakgauge.report.text_words import is_text
from leakgauge.report.words import control_score, decibels, is_unsupported

RESAMPLES = 2000
ENOUGH = 3


@dataclass(frozen=True)
class AttackRow:
    """What one attack achieved, with or without a defence.

    Args:
        attack: its name.
        defended: whether the records were made with a defence.
        records: how many records.
        examples: how many private examples with a score.
        psnr: median PSNR in dB; NaN without scores.
        interval: 95 % bootstrap interval of the median; None for fewer than 3 scores.
        control: median PSNR of the control for the same examples; NaN where there is none.
        labels_right: labels that were right.
        labels: labels that could be compared.
        evaluations: median number of gradient evaluations per record.
    """

    attack: str
    defended: bool
    records: int
    examples: int
    psnr: float
    interval: tuple[float, float] | None
    control: float
    labels_right: int
    labels: int
    evaluations: int

    @property
    def interval_text(self) -> str:
        """'24.1 dB to 31.0 dB', or why there is none."""
        return f"{decibels(self.interval[0])} to {decibels(self.interval[1])}" if self.interval else "too few scores"

    @property
    def labels_text(self) -> str:
        """'3 of 4', or 'not compared'."""
        return f"{self.labels_right} of {self.labels}" if self.labels else "not compared"


def attack_rows(records: Sequence[Record]) -> tuple[AttackRow, ...]:
    """One row per attack on pictures and per with or without a defence, in order of appearance."""
    groups: dict[tuple[str, bool], list[Record]] = {}
    for record in (record for record in records if not (is_text(record) or is_unsupported(record))):
        groups.setdefault((record.attack, record.conditions.defence != "none"), []).append(record)
    return tuple(_row(attack, defended, members) for (attack, defended), members in groups.items())


def bootstrap_median(values: Sequence[float], seed: int = 0) -> tuple[float, float] | None:
    """95 % percentile bootstrap interval of the median; None for fewer than 3 values. Infinite values are allowed."""
    if len(values) < ENOUGH:
        return None
    data = np.asarray(values, dtype=np.float64)
    draws = np.random.default_rng(seed).integers(0, len(data), size=(RESAMPLES, len(data)))
    medians = np.sort([median(data[draw]) for draw in draws])
    return float(medians[round(0.025 * (RESAMPLES - 1))]), float(medians[round(0.975 * (RESAMPLES - 1))])


def median(values: Sequence[float] | np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    """The median; of an even number with an infinite value in the middle, the lower of the two. NaN for none."""
    ordered = sorted(values)
    if not ordered:
        return math.nan
    low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    return float(low if math.isinf(high) else (low + high) / 2)


def _row(attack: str, defended: bool, records: list[Record]) -> AttackRow:
    scores = [score for record in records for score in record.picture_scores]
    values = [score.psnr for score in scores if not math.isnan(score.psnr)]
    controls = [control_score(record, score.index) for record in records for score in record.picture_scores]
    compared = [score for score in scores if score.label is not None and score.label_guess is not None]
    return AttackRow(
        attack=attack,
        defended=defended,
        records=len(records),
        examples=len(values),
        psnr=median(values),
        interval=bootstrap_median(values),
        control=median(
            [control.psnr for control in controls if isinstance(control, ExampleScore) and not math.isnan(control.psnr)]
        ),
        labels_right=sum(score.label == score.label_guess for score in compared),
        labels=len(compared),
        evaluations=round(median([float(record.evaluations) for record in records])),
    )
