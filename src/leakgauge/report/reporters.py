"""Factories for the registry (`leakgauge.reporters`): each returns a function (records, path) that writes one file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from leakgauge.audit.record import Record

Reporter = Callable[[Sequence[Record], "str | Path"], None]


def html(redact: bool = False) -> Reporter:
    """One self-contained HTML page for people."""
    from leakgauge.report.html import write_html

    return partial(write_html, redact=redact)


def json(redact: bool = False) -> Reporter:
    """Strict JSON: the verdict, the records, and a list of all pictures on the page."""
    from leakgauge.report.json_export import write_json

    return partial(write_json, redact=redact)
