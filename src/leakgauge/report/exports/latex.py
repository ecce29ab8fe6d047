"""A LaTeX table of the groups: medians with intervals, at the effort and under the conditions that the caption states."""

from __future__ import annotations

import math
from pathlib import Path

from leakgauge.audit.verdict.judge import GroupVerdict
from leakgauge.report.files import write_text
from leakgauge.report.grid.cells import shared_conditions
from leakgauge.report.grid.findings import Findings
from leakgauge.report.grid.groups import CONDITIONS, conditions_text
from leakgauge.report.grid.words import chance
from leakgauge.report.words import count

SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
}  # fmt: skip
STATED = ("Model", "State of the model", "Size of one input", "Examples in the batch", "Local training", "Budget", "Arithmetic")


def escaped(text: str) -> str:
    """Text with LaTeX's own signs escaped, on one line."""
    return "".join(SPECIAL.get(sign, sign) for sign in " ".join(text.split()))


def latex_table(findings: Findings) -> str:
    """A `table` environment that needs no package; one line per group of the judgement."""
    groups = findings.judgement.groups
    differing = [name for name in CONDITIONS if len({getattr(group, name) for group in groups}) > 1]
    shared = dict(shared_conditions(findings.results))
    stated = "; ".join(f"{name.lower()} {shared[name]}" for name in STATED if name in shared)
    failures = "; ".join(f"{number} {status}" for status, number in findings.counts().items() if number)
    caption = (
        f"{findings.name or 'Audit'}: median over private records with 95 % bootstrap interval, the control beside it, how often "
        "the private record ranks first among its decoys, and p corrected for all lines (Holm). "
        f"{count(len(findings.results), 'cell')}: {failures}; cells without a result are in no median. "
        f"The same in all cells: {stated or 'see the report'}. Plan {findings.plan_hash or 'without a hash'}."
    )
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escaped(caption)}}}",
        r"\begin{tabular}{lllrrrr}",
        r"\hline",
        r"Attack & Under & Median & Control & First & Corrected $p$ & Cells \\",
        r"\hline",
        *(_line(group, differing) for group in groups),
        r"\hline",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def write_latex(findings: Findings, path: str | Path) -> None:
    """Writes the table to a file.

    Raises:
        DataError: if the file cannot be written.
    """
    write_text(path, latex_table(findings))


def _line(group: GroupVerdict, differing: list[str]) -> str:
    cells = [
        escaped(group.attack),
        escaped(conditions_text(group, differing)) + ("" if group.realistic else " (diagnostic)"),
        _median(group),
        _figure(group.control, group.measure),
        f"{group.first}/{group.line_ups}" if group.line_ups else "--",
        escaped(chance(group.adjusted)),
        _cells(group),
    ]
    return " & ".join(cells) + r" \\"


def _median(group: GroupVerdict) -> str:
    middle = _figure(group.median, group.measure)
    if math.isnan(group.low):
        return middle
    return f"{middle} [{_figure(group.low, group.measure)}, {_figure(group.high, group.measure)}]"


def _figure(value: float, measure: str) -> str:
    if math.isnan(value):
        return "--"
    if math.isinf(value):
        return "exact"
    return rf"{value:.1f}\,dB" if measure == "psnr" else rf"{100 * value:.0f}\,\%"


def _cells(group: GroupVerdict) -> str:
    """All cells, with those that have no result in brackets."""
    missing = sum(group.statuses.get(status, 0) for status in ("unsupported", "failed", "timeout"))
    return f"{group.cells} ({missing} without or cut short)" if missing else str(group.cells)
