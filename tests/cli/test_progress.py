"""Ctrl-C and the progress line."""

from __future__ import annotations

import os
import signal

import pytest

from leakgauge.cli.console import duration
from leakgauge.cli.progress import Bar, interruptible


def test_the_first_ctrl_c_sets_a_flag_and_the_second_aborts(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), interruptible("Stopping.") as pressed:
        assert not pressed()
        os.kill(os.getpid(), signal.SIGINT)
        assert pressed()
        os.kill(os.getpid(), signal.SIGINT)
    assert "Stopping. Press Ctrl-C again to abort." in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is before


def test_without_a_terminal_lines_are_sparse(capsys: pytest.CaptureFixture[str]) -> None:
    with Bar("work") as bar:
        for step in range(100):
            bar.show(step / 100)
        bar._last -= 60
        bar.show(0.5, "objective 1")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("work: 50%, at most")
    assert lines[0].endswith("objective 1")


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "less than a second"), (12.3, "~12 s"), (240.0, "~4 min"), (7200.0, "~2.0 h")]
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words
