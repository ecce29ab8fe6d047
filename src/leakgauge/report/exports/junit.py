"""JUnit XML: one test case per private record, per cell and per rule, for the systems that show builds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from leakgauge.report.files import write_text
from leakgauge.report.grid.axes import cell_title, varying
from leakgauge.report.grid.findings import Findings
from leakgauge.report.grid.words import record_name, verdict_meaning

PASSED, FAILURE, ERROR, SKIPPED = "", "failure", "error", "skipped"
OF_VERDICT = {"identified": FAILURE, "incomplete": SKIPPED}
OF_STATUS = {"failed": ERROR, "unsupported": SKIPPED, "timeout": SKIPPED}
FORBIDDEN = re.compile("[^\\t\\n\\r\\u0020-\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]")


@dataclass(frozen=True)
class Case:
    """One test case: how it ended ('' for passed) and why."""

    suite: str
    name: str
    end: str = PASSED
    message: str = ""
    seconds: float = 0.0


def junit_cases(findings: Findings, rules: Sequence[tuple[str, Sequence[str]]] = ()) -> list[Case]:
    """Rules with what broke them, the plan's expectations, private records, and cells.

    A record is a failure where it is identified; a cell is an error where it failed, and skipped where it was not played out.
    """
    cases = [Case("rules", rule, FAILURE if broken else PASSED, " ".join(broken)) for rule, broken in rules]
    for held in findings.expected:
        ends = {True: PASSED, False: FAILURE, None: SKIPPED}
        cases.append(Case("expectations", held.what, ends[held.held], "" if held.held else held.sentence))
    for number, entry in enumerate(findings.judgement.records, start=1):
        end = OF_VERDICT.get(entry.verdict, PASSED)
        cases.append(Case("records", record_name(entry, number), end, verdict_meaning(entry.verdict) if end else ""))
    differing = varying([result.cell for result in findings.results])
    for number, result in enumerate(findings.results, start=1):
        name = f"{number}: {cell_title(result.cell, differing)}"
        end = OF_STATUS.get(result.status, PASSED)
        cases.append(Case("cells", name, end, f"{result.status}: {result.reason}" if end else "", result.seconds))
    return cases


def junit_text(cases: Sequence[Case], name: str = "leakgauge") -> str:
    """The cases as a document, one suite for each kind."""
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', f"<testsuites name={_quoted(name)} {_tally(cases)}>"]
    for suite in dict.fromkeys(case.suite for case in cases):
        members = [case for case in cases if case.suite == suite]
        lines.append(f"  <testsuite name={_quoted(suite)} {_tally(members)}>")
        for case in members:
            named = f"classname={_quoted(f'leakgauge.{suite}')} name={_quoted(case.name)}"
            start = f'    <testcase {named} time="{case.seconds:.3f}"'
            if case.end == PASSED:
                lines.append(f"{start}/>")
            else:
                inside = f"<{case.end} message={_quoted(case.message)}>{escape(_clean(case.message))}</{case.end}>"
                lines += [f"{start}>", f"      {inside}", "    </testcase>"]
        lines.append("  </testsuite>")
    return "\n".join([*lines, "</testsuites>", ""])


def write_junit(findings: Findings, path: str | Path, rules: Sequence[tuple[str, Sequence[str]]] = ()) -> None:
    """Writes the cases to a file.

    Raises:
        DataError: if the file cannot be written.
    """
    write_text(path, junit_text(junit_cases(findings, rules), findings.name or "leakgauge"))


def _tally(cases: Sequence[Case]) -> str:
    numbers = {"tests": len(cases)} | {
        f"{name}s" if name != SKIPPED else name: sum(case.end == name for case in cases) for name in (FAILURE, ERROR, SKIPPED)
    }
    counted = " ".join(f'{name}="{number}"' for name, number in numbers.items())
    return f'{counted} time="{sum(case.seconds for case in cases):.3f}"'


def _clean(text: str) -> str:
    """Without the characters that no XML document may hold."""
    return FORBIDDEN.sub("", text)


def _quoted(text: str) -> str:
    return quoteattr(_clean(text))
