"""The page over a grid as strict JSON: what the judgement says, every cell, and every picture with what it is."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from leakgauge.audit.folder import record_to_json, strict_json
from leakgauge.audit.run.result import CellResult
from leakgauge.report.files import write_text
from leakgauge.report.gallery import Picture
from leakgauge.report.grid.axes import cell_title, varying
from leakgauge.report.grid.findings import Findings, rank_of
from leakgauge.report.grid.page import GridPage, build_grid_page
from leakgauge.report.grid.why import reasons
from leakgauge.report.words import example_verdict, record_verdict


def grid_to_json(page: GridPage) -> dict[str, Any]:
    """`{"verdict": ..., "records": [...]}`: one record per cell, in the order of the plan.

    Pictures themselves are not in it. Each list entry has the SHA-256 of the PNG file that the page shows; `verdict.pictures`
    lists those of the private records and of the matrices, each cell's `pictures` those of its details.
    """
    findings = page.findings
    differing = varying([result.cell for result in findings.results])
    pictures = {view.number: [picture.to_json() for picture in view.pictures if picture.uri] for view in page.cells}
    entries = [
        _cell(number, result, cell_title(result.cell, differing)) | {"pictures": pictures.get(number, [])}
        for number, result in enumerate(findings.results, start=1)
    ]
    front = page.front
    verdict = findings.judgement.to_json() | {
        "headline": front.headline,
        "worst_verdict": front.verdict,
        "counts": {tile.verdict: tile.number for tile in front.tiles},
        "statuses": findings.counts(),
        "missing": findings.missing,
        "coverage": list(front.coverage),
        "who": list(front.who),
        "holds": list(front.holds),
        "untested": list(front.untested),
        "helps": list(front.helps),
        "why": [asdict(one) for one in page.why],
        "expected": [entry.to_json() for entry in findings.expected],
        "plan": dict(findings.plan),
        "plan_hash": findings.plan_hash,
        "ended": findings.ended,
        "redacted": page.redacted,
        "shortened": page.shortened,
        "pictures": _pictures(page),
    }
    strict: dict[str, Any] = strict_json({"verdict": verdict, "records": entries})
    return strict


def write_grid_json(findings: Findings, path: str | Path, *, redact: bool = False) -> None:
    """Writes `grid_to_json` of the page that `write_grid_html` would make.

    Raises:
        DataError: if the file cannot be written.
    """
    write_page_json(build_grid_page(findings, redact=redact), path)


def write_page_json(page: GridPage, path: str | Path) -> None:
    """Writes a page that is already built.

    Raises:
        DataError: if the file cannot be written.
    """
    write_text(path, json.dumps(grid_to_json(page), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def _cell(number: int, result: CellResult, title: str) -> dict[str, Any]:
    cell, record = result.cell, result.record
    entry: dict[str, Any] = {"title": title, "attack": cell.attack, "scores": []}
    if record is not None:
        entry = record_to_json(record)
        for score, written in zip(record.scores, entry["scores"], strict=True):
            written["verdict"] = example_verdict(record, score)
        entry |= {"verdict": record_verdict(record)}
    return entry | {
        "number": number,
        "key": cell.key,
        "cell": cell.to_json(),
        "status": result.status,
        "reason": result.reason,
        "seconds": result.seconds,
        "attempt": result.attempt,
        "decoys": result.decoys,
        "line_ups": [asdict(line_up) | {"rank": rank_of(line_up)} for line_up in result.line_ups],
        "why": [asdict(reason) for reason in reasons(result)],
    }


def _pictures(page: GridPage) -> list[dict[str, Any]]:
    """Pictures outside the details of cells, each with where it stands."""

    def listed(where: str, shown: tuple[Picture, ...]) -> list[dict[str, Any]]:
        return [{"where": where} | picture.to_json() for picture in shown if picture.uri]

    found = listed("first page", page.worst)
    for view in page.records:
        found += listed(view.title, view.pictures)
    for matrix in page.matrices:
        found += listed(f"{matrix.title}, side by side", matrix.pictures)
    return found
