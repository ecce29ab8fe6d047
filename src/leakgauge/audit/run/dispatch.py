"""`run_cells`: hands pending cells to a crew, and keeps what comes back. The only place that writes results."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from leakgauge.audit.plan.cell import Cell
from leakgauge.audit.run.crew import At, Crew, Died, Done, Task
from leakgauge.audit.run.prepare import Prepared, Tell
from leakgauge.audit.run.result import CellResult
from leakgauge.audit.run.work import Work
from leakgauge.audit.store.encoding import encode
from leakgauge.audit.store.store import Store

POLL = 0.2
ATTEMPTS = 2
MOST_LOSSES = 5  # of whole machines under one cell, before it counts as the cell's own failure
GRACE = 30.0  # seconds that a cell with a time limit gets on top, for what is not the attack
SILENCE = 1800.0  # seconds without a word after which a cell without a time limit counts as hung


@dataclass(frozen=True)
class Patience:
    """When a cell counts as hung.

    Args:
        factor: a cell with a time limit may take this many times as long.
        silence: a cell without one may be silent for so many seconds.
    """

    factor: float = 3.0
    silence: float = SILENCE

    def problem(self, flight: Flight) -> str:
        """Why a cell is ended, or ''."""
        now, limit = time.monotonic(), flight.task.cell.time_limit
        if limit is not None:
            allowed = max(self.factor * limit, limit + GRACE)
            if now - flight.began > allowed:
                return f"It did not stop by itself at its time limit of {limit:g} s, and was ended after {allowed:g} s."
        elif now - flight.heard > self.silence:
            return f"It was ended after {self.silence:g} s without any progress."
        return ""


@dataclass
class Flight:
    """A cell under way.

    Args:
        task: what its worker was given.
        began, heard: when it was given, and last told of progress (time.monotonic).
        share: how far it is, 0 to 1.
    """

    task: Task
    began: float = field(default_factory=time.monotonic)
    heard: float = field(default_factory=time.monotonic)
    share: float = 0.0


def run_cells(
    store: Store,
    cells: Sequence[Cell],
    crew: Crew,
    workers: int,
    *,
    prepared: Prepared = Prepared(),  # noqa: B008 - frozen
    patience: Patience = Patience(),
    stopped: Callable[[], bool] = lambda: False,
    tell: Tell = lambda share, text: None,  # noqa: ARG005
) -> bool:
    """Plays cells until each has a result.

    A cell whose worker died is played once more, then recorded as failed; one that hangs is recorded as a timeout.

    Args:
        store: keeps each result as soon as it is there.
        cells: what to play, in this order.
        crew: the workers; closed at the end.
        workers: how many of them.
        prepared: the trained states.
        patience: when a cell counts as hung.
        stopped: polled; True ends all workers, and cells under way are lost.
        tell: called with the share done and a remark.

    Returns:
        Whether all cells have a result.

    Raises:
        DataError: if the store cannot be written.
        LeakgaugeError: if workers do not start.
    """
    return _Run(store, crew, workers, prepared, patience, stopped, tell).over(cells)


@dataclass
class _Run:
    store: Store
    crew: Crew
    workers: int
    prepared: Prepared
    patience: Patience
    stopped: Callable[[], bool]
    tell: Tell
    queue: deque[Task] = field(default_factory=deque)
    flights: dict[str, Flight] = field(default_factory=dict)
    losses: dict[str, int] = field(default_factory=dict)
    work: Work = field(default_factory=lambda: Work({}))

    def over(self, cells: Sequence[Cell]) -> bool:
        keys = {cell.key: cell for cell in cells}
        self.work = Work(keys)
        try:
            for key, cell in keys.items():
                if key in self.prepared.problems:
                    self._finish(CellResult(cell, "failed", self.prepared.problems[key]), key)
                else:
                    self.queue.append(Task(key, cell, 1, self.prepared.weights.get(key)))
            while (self.queue or self.flights) and not self.stopped():
                self.crew.staff(min(self.workers, len(self.queue) + len(self.flights)))
                self._hand_out()
                ended = []
                for event in self.crew.wait(POLL):
                    if isinstance(event, Done):
                        ended.append(self._landed(event))
                    elif isinstance(event, Died):
                        self._died(event)
                    elif isinstance(event, At) and event.worker in self.flights:
                        flight = self.flights[event.worker]
                        flight.heard = time.monotonic()
                        flight.share = event.evaluations / max(event.planned, event.evaluations, 1)
                self._hand_out()  # before the disk is waited for
                for task, done in ended:
                    if task is not None:
                        self.store.finish(done.result)
                        self.work.done(task.key, done.result.seconds)
                self._end_hung()
                self.tell(self.work.share({flight.task.key: flight.share for flight in self.flights.values()}), self._remark())
            return not (self.queue or self.flights)
        finally:
            self.crew.close()

    def _hand_out(self) -> None:
        given = []
        for worker in self.crew.idle():
            if not self.queue:
                break
            task = self.queue.popleft()
            self.crew.give(worker, task)
            self.flights[worker] = Flight(task)
            given.append((task, self.crew.words(worker)))
        for task, words in given:
            self.store.begin(task.key, words, task.attempt)

    def _landed(self, event: Done) -> tuple[Task | None, Done]:
        flight = self.flights.pop(event.worker, None)
        return (flight.task if flight else None), event

    def _died(self, event: Died) -> None:
        flight = self.flights.pop(event.worker, None)
        if flight is None:
            return
        task = flight.task
        if event.machine and self.losses.get(task.key, 0) < MOST_LOSSES:
            self.losses[task.key] = self.losses.get(task.key, 0) + 1
            self.queue.appendleft(task)
        elif task.attempt < ATTEMPTS:
            self.queue.appendleft(Task(task.key, task.cell, task.attempt + 1, task.weights))
        else:
            reason = f"Its worker {event.reason}, in each of {ATTEMPTS} attempts."
            self._finish(CellResult(task.cell, "failed", reason, attempt=task.attempt), task.key, flight)

    def _end_hung(self) -> None:
        for worker, flight in list(self.flights.items()):
            problem = self.patience.problem(flight)
            if problem:
                self.crew.end(worker)
                del self.flights[worker]
                result = CellResult(flight.task.cell, "timeout", problem, attempt=flight.task.attempt)
                self._finish(result, flight.task.key, flight)

    def _finish(self, result: CellResult, key: str, flight: Flight | None = None) -> None:
        seconds = 0.0 if flight is None else time.monotonic() - flight.began
        self.store.finish(replace(encode(result), key=key, seconds=seconds))
        self.work.done(key, seconds)

    def _remark(self) -> str:
        under_way = next(iter(self.flights.values()), None)
        what = f", {under_way.task.cell.attack.partition(':')[0]}" if under_way else ""
        return f"{self.work.ended} of {len(self.work.cells)} cells{what}"
