"""Two runs side by side: nothing differs from itself, and what leaks more is named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from grid_examples import batch, findings, grid, played

from leakgauge.audit.plan.cell import Cell
from leakgauge.audit.run.result import CellResult
from leakgauge.errors import OptionError
from leakgauge.report.comparison.match import BETTER, CHANGED, WORSE, compare
from leakgauge.report.comparison.page import headline, lines, render_comparison, write_comparison_json
from leakgauge.report.comparison.rules import Growth, growths
from leakgauge.report.grid.findings import Findings


def run(error: float, defence: str, *, seeds: int = 2, attack: str = "dlg") -> Findings:
    truth, names, patients = batch(40, 2, 16)
    cells = [Cell("demo:cat", "lenet-dlg", attack, seed, defence=defence) for seed in range(seeds)]
    return findings([played(cell, truth, error, names=names, patients=patients) for cell in cells])


STRONG, WEAK = "gaussian-noise:std=0.1", "gaussian-noise:std=0.001"


def test_a_run_does_not_differ_from_itself_whatever_the_versions_time_and_attempt() -> None:
    one = findings(grid())
    results = [
        replace(result, seconds=99.0, attempt=2, cell=replace(result.cell, fingerprint="ab" * 32)) for result in one.results
    ]
    found = compare(one, findings(results))
    assert found.empty
    assert found.matched == 36
    assert headline(found) == "No difference in 36 matched cells."
    assert lines(found) == ["No difference in 36 matched cells."]


def test_a_weaker_defence_names_what_got_worse() -> None:
    found = compare(run(0.6, STRONG), run(0.01, WEAK), ("old", "new"))
    assert found.axes == (("defence", STRONG, WEAK),)
    assert found.matched == 2
    assert not found.of(BETTER)
    worse = found.of(WORSE)
    assert {change.measure for change in worse} >= {"psnr", "verdict", "verdict over all cells"}
    assert "Private record scan-040.png: verdict over all cells was" in " ".join(change.text for change in worse)
    assert found.only_before == found.only_after == ()
    text = render_comparison(found)
    assert "More leaks now" in text
    assert "gaussian-noise:std=0.001 now" in text


def test_the_other_way_round_it_got_better() -> None:
    found = compare(run(0.01, WEAK), run(0.6, STRONG))
    assert found.of(BETTER)
    assert not found.of(WORSE)


def test_several_weaker_defences_are_paired_in_order_and_others_are_matched_as_they_are() -> None:
    before, after = grid(), grid()
    renamed = {"gaussian-noise:std=0.001": "gaussian-noise:std=0.0001", "gaussian-noise:std=0.1": "gaussian-noise:std=0.01"}
    after = [replace(one, cell=replace(one.cell, defence=renamed.get(one.cell.defence, one.cell.defence))) for one in after]
    found = compare(findings(before), findings(after))
    assert found.axes == tuple(("defence", old, new) for old, new in renamed.items())
    assert found.matched == 36
    assert not found.changes


def test_what_is_in_one_run_only_and_what_ended_differently_is_said() -> None:
    before = run(0.3, STRONG, seeds=3)
    shorter = list(before.results[:2])
    shorter[1] = CellResult(shorter[1].cell, "failed", "It broke.")
    found = compare(before, findings(shorter), ("old", "new"))
    assert len(found.only_before) == 1
    (change,) = found.of(CHANGED)
    assert (change.measure, change.before, change.after) == ("status", "ok", "failed (It broke.)")
    assert "only in old: dlg, seed 2" in lines(found)
    assert not found.empty


def test_small_differences_of_a_rerun_are_no_change() -> None:
    before = run(0.1, STRONG)
    assert before.results[0].record is not None
    nudged = [
        replace(
            one,
            record=replace(
                one.record, scores=tuple(replace(score, psnr=score.psnr + 0.3) for score in one.record.picture_scores)
            ),
        )
        for one in before.results
        if one.record is not None
    ]
    assert compare(before, findings(nudged)).empty


def test_rules_over_growth() -> None:
    before, after = run(0.6, STRONG), run(0.01, WEAK)
    assert len(growths(before, after, Growth("psnr", ">", 3.0))) == 4
    assert growths(before, before, Growth("psnr", ">", 0.0)) == []
    assert growths(after, before, Growth("psnr", ">", 0.0)) == []
    assert growths(before, after, Growth("ssim", ">", 0.1))
    assert all("private record" in text for text in growths(before, after, Growth("identified", ">", 0.0)))
    with pytest.raises(OptionError, match="share nothing with 'token_accuracy'"):
        growths(before, after, Growth("token_accuracy", ">", 0.0))


def test_json_is_strict(tmp_path: Path) -> None:
    write_comparison_json(compare(run(0.6, STRONG), run(0.0, WEAK)), tmp_path / "compared.json")
    read = json.loads((tmp_path / "compared.json").read_text(encoding="utf-8"))
    assert read["empty"] is False
    assert read["axes"] == [["defence", STRONG, WEAK]]
    assert any(change["difference"] == "inf" for change in read["changes"])
