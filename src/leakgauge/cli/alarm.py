"""A clock that ends what does not look at its own: linear algebra in one long call, within a command that promised a minute."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def at_most(seconds: float, late: Exception) -> Iterator[None]:
    """Raises `late` in the body when the time is up; without effect outside the main thread, and where there are no alarms.

    Args:
        seconds: allowed, > 0.
        late: what is raised.
    """

    def ring(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - as signal calls it
        raise late

    try:
        before = signal.signal(signal.SIGALRM, ring)
    except (ValueError, AttributeError):
        yield
        return
    begun = time.monotonic()
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if left > 0:  # somebody else's alarm, with what is left of it
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - begun), 1e-3), interval)
