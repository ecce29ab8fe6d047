"""Factories for the registry (`leakgauge.reporters`): each returns a function that writes one file.

`html` and `json` take (records, path); `audit-html` and `audit-json` take (an audit's report, path).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leakgauge.audit.record import Record

if TYPE_CHECKING:
    from leakgauge.report.grid.findings import Findings

Reporter = Callable[[Sequence[Record], "str | Path"], None]
AuditReporter = Callable[[Any, "str | Path"], None]
AUDITS = ("audit-html", "audit-json")  # those that take a whole audit instead of its records


def html(redact: bool = False) -> Reporter:
    """One self-contained HTML page for people."""
    from leakgauge.report.html import write_html

    return partial(write_html, redact=redact)


def json(redact: bool = False) -> Reporter:
    """Strict JSON: the verdict, the records, and a list of all pictures on the page."""
    from leakgauge.report.json_export import write_json

    return partial(write_json, redact=redact)


def audit_html(redact: bool = False) -> AuditReporter:
    """The page over an audit's grid."""
    from leakgauge.report.grid.html import write_grid_html

    def write(report: Any, path: str | Path) -> None:
        write_grid_html(_findings(report), path, redact=redact)

    return write


def audit_json(redact: bool = False) -> AuditReporter:
    """The same as strict JSON."""
    from leakgauge.report.grid.export import write_grid_json

    def write(report: Any, path: str | Path) -> None:
        write_grid_json(_findings(report), path, redact=redact)

    return write


def _findings(report: Any) -> Findings:
    from leakgauge.report.grid.findings import Findings, findings_of_report

    return report if isinstance(report, Findings) else findings_of_report(report)
