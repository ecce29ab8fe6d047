"""Cases on a few processes of one thread each: the same result whatever the number of processes."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from leakgauge.audit.case import Case, attack_call, run_case
from leakgauge.audit.folder import save_record
from leakgauge.audit.prior import without_picture
from leakgauge.audit.timing import planned_evaluations
from leakgauge.cli.demo_cases import Planned
from leakgauge.errors import LeakgaugeError
from leakgauge.registry import make

MOST_WORKERS = 2
POLL = 0.2
_stop: Any = None
_shares: Any = None


@dataclass(frozen=True)
class Done:
    """One case that has ended: its place, and its record's key, or why there is none."""

    index: int
    key: str = ""
    psnr: tuple[float, ...] = ()
    problem: str = ""


def play_all(
    cases: Sequence[Planned], folder: Path, stopped: Callable[[], bool], tell: Callable[[float], None]
) -> Iterator[Done]:
    """Plays all cases and saves each record as its case ends.

    Args:
        cases: what is played; the longest begin first.
        folder: where records are saved, in the order of `cases`.
        stopped: polled; True ends running cases with what was best so far and begins no other.
        tell: called with the share of the work that is done.

    Yields:
        Cases as they end.
    """
    context = get_context("spawn")
    stop, shares = context.Event(), context.Array("d", len(cases))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    workers = max(1, min(MOST_WORKERS, cores, len(cases)))
    pool = ProcessPoolExecutor(workers, context, _begin, (stop, shares, list(sys.path)))
    total = sum(planned.seconds for planned in cases)
    order = sorted(range(len(cases)), key=lambda index: -cases[index].seconds)
    waiting: set[Future[Done]] = {pool.submit(_play, index, cases[index].case, str(folder)) for index in order}
    ended = [False] * len(cases)
    try:
        while waiting:
            done, waiting = wait(waiting, timeout=POLL, return_when=FIRST_COMPLETED)
            if stopped() and not stop.is_set():
                stop.set()
                for future in waiting:
                    future.cancel()
            for future in done:
                if not future.cancelled():
                    found = future.result()
                    ended[found.index] = True
                    if found.key or found.problem:
                        yield found
            tell(sum(_share(ended[i], shares[i]) * cases[i].seconds for i in range(len(cases))) / total)
    except BrokenProcessPool as error:
        raise LeakgaugeError("A worker process was killed, probably for lack of memory; what was done is kept.") from error
    except BaseException:
        _kill(pool)
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _share(ended: bool, share: float) -> float:
    return 1.0 if ended else min(share, 0.99)


def _kill(pool: ProcessPoolExecutor) -> None:
    for process in (getattr(pool, "_processes", None) or {}).values():
        process.terminate()


def _begin(stop: Event, shares: Any, path: list[str]) -> None:
    """In a worker: one thread, Ctrl-C left to the parent."""
    global _stop, _shares
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.path[:] = path
    import torch

    torch.set_num_threads(1)
    _stop, _shares = stop, shares


def _play(index: int, case: Case, folder: str) -> Done:
    """In a worker: one case, its record saved under its place."""
    if _stop.is_set():
        return Done(index)
    polled = [0.0, False]

    def cancelled() -> bool:
        now = time.monotonic()
        if now - polled[0] > POLL:
            polled[:] = [now, bool(_stop.is_set())]
        return bool(polled[1])

    def progress(at: Any) -> None:
        _shares[index] = at.evaluations / max(planned or at.planned, at.evaluations, 1)

    try:
        name, options = attack_call(case.attack)
        planned = planned_evaluations(make("attacks", name, **without_picture(options)), case.budget)
        record = run_case(case, device="cpu", cancelled=cancelled, progress=progress)
        save_record(record, folder, order=index)
    except LeakgaugeError as error:
        return Done(index, problem=f"{case.title}: {error}")
    return Done(index, record.key, tuple(score.psnr for score in record.picture_scores))
