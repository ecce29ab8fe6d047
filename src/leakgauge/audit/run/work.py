"""Work: how much of a run is done, in expected seconds, learnt from the cells that have ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from leakgauge.audit.plan.cell import Cell

FIRST_GUESS = 1.0  # seconds, as long as no cell has ended


@dataclass
class Work:
    """The cells of this run, and how long those that ended took.

    Args:
        cells: key -> cell, those that are played now.
        seconds: key -> seconds, of those that have ended.
    """

    cells: Mapping[str, Cell]
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def ended(self) -> int:
        """How many have ended."""
        return len(self.seconds)

    def done(self, key: str, seconds: float) -> None:
        """Notes the end of a cell."""
        self.seconds[key] = seconds

    def share(self, under_way: Mapping[str, float]) -> float:
        """The share of the work that is done, 0 to 1.

        A cell that has not ended is expected to take as long as those with its network, attack and data did on the average;
        without any, as long as all did.

        Args:
            under_way: key -> share of that cell.
        """
        means = self._means()
        overall = sum(self.seconds.values()) / len(self.seconds) if self.seconds else FIRST_GUESS
        done = sum(self.seconds.values())
        total = done
        for key, cell in self.cells.items():
            if key not in self.seconds:
                expected = max(means.get(_kind(cell), overall), 1e-3)
                total += expected
                done += expected * min(under_way.get(key, 0.0), 0.99)
        return done / total if total else 1.0

    def _means(self) -> dict[tuple[str, str, str], float]:
        taken: dict[tuple[str, str, str], list[float]] = {}
        for key, seconds in self.seconds.items():
            taken.setdefault(_kind(self.cells[key]), []).append(seconds)
        return {kind: sum(values) / len(values) for kind, values in taken.items()}


def _kind(cell: Cell) -> tuple[str, str, str]:
    return cell.model, cell.attack, cell.data
