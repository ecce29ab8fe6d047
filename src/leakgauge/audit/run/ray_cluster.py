"""The same cells on a Ray cluster: one driver that alone writes the store, and actors that may be lost at any time."""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leakgauge.audit.plan.cell import Cell
from leakgauge.audit.plan.tables import ResourcesTable
from leakgauge.audit.run.crew import At, Crew, Died, Done, Event, Task
from leakgauge.audit.run.dispatch import Patience, run_cells
from leakgauge.audit.run.local import MOST_FAILED_STARTS, cores
from leakgauge.audit.run.memory import bound_for, in_words
from leakgauge.audit.run.prepare import Tell, prepare
from leakgauge.audit.run.remote import RemotePlayer, versions
from leakgauge.audit.store.store import Store
from leakgauge.errors import LeakgaugeError, MissingExtraError

LOCAL = "local"
ASK_EVERY = 0.5  # seconds between two questions to a busy actor
ANSWER = 10.0  # seconds that a cluster has to answer
ASKED_AT_ONCE = 200  # actors; of more, each is asked less often


def run_ray(
    store: Store,
    cells: Sequence[Cell],
    address: str,
    workers: int | None = None,
    *,
    threads: int | None = None,
    device: str = "auto",
    stopped: Callable[[], bool] = lambda: False,
    tell: Tell = lambda share, text: None,  # noqa: ARG005
) -> bool:
    """Plays cells on a Ray cluster; otherwise as `run_local`.

    Args:
        store: of the run, on this machine.
        cells: what to play.
        address: 'local' for a cluster on this machine alone, 'auto' for one that runs here, or 'HOST:PORT'.
        workers: actors; as many as the cluster has cores by default.
        threads: for torch, in each; 1 by default.
        device: for the attacks.
        stopped, tell: as in `run_local`.

    Raises:
        MissingExtraError: without Ray.
        LeakgaugeError: if the cluster cannot be reached, its packages are of other versions, or the store cannot be written.
    """
    resources = ResourcesTable.model_validate(store.plan.get("resources", {}))
    prepared = prepare(store, cells, stopped, tell)
    if prepared is None:
        return False
    if not cells:
        return True
    crew = RayCrew(address, workers, threads or 1, resources.memory, device)
    return run_cells(
        store, cells, crew, crew.workers, prepared=prepared, patience=Patience(resources.hang_factor), stopped=stopped, tell=tell
    )


@dataclass
class Actor:
    """One actor.

    Args:
        handle: Ray's.
        hello: its first answer, until that is there.
        node: the machine, as Ray calls it.
        words: process and host.
        played: what it plays, or None.
        asked: a question about progress that is not answered yet, or None.
        asked_at: when it was last asked.
    """

    handle: Any
    hello: Any
    node: str = ""
    words: str = ""
    played: Any = None
    asked: Any = None
    asked_at: float = 0.0


