"""Spearman correlation over architecture medians, with bootstrap intervals over architectures and pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

DRAWS = 4_000


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:+.2f} ({self.low:+.2f} to {self.high:+.2f})"


def spearman(first: np.ndarray, second: np.ndarray) -> float:
    """Rank correlation, ties at their mean rank; nan where one side does not vary."""
    left, right = rankdata(first), rankdata(second)
    if left.std() == 0 or right.std() == 0:
        return float("nan")
    return float(np.corrcoef(left, right)[0, 1])


def correlations(
    leakage: np.ndarray, scores: dict[str, np.ndarray], ours: str, seed: int = 0
) -> dict[str, tuple[Interval, Interval]]:
    """Of each score: its correlation with leakage, and by how much that of `ours` is higher.

    Args:
        leakage: (architectures, pictures); medians over pictures are compared.
        scores: name -> the same shape.
        ours: the score that the others are compared with.
        seed: of the resampling; every score sees the same resamples.
    """
    generator = np.random.default_rng(seed)
    rows, columns = leakage.shape
    drawn: dict[str, list[float]] = {name: [] for name in scores}
    for _ in range(DRAWS):
        some, pictures = generator.integers(rows, size=rows), generator.integers(columns, size=columns)
        target = np.median(leakage[np.ix_(some, pictures)], 1)
        for name, values in scores.items():
            drawn[name].append(spearman(np.median(values[np.ix_(some, pictures)], 1), target))
    target = np.median(leakage, 1)
    found = {name: spearman(np.median(values, 1), target) for name, values in scores.items()}
    return {
        name: (
            _interval(found[name], np.array(drawn[name])),
            _interval(found[ours] - found[name], np.array(drawn[ours]) - np.array(drawn[name])),
        )
        for name in scores
    }


def _interval(value: float, drawn: np.ndarray) -> Interval:
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return Interval(value, float(low), float(high))
