"""The median over examples, with a bootstrap interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from leakgauge.errors import OptionError
from leakgauge.randomness import rng

CHUNK = 4_000_000  # drawn values held in memory at once


@dataclass(frozen=True)
class MedianInterval:
    """A median and how far it could move with other examples.

    Args:
        median: of the values; +inf where more than half are.
        low: lower end of the interval, one of the resampled medians.
        high: upper end.
        level: coverage aimed at, such as 0.95.
        count: values used.
        left_out: values that were NaN (nothing was measured) and are left out.
        resamples: bootstrap samples drawn.
    """

    median: float
    low: float
    high: float
    level: float
    count: int
    left_out: int
    resamples: int


def median_interval(
    values: Tensor | Sequence[float], level: float = 0.95, seed: int = 0, resamples: int = 2000
) -> MedianInterval:
    """The median with a percentile bootstrap interval over examples (drawn with replacement).

    The ends are resampled medians themselves, never interpolated between two, so that infinite values (PSNR of identical
    pictures) stay what they are. One value gives an interval of width zero, which says nothing about other examples.

    Args:
        values: (N,), one per example; may hold infinities; NaN is left out and counted.
        level: coverage in (0, 1).
        seed: of the draws.
        resamples: bootstrap samples, >= 1.

    Raises:
        OptionError: if level or resamples is out of range.

    Source: Efron 1979; the percentile method.
    """
    if not 0 < level < 1:
        raise OptionError(f"The level of the interval is {level!r}; expected a number between 0 and 1, such as 0.95.")
    if resamples < 1:
        raise OptionError(f"The number of resamples is {resamples!r}; expected a whole number >= 1.")
    given = torch.as_tensor(values, dtype=torch.float64).detach().cpu().reshape(-1)
    kept = given[~given.isnan()]
    left_out, count = len(given) - len(kept), len(kept)
    if count == 0:
        nan = float("nan")
        return MedianInterval(nan, nan, nan, level, 0, left_out, resamples)
    generator = rng(seed, "median-interval")
    medians, rows = [], max(1, CHUNK // count)
    for start in range(0, resamples, rows):
        drawn = torch.randint(count, (min(rows, resamples - start), count), generator=generator)
        medians.append(_medians(kept[drawn]))
    ordered = torch.cat(medians).sort().values
    tail = (1.0 - level) / 2
    low = int(tail * (resamples - 1))
    return MedianInterval(
        median=float(_medians(kept[None])[0]),
        low=float(ordered[low]),
        high=float(ordered[resamples - 1 - low]),
        level=level,
        count=count,
        left_out=left_out,
        resamples=resamples,
    )


def _medians(rows: Tensor) -> Tensor:
    """The median of each row: the mean of the middle two for an even count, the lower one if they are opposite infinities."""
    ordered = rows.sort(dim=1).values
    size = rows.shape[1]
    low, high = ordered[:, (size - 1) // 2], ordered[:, size // 2]
    middle = (low + high) / 2
    return torch.where(middle.isnan(), low, middle)
