"""Progress with time left on stderr, and Ctrl-C that keeps what is done."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from leakgauge.cli.console import duration, remark

PLAIN_SECONDS = 10.0  # between two lines where stderr is no terminal


@dataclass
class Interrupt:
    """Whether Ctrl-C was pressed; called, it answers that."""

    pressed: bool = False

    def __call__(self) -> bool:
        return self.pressed


@contextmanager
def interruptible(promise: str) -> Iterator[Interrupt]:
    """The first Ctrl-C in the body sets a flag and prints `promise`; the second raises KeyboardInterrupt."""
    interrupt = Interrupt()

    def handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - as signal calls it
        if interrupt.pressed:
            raise KeyboardInterrupt
        interrupt.pressed = True
        remark(f"\n{promise} Press Ctrl-C again to abort.")

    try:
        before = signal.signal(signal.SIGINT, handle)
    except ValueError:  # not in the main thread: Ctrl-C never arrives here
        yield interrupt
        return
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, before)


@dataclass
class Bar:
    """One progress line; a moving bar on a terminal, a sparse plain line elsewhere.

    Args:
        what: what is being done.
        quiet: print nothing.
    """

    what: str
    quiet: bool = False
    _rich: Any = field(default=None, repr=False)
    _task: Any = field(default=None, repr=False)
    _started: float = field(default_factory=time.monotonic, repr=False)
    _last: float = field(default=0.0, repr=False)

    def __enter__(self) -> Bar:
        self._started = self._last = time.monotonic()
        if not self.quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[remark]}"))
            self._rich = Progress(*columns, console=Console(stderr=True), transient=True)
            self._rich.start()
            self._task = self._rich.add_task(self.what, total=1.0, remark="")
        return self

    def __exit__(self, *_: object) -> None:
        if self._rich is not None:
            self._rich.stop()

    def show(self, share: float, remark_text: str = "") -> None:
        """Tells how far it is.

        Args:
            share: done so far, 0 to 1.
            remark_text: anything else worth knowing.
        """
        if self.quiet:
            return
        now = time.monotonic()
        share = min(max(share, 0.0), 1.0)
        spent = now - self._started
        left = f"at most {duration(spent / share * (1 - share))} left" if share > 0.04 else ""
        text = ", ".join(part for part in (f"{share:.0%}", left, remark_text) if part)
        if self._rich is not None:
            self._rich.update(self._task, completed=share, remark=text)
        elif now - self._last >= PLAIN_SECONDS:
            self._last = now
            remark(f"{self.what}: {text}")
