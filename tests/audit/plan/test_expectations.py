"""Expectations are checked by what was measured, and not judged where something is missing."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from audit_plans import plain

from leakgauge.audit.plan.cell import Cell
from leakgauge.audit.plan.expand import cells_of
from leakgauge.audit.plan.expectations import Held, check_expectations
from leakgauge.audit.plan.reading import parse_audit_plan
from leakgauge.audit.record import Control, ExampleScore, Record
from leakgauge.audit.run.play import play
from leakgauge.audit.run.result import CellResult

BASE = {"what": "A statement.", "source": "ours", "measure": "psnr", "relation": "at least"}


@pytest.fixture(scope="module")
def record() -> Record:
    """A true record, whose scores the tests replace."""
    plan = parse_audit_plan(plain(attacks=["control"], data=["demo:face?size=16"]))
    found = play(cells_of(plan)[0]).record
    assert found is not None
    return found


def scored(record: Record, *values: float, control: float = 10.0, **changes: Any) -> Record:
    """The record with one score per PSNR."""
    lines = [ExampleScore(at, "x", 0.01, psnr, 0.5, 0.01, label=1, label_guess=at) for at, psnr in enumerate(values)]
    beside = tuple(replace(line, psnr=control) for line in lines)
    return replace(record, scores=tuple(lines), control=Control("mid-grey", beside), **changes)


def checked(record: Record, expect: dict[str, Any], results: dict[str, CellResult | None] | None = None) -> Held:
    """One expectation about two attacks: dlg reaches 40 and 20 dB, idlg 30 and 35 dB."""
    plan = parse_audit_plan(plain(attacks=["dlg", "idlg"], data=["demo:faces?indices=0-1&size=16"], expect=[BASE | expect]))
    first, second = cells_of(plan)
    played: dict[str, CellResult | None] = {
        "dlg": CellResult(first, "ok", record=scored(record, 40.0, 20.0)),
        "idlg": CellResult(second, "ok", record=scored(record, 30.0, 35.0)),
    }
    played |= results or {}
    (held,) = check_expectations(plan, [result for result in played.values() if result is not None])
    json.dumps(held.to_json(), allow_nan=False)
    return held


@pytest.mark.parametrize(
    ("expect", "held", "measured"),
    [
        ({"value": 32.0}, True, 32.5),
        ({"value": 33.0}, False, 32.5),
        ({"value": 20.0, "statistic": "min", "relation": "at most"}, True, 20.0),
        ({"value": 40.0, "statistic": "max", "relation": "above"}, False, 40.0),
        ({"value": 31.25, "statistic": "mean", "relation": "about", "tolerance": 0.0}, True, 31.25),
        ({"value": 33.0, "relation": "about", "tolerance": 0.6}, True, 32.5),
        ({"value": 33.0, "relation": "about", "tolerance": 0.4}, False, 32.5),
        ({"value": 30.5, "relation": "below", "where": {"attacks": "dlg"}}, True, 30.0),
        ({"relation": "above", "where": {"attacks": "idlg"}, "versus": {"attacks": "dlg"}}, True, 32.5),
        ({"relation": "above", "value": 3.0, "where": {"attacks": "idlg"}, "versus": {"attacks": "dlg"}}, False, 32.5),
        ({"measure": "rebuilt", "statistic": "share", "value": 0.75}, True, 0.75),
        ({"measure": "label", "statistic": "share", "value": 0.6}, False, 0.5),
        ({"measure": "above_control", "value": 22.5}, True, 22.5),
        ({"measure": "ssim", "relation": "at most", "value": 0.5}, True, 0.5),
        ({"measure": "underdetermined", "statistic": "share", "relation": "at most", "value": 0.0}, True, 0.0),
        ({"measure": "exact", "statistic": "share", "relation": "at most", "value": 0.0}, True, 0.0),
    ],
)
def test_each_relation(record: Record, expect: dict[str, Any], held: bool, measured: float) -> None:
    found = checked(record, expect)
    assert (found.held, found.measured) == (held, measured)
    assert found.sentence.startswith("Held: A statement (ours): " if held else "Not held: A statement (ours): ")


def test_the_sentence_names_both_numbers(record: Record) -> None:
    found = checked(record, {"relation": "above", "value": 1.0, "where": {"attacks": "idlg"}, "versus": {"attacks": "dlg"}})
    assert found.sentence == (
        "Held: A statement (ours): the median PSNR of 2 examples is 32.5 dB; expected above 31 dB, that of the 2 compared with "
        "and 1 dB more."
    )


@pytest.mark.parametrize("status", ["failed", "timeout", "unsupported"])
def test_a_cell_that_came_to_nothing_is_no_zero(record: Record, status: Any) -> None:
    def with_status(cell: Cell) -> CellResult:
        return CellResult(cell, status, "why", None)

    plan = parse_audit_plan(plain(attacks=["dlg", "idlg"], data=["demo:faces?indices=0-1&size=16"]))
    lost = {"idlg": with_status(cells_of(plan)[1])}
    found = checked(record, {"value": 1.0}, lost)
    assert found.held is None and math.isnan(found.measured)
    assert found.sentence == f"Not judged: A statement (ours): of 2 cells 1 {status}."
    assert checked(record, {"value": 1.0, "where": {"attacks": "dlg"}}, lost).held is True
    assert checked(record, {"relation": "below", "where": {"attacks": "dlg"}, "versus": {"attacks": "idlg"}}, lost).held is None
    share = checked(record, {"measure": "unsupported", "statistic": "share", "value": 0.5}, lost)
    assert share.held is (True if status == "unsupported" else None)


def test_a_cell_that_has_not_been_played_is_not_judged(record: Record) -> None:
    found = checked(record, {"value": 1.0}, {"idlg": None})
    assert found.sentence == "Not judged: A statement (ours): of 2 cells 1 not played."


def test_an_example_without_a_reconstruction_is_not_judged(record: Record) -> None:
    plan = parse_audit_plan(plain(attacks=["dlg", "idlg"], data=["demo:faces?indices=0-1&size=16"]))
    lost = {"idlg": CellResult(cells_of(plan)[1], "ok", record=scored(record, 30.0, math.nan))}
    assert checked(record, {"value": 1.0}, lost).held is None


def test_exact_pictures_have_no_highest_psnr(record: Record) -> None:
    plan = parse_audit_plan(plain(attacks=["dlg", "idlg"], data=["demo:faces?indices=0-1&size=16"]))
    exact = {"idlg": CellResult(cells_of(plan)[1], "ok", record=scored(record, math.inf, math.inf))}
    assert checked(record, {"value": 1e6, "where": {"attacks": "idlg"}}, exact).held is True
    assert checked(record, {"measure": "exact", "statistic": "share", "value": 0.5}, exact).held is True
    above = {"relation": "above", "where": {"attacks": "idlg"}, "versus": {"attacks": "idlg"}}
    assert checked(record, above, exact).held is False
