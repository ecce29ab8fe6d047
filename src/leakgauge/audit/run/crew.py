"""Crew: workers that play cells, wherever they are, and what they tell. `dispatch` gives them work."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from leakgauge.audit.plan.cell import Cell
from leakgauge.audit.run.states import TrainedFile
from leakgauge.audit.store.encoding import Encoded


@dataclass(frozen=True)
class Task:
    """One cell for one worker.

    Args:
        key: of the cell in the store.
        cell: what to play.
        attempt: 1, or 2 after a crash.
        weights: its trained state; None where the cell needs none.
    """

    key: str
    cell: Cell
    attempt: int
    weights: TrainedFile | None = None


@dataclass(frozen=True)
class Done:
    """A worker has ended its cell."""

    worker: str
    result: Encoded


@dataclass(frozen=True)
class At:
    """A worker tells how far its cell is: gradient evaluations spent, and planned in all."""

    worker: str
    evaluations: int
    planned: int


@dataclass(frozen=True)
class Died:
    """A worker is gone, and with it the cell it had.

    Args:
        worker: its name.
        reason: in words, to follow 'its worker'.
        machine: True where the whole machine was lost, which is no fault of the cell.
    """

    worker: str
    reason: str
    machine: bool = False


Event = Done | At | Died


class Crew(ABC):
    """Workers with names. A worker that died is never given work again; `staff` starts others."""

    @abstractmethod
    def staff(self, count: int) -> None:
        """Starts workers until there are so many.

        Raises:
            LeakgaugeError: if they do not start.
        """

    @abstractmethod
    def idle(self) -> Sequence[str]:
        """Workers that are ready and have no cell."""

    @abstractmethod
    def give(self, worker: str, task: Task) -> None:
        """Hands a cell to an idle worker."""

    @abstractmethod
    def words(self, worker: str) -> str:
        """Who a worker is, for people: its process and, where there are several, its machine."""

    @abstractmethod
    def wait(self, seconds: float) -> Sequence[Event]:
        """What has happened; returns as soon as something has, after so many seconds at the latest."""

    @abstractmethod
    def end(self, worker: str) -> None:
        """Ends a worker at once, without a `Died`."""

    @abstractmethod
    def close(self) -> None:
        """Ends all workers."""
