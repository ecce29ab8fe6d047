"""Cells on worker processes of this machine: the parent alone writes, and no worker outlives it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from typing import IO

from leakgauge.audit.plan.cell import Cell
from leakgauge.audit.plan.tables import ResourcesTable
from leakgauge.audit.run.crew import At, Crew, Died, Done, Event, Task
from leakgauge.audit.run.dispatch import Patience, run_cells
from leakgauge.audit.run.memory import bound_for, in_words, memory_of
from leakgauge.audit.run.prepare import Tell, prepare
from leakgauge.audit.store.store import Store
from leakgauge.errors import LeakgaugeError

MOST_FAILED_STARTS = 3
BOOT = (
    "import sys, json; path, *numbers, device = sys.argv[1:]; sys.path[:] = json.loads(path); "
    "from leakgauge.audit.run.worker import main; main(*map(int, numbers), device)"
)
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass
class Worker:
    """One process.

    Args:
        process: the process itself.
        pipe: our end.
        errors: what it wrote to its standard error.
        ready: whether it has started up.
        busy: whether it has a cell.
        reason: why we ended it, or ''.
    """

    process: subprocess.Popen[bytes]
    pipe: Connection
    errors: IO[bytes]
    ready: bool = False
    busy: bool = False
    reason: str = ""


class LocalCrew(Crew):
    """Processes that begin afresh (nothing is forked), each with its share of the cores.

    Args:
        workers: how many there will be at most, for the sharing of cores and memory.
        threads: for torch, in each; an equal share of the cores by default.
        memory: gigabytes for each; an equal part of 80 % of the memory by default.
        device: for the attacks.
    """

    def __init__(self, workers: int, threads: int | None = None, memory: float | None = None, device: str = "auto") -> None:
        self.threads = threads or max(1, cores() // workers)
        self.bound = bound_for(workers, memory)
        self.device = device
        self._workers: dict[str, Worker] = {}
        self._failed_starts = 0

    def staff(self, count: int) -> None:
        while len(self._workers) < count:
            worker = self._start()
            self._workers[str(worker.process.pid)] = worker

    def idle(self) -> Sequence[str]:
        return [name for name, worker in self._workers.items() if worker.ready and not worker.busy]

    def give(self, worker: str, task: Task) -> None:
        chosen = self._workers[worker]
        chosen.busy = True
        with contextlib.suppress(OSError):  # it has just died, which `wait` will tell
            chosen.pipe.send(task)

    def words(self, worker: str) -> str:
        return f"process {worker}"

    def wait(self, seconds: float) -> Sequence[Event]:
        names = {worker.pipe: name for name, worker in self._workers.items()}
        events: list[Event] = []
        for pipe in wait(list(names), timeout=seconds):
            assert isinstance(pipe, Connection)
            event = self._heard(names[pipe])
            if event is not None:
                events.append(event)
        for name, worker in list(self._workers.items()):
            if worker.process.poll() is not None and not worker.pipe.poll():
                events.append(self._buried(name))
            elif memory_of(worker.process.pid) > self.bound:
                worker.reason = f"used more than {in_words(self.bound)} of memory"
                worker.process.kill()
        return events

    def end(self, worker: str) -> None:
        self._bury(self._workers.pop(worker))

    def close(self) -> None:
        for worker in self._workers.values():
            worker.process.kill()
        for name in list(self._workers):
            self.end(name)

    def _start(self) -> Worker:
        ours, theirs = Pipe()
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the worker
        numbers = (theirs.fileno(), os.getpid(), self.threads)
        try:
            process = subprocess.Popen(
                [sys.executable, "-c", BOOT, json.dumps(sys.path), *map(str, numbers), self.device],
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is for the parent, which then ends its workers
                env={**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(self.threads))},
            )
        except OSError as error:
            ours.close()
            errors.close()
            raise LeakgaugeError(f"No worker process can be started ({error.strerror or error}).") from error
        finally:
            theirs.close()
        return Worker(process, ours, errors)

    def _heard(self, name: str) -> Event | None:
        worker = self._workers[name]
        try:
            kind, *rest = worker.pipe.recv()
        except (EOFError, OSError):
            return self._buried(name)
        if kind == "ready":
            worker.ready, self._failed_starts = True, 0
        elif kind == "at":
            return At(name, *rest)
        elif kind == "done":
            worker.busy = False
            return Done(name, *rest)
        elif kind == "memory":
            worker.reason = f"ran out of memory ({rest[0]})"
        return None

    def _buried(self, name: str) -> Died:
        """Takes a dead worker away, and tells why it died."""
        worker = self._workers.pop(name)
        worker.process.wait()
        reason = worker.reason or _reason(worker)
        self._bury(worker)
        if not worker.ready:
            self._failed_starts += 1
            if self._failed_starts >= MOST_FAILED_STARTS:
                raise LeakgaugeError(f"Worker processes do not start: each {reason}.")
        return Died(name, reason)

    @staticmethod
    def _bury(worker: Worker) -> None:
        worker.process.kill()
        worker.process.wait()
        worker.pipe.close()
        worker.errors.close()


def run_local(
    store: Store,
    cells: Sequence[Cell],
    workers: int | None = None,
    *,
    threads: int | None = None,
    device: str = "auto",
    stopped: Callable[[], bool] = lambda: False,
    tell: Tell = lambda share, text: None,  # noqa: ARG005
) -> bool:
    """Plays cells on processes of this machine.

    Args:
        store: of the run; its plan says what workers may take and how states are trained.
        cells: what to play.
        workers: processes; as many as there are cores by default.
        threads: for torch, in each; an equal share of the cores by default.
        device: for the attacks: 'auto', 'cpu', 'cuda'.
        stopped: polled; True ends the run with what is done.
        tell: called with the share done and a remark.

    Returns:
        Whether all cells have a result.

    Raises:
        LeakgaugeError: if the store cannot be written, or workers do not start.
    """
    count = workers or cores()
    resources = ResourcesTable.model_validate(store.plan.get("resources", {}))
    prepared = prepare(store, cells, stopped, tell)
    if prepared is None:
        return False
    crew = LocalCrew(count, threads, resources.memory, device)
    patience = Patience(resources.hang_factor)
    return run_cells(store, cells, crew, count, prepared=prepared, patience=patience, stopped=stopped, tell=tell)


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def _reason(worker: Worker) -> str:
    code = worker.process.returncode
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        ended = f"was ended by {name}" + (", probably for lack of memory" if name == "SIGKILL" else "")
    else:
        ended = f"ended with exit code {code}"
    worker.errors.seek(0)
    lines = worker.errors.read()[-4000:].decode("utf-8", "replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return ended + (f" ({last[:200]})" if last else "")
