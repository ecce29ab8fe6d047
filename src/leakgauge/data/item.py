"""Item: one example that a source can read when asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Item:
    """One labelled picture, not read yet.

    Args:
        name: file name, or file and position in it; for the truth's own record.
        label: class index.
        pixels: reads (C, H, W) in [0, 1], C = 1 or 3; raises DataError.
        patient: whose picture it is, where the data say so; '' otherwise.
    """

    name: str
    label: int
    pixels: Callable[[], Tensor]
    patient: str = ""
