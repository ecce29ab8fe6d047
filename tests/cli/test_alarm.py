"""The clock that ends what does not look at its own."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from leakgauge.cli.alarm import at_most


class Late(Exception):
    """The time is up."""


def spin(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sum(range(1000))


def test_it_ends_a_long_body_with_the_given_error() -> None:
    begun = time.monotonic()
    with pytest.raises(Late), at_most(0.1, Late()):
        spin(30)
    assert time.monotonic() - begun < 10


def test_it_leaves_a_short_body_and_other_errors_alone() -> None:
    with at_most(5, Late()):
        spin(0.01)
    with pytest.raises(KeyError), at_most(5, Late()):
        raise KeyError
    assert signal.getitimer(signal.ITIMER_REAL)[0] == pytest.approx(0, abs=700)


def test_somebody_elses_alarm_goes_on() -> None:
    rung: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, _: rung.append(number))
    outer = signal.setitimer(signal.ITIMER_REAL, 0.15)
    try:
        with at_most(5, Late()):
            spin(0.01)
        spin(0.4)
        assert rung == [signal.SIGALRM]
    finally:
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *outer)


def test_another_thread_has_no_alarm() -> None:
    ended: list[bool] = []

    def work() -> None:
        with at_most(0.01, Late()):
            spin(0.1)
        ended.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert ended == [True]