class RayCrew(Crew):
    """Actors of a Ray cluster. Ray restarts none of them: who plays a cell again is decided by `run_cells`.

    Args:
        address: see `run_ray`.
        workers: actors; as many as there is room for by default.
        threads: of each.
        memory: gigabytes for each; on a cluster of this machine an equal part of 80 % of the memory by default, elsewhere what
            Ray's own watch allows.
        device: for the attacks.

    Raises:
        MissingExtraError: without Ray.
        LeakgaugeError: if the cluster cannot be reached.
    """

    def __init__(self, address: str, workers: int | None, threads: int, memory: float | None, device: str) -> None:
        self.ray = _ray()
        self._began = not self.ray.is_initialized()
        if self._began:
            _begin(self.ray, address)
        there = self.ray.cluster_resources()
        self.workers = workers or max(1, int(there.get("CPU", 1)) // threads)
        self.bound = bound_for(self.workers, memory) if memory is not None or address == LOCAL else sys.maxsize
        graphics = 0.0 if device == "cpu" else min(1.0, there.get("GPU", 0.0) / self.workers)
        options = {"num_cpus": threads, "num_gpus": graphics, "max_restarts": 0, "max_concurrency": 2}
        self._remote = self.ray.remote(**options)(RemotePlayer)
        self._arguments = (threads, device)
        self._actors: dict[str, Actor] = {}
        self._held: dict[str, Any] = {}
        self._count = 0
        self._failed_starts = 0

    def staff(self, count: int) -> None:
        while len(self._actors) < count:
            self._count += 1
            handle = self._remote.remote(*self._arguments)
            self._actors[f"actor {self._count}"] = Actor(handle, handle.hello.remote())

    def idle(self) -> Sequence[str]:
        return [name for name, actor in self._actors.items() if actor.hello is None and actor.played is None]

    def give(self, worker: str, task: Task) -> None:
        actor = self._actors[worker]
        content = None
        if task.weights is not None:
            path = task.weights.path
            if path not in self._held:
                self._held[path] = self.ray.put(Path(path).read_bytes())
            content = self._held[path]
        actor.played, actor.asked_at = actor.handle.play.remote(task, content), time.monotonic()

    def words(self, worker: str) -> str:
        return self._actors[worker].words

    def wait(self, seconds: float) -> Sequence[Event]:
        self._ask()
        waited: dict[Any, tuple[str, str]] = {}
        for name, actor in self._actors.items():
            for kind in ("hello", "played", "asked"):
                reference = getattr(actor, kind)
                if reference is not None:
                    waited[reference] = (name, kind)
        if not waited:
            time.sleep(seconds)
            return []
        references = list(waited)
        ready, _ = self.ray.wait(references, num_returns=1, timeout=seconds, fetch_local=False)
        if ready:
            ready, _ = self.ray.wait(references, num_returns=len(references), timeout=0, fetch_local=False)
        events = [self._answered(*waited[reference], reference) for reference in ready]
        return [event for event in events if event is not None]

    def end(self, worker: str) -> None:
        self.ray.kill(self._actors.pop(worker).handle)

    def close(self) -> None:
        for name in list(self._actors):
            self.end(name)
        self._held.clear()
        if self._began:
            self.ray.shutdown()

    def _ask(self) -> None:
        """Asks busy actors how far they are, now and then."""
        now = time.monotonic()
        every = ASK_EVERY * max(1.0, len(self._actors) / ASKED_AT_ONCE)
        for actor in self._actors.values():
            if actor.played is not None and actor.asked is None and now - actor.asked_at >= every:
                actor.asked, actor.asked_at = actor.handle.at.remote(), now

    def _answered(self, name: str, kind: str, reference: Any) -> Event | None:
        actor = self._actors.get(name)
        if actor is None:  # another of its answers told that it is gone
            return None
        try:
            answer = self.ray.get(reference)
        except self.ray.exceptions.RayError as error:
            return self._lost(name, error)
        setattr(actor, kind, None)
        if kind == "hello":
            actor.node, actor.words, found = answer
            _check_versions(found, actor.words)
            self._failed_starts = 0
            return None
        if kind == "asked":
            evaluations, planned, memory = answer
            if memory > self.bound and actor.played is not None:
                return self._ended(name, f"used more than {in_words(self.bound)} of memory")
            return At(name, evaluations, planned) if planned else None
        outcome, told = answer
        return Done(name, told) if outcome == "done" else self._ended(name, f"ran out of memory ({told})")

    def _ended(self, name: str, reason: str) -> Died:
        self.end(name)
        return Died(name, reason)

    def _lost(self, name: str, error: Exception) -> Died:
        """Tells why an actor is gone; the rest of a machine that was lost is no fault of the cell."""
        actor = self._actors.pop(name)
        self.ray.kill(actor.handle)
        alive = {node["NodeID"] for node in self.ray.nodes() if node["Alive"]}
        machine = bool(actor.node) and (actor.node not in alive or "node has died" in str(error).lower())
        if not actor.node:
            self._failed_starts += 1
            if self._failed_starts >= MOST_FAILED_STARTS:
                raise LeakgaugeError(f"Ray's actors do not start: {_first_line(error)}.") from error
        return Died(name, f"was lost ({_first_line(error)})", machine)


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        reason = "is not installed" if isinstance(error, ModuleNotFoundError) else f"cannot be imported ({error})"
        raise MissingExtraError("ray", "ray", "An audit on a cluster", reason) from error
    return ray


def _begin(ray: Any, address: str) -> None:
    """Joins a cluster, or starts one on this machine.

    Raises:
        LeakgaugeError: if there is none at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}
    own = [str(Path.cwd()), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    path = sys.path if address == LOCAL else own  # another machine has another Python
    common["runtime_env"] = {"env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, path))}}
    _answers(address)
    try:
        if address == LOCAL:
            ray.init(address=LOCAL, num_cpus=cores(), include_dashboard=False, **common)
        else:
            ray.init(address=address, **common)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError, OSError, SystemExit) as error:  # Ray leaves by itself
        raise LeakgaugeError(f"No Ray cluster can be used at {address!r} ({_first_line(error)}).") from error


def _answers(address: str) -> None:
    """Tries the port, since Ray itself tries for minutes.

    Raises:
        LeakgaugeError: if nobody answers.
    """
    host, colon, port = address.rpartition("//")[2].rpartition(":")
    if address in (LOCAL, "auto"):
        return
    if not colon or not port.isdigit() or not 0 < int(port) < 65536:
        raise LeakgaugeError(f"--ray {address!r} is no address; expected local, auto or HOST:PORT.")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER).close()
    except OSError as error:
        raise LeakgaugeError(f"No Ray cluster can be used at {address!r} ({error.strerror or error}).") from error


def _check_versions(found: dict[str, str], words: str) -> None:
    own = versions()
    for name, here in own.items():
        if found.get(name) != here:
            raise LeakgaugeError(
                f"The worker {words} has {name} {found.get(name)}, and this machine has {here}; results would not be those of "
                "one audit. Install the same version everywhere."
            )


def _first_line(error: BaseException) -> str:
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return text.rstrip(".")[:200]
