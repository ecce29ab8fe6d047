"""A worker process: reads cells from a pipe, plays them, and sends back what they came to."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

TELL_EVERY = 0.5  # seconds between two messages about progress
PR_SET_PDEATHSIG = 1
LIKELY_TO_BE_KILLED = "1000"  # when memory runs out, the system is to take a worker and not the run


def die_with(parent: int) -> None:
    """Has the system kill this process when its parent dies, however it dies; without effect where that is not offered."""
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the request
        os._exit(1)


def main(handle: int, parent: int, threads: int, device: str) -> None:
    """Plays cells until the pipe is closed.

    Args:
        handle: of the pipe.
        parent: process that reads the other end.
        threads: for torch.
        device: for the attacks.
    """
    die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(LIKELY_TO_BE_KILLED, encoding="ascii")
    import torch

    from leakgauge.audit.run.play import OutOfMemory

    torch.set_num_threads(threads)
    player = Player(device)
    with Connection(handle) as pipe:
        pipe.send(("ready",))
        while True:
            try:
                task = pipe.recv()
            except EOFError:
                return
            try:
                pipe.send(("done", player.play(task, lambda *at: pipe.send(("at", *at)))))
            except OutOfMemory as error:
                pipe.send(("memory", str(error)))
                return
            except BrokenPipeError:
                return


class Player:
    """Plays tasks one after the other, and keeps between them what neighbouring cells share."""

    def __init__(self, device: str = "auto") -> None:
        from leakgauge.audit.run.play import Cache

        self.device, self.cache = device, Cache()
        self.trained: tuple[str, Any] | None = None

    def play(self, task: Any, tell: Any, content: bytes | None = None) -> Any:
        """One task, as an `Encoded` result under the task's key.

        Args:
            task: a `Task`.
            tell: called now and then with (evaluations, planned).
            content: the file of the task's trained state, where it is not on this machine.
        """
        from dataclasses import replace

        from leakgauge.audit.run.play import play
        from leakgauge.audit.run.result import CellResult
        from leakgauge.audit.store.encoding import encode
        from leakgauge.errors import LeakgaugeError

        last = [time.monotonic()]

        def progress(at: Any) -> None:
            now = time.monotonic()
            if now - last[0] >= TELL_EVERY:
                last[0] = now
                tell(at.evaluations, at.planned)

        try:
            weights = self._weights(task, content)
        except (LeakgaugeError, OSError) as error:
            result = CellResult(task.cell, "failed", str(error), attempt=task.attempt)
        else:
            result = play(
                task.cell, weights=weights, progress=progress, cache=self.cache, device=self.device, attempt=task.attempt
            )
        return replace(encode(result), key=task.key)

    def _weights(self, task: Any, content: bytes | None) -> Any:
        """The task's trained state; the latest one is kept."""
        from leakgauge.audit.run.states import weights_in

        if task.weights is None:
            return None
        path = task.weights.path
        if self.trained is None or self.trained[0] != path:
            held = Path(path).read_bytes() if content is None else content
            self.trained = (path, weights_in(held, task.weights))
        return self.trained[1]
