"""Printing: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

PLAIN_WIDTH = 110


def result_console() -> Console:
    """rich on stdout; of a fixed width where stdout is no terminal, so that output does not depend on one."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH, highlight=False)


def say(text: str) -> None:
    """One line of result on stdout."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def remark(text: str) -> None:
    """One line beside the result, on stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def print_json(entries: dict[str, Any]) -> None:
    """One strict JSON object on stdout."""
    from leakgauge.audit.folder import strict_json

    say(json.dumps(strict_json(entries), indent=1, ensure_ascii=False, allow_nan=False))


def duration(seconds: float) -> str:
    """'~12 s', '~4 min', '~2 h', 'less than a second'."""
    if seconds < 1:
        return "less than a second"
    if seconds < 100:
        return f"~{seconds:.0f} s"
    return f"~{seconds / 60:.0f} min" if seconds < 6000 else f"~{seconds / 3600:.1f} h"
