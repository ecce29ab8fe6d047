"""The page over a grid: what it says first, that it leaves nothing out, and that page and JSON agree."""

from __future__ import annotations

import hashlib
import json
import re
from base64 import b64decode
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from grid_examples import PLAN, findings, grid, nothing_found, played
from report_examples import HOSTILE, scene
from text_examples import three_texts

from leakgauge.audit.plan.cell import Cell
from leakgauge.audit.run.result import CellResult
from leakgauge.audit.verdict.lineup import LineUp
from leakgauge.report.grid.export import grid_to_json
from leakgauge.report.grid.findings import Findings, findings_of, rank_of
from leakgauge.report.grid.html import render_annex, render_grid_page
from leakgauge.report.grid.page import LEVELS, GridPage, build_grid_page


@pytest.fixture(scope="module")
def found() -> Findings:
    return findings()


@pytest.fixture(scope="module")
def page(found: Findings) -> GridPage:
    return build_grid_page(found, date="2026-11-21")


@pytest.fixture(scope="module")
def text(page: GridPage) -> str:
    return render_grid_page(page, date="2026-11-21")


class Reader(HTMLParser):
    """Text, links and targets of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.targets: set[str] = set()
        self.links: set[str] = set()
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        if given.get("id"):
            assert given["id"] not in self.targets, f"two elements are called {given['id']}"
            self.targets.add(str(given["id"]))
        if tag == "a":
            self.links.add(str(given["href"]))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_the_first_page_says_what_has_to_be_signed(found: Findings, text: str) -> None:
    front = Reader(text[text.index('<section id="verdict"') : text.index('<nav class="contents"')]).text
    for words in (
        "4 of 4 private records are identified.", "Who could attack", "What they hold", "What leaked most", "What helps most",
        "What was not tested", "ward 7", "0123456789abcdef", "2026-11-21", "torch 2.8.0", "Name", "Signature",
        "False-alarm rate 5 %", found.judgement.change, "6 did not apply", "1 failed with an error",
        "2 of the plan have not been played yet",
    ):  # fmt: skip
        assert words in front, words


def test_the_page_stands_alone_and_every_link_leads_somewhere(text: str) -> None:
    reader = Reader(text)
    assert "http" not in re.sub(r"http-equiv", "", text).replace("http://www.w3.org", "")
    assert {link for link in reader.links if not link.startswith("#")} == set()
    assert {link[1:] for link in reader.links} <= reader.targets
    assert "default-src 'none'" in text


def test_every_cell_and_every_private_record_has_its_line(found: Findings, page: GridPage, text: str) -> None:
    assert len(page.cells) == len(found.results) == 36
    assert len(page.records) == len(found.judgement.records) == 4
    for number, result in enumerate(found.results, start=1):
        row = text[text.index(f'id="cell-{number}"') :]
        row = row[: row.index("</tbody>")] if "</tbody>" not in row[:600] else row[:600]
        assert f'data-status="{result.status}"' in row
    assert text.count('class="remark"') == 4
    for view in page.records:
        assert view.title in text
        assert f"#cell-{view.cell}" in text


def test_failures_are_counted_with_their_reasons_and_never_scored(page: GridPage, text: str) -> None:
    failed = [view for view in page.cells if view.status == "failed"]
    assert failed
    for view in failed:
        assert (view.verdict, view.level, view.pictures, view.control) == ("no result", "", (), "")
        assert [reason.text for reason in view.reasons] == ["The worker ran out of memory twice."]
    assert "The worker ran out of memory twice." in text
    assert "ran out of time" in text


def test_the_worst_record_comes_first_and_numbers_are_those_of_the_judgement(found: Findings, page: GridPage) -> None:
    levels = [view.level_value for view in page.records]
    assert levels == sorted(levels, reverse=True)
    for view in page.records:
        entry = found.judgement.records[view.number - 1]
        assert (entry.record, entry.verdict) == (view.key, view.verdict)
        assert found.results[view.cell - 1].cell.key == entry.best
        assert view.rank == f"{entry.rank} of {entry.decoys + 1}"


def test_json_is_strict_and_lists_every_picture_of_the_page(page: GridPage, text: str) -> None:
    exported = grid_to_json(page)
    assert json.loads(json.dumps(exported, allow_nan=False)) == exported
    assert set(exported) == {"verdict", "records"}
    listed = [*exported["verdict"]["pictures"], *(picture for entry in exported["records"] for picture in entry["pictures"])]
    shown = re.findall(r'<img src="data:image/png;base64,([^"]+)"', text)
    assert sorted(hashlib.sha256(b64decode(uri)).hexdigest() for uri in shown) == sorted(entry["sha256"] for entry in listed)
    assert {entry["what"] for entry in listed} == {"original", "reconstruction"}
    assert len(exported["records"]) == 36
    assert [entry["status"] for entry in exported["records"]].count("failed") == 1
    assert exported["verdict"]["statuses"]["failed"] == 1
    assert exported["verdict"]["plan_hash"] == "0123456789abcdef"


def test_hostile_text_is_shown_and_never_run() -> None:
    truth = scene(1)[None]
    cell = Cell(HOSTILE, HOSTILE, HOSTILE, 0, defence=HOSTILE)
    one = played(cell, truth, 0.1, names=[HOSTILE], patients=[HOSTILE])
    other = CellResult(replace(cell, seed=1), "failed", HOSTILE)
    page = build_grid_page(findings_of([one, other], {"name": HOSTILE}, plan_hash=HOSTILE))
    for text in (render_grid_page(page), render_annex(page)):
        assert "<script>alert" not in text
        assert "<img src=x" not in text
        assert "&lt;script&gt;" in text
        assert Reader(text).tags.count("script") <= 1


def test_a_grid_in_which_nothing_was_found_says_so_in_the_agreed_words() -> None:
    text = Reader(render_grid_page(build_grid_page(findings(nothing_found())))).text
    assert "this is no proof of safety" in text
    assert "None of 1 private record is identified." in text


def test_a_grid_in_which_everything_failed_still_makes_a_page() -> None:
    cells = [CellResult(Cell("demo:cat", "lenet-dlg", "dlg", seed), "failed", "It broke.") for seed in range(3)]
    page = build_grid_page(findings(cells))
    reader = Reader(render_grid_page(page))
    assert reader.text.count("It broke.") >= 3
    assert [(view.verdict, view.level, view.cell) for view in page.records] == [("incomplete", "no score", 0)]
    assert {link[1:] for link in reader.links} <= reader.targets


def test_texts_are_shown_as_texts() -> None:
    record = three_texts()
    cell = Cell("text:notes.tsv?indices=0-2", "hf:bert", "dlg-text", 0)
    line_ups = tuple(
        LineUp(
            place, f"{place:032x}", f"notes.tsv#{place}", "", "tokens", distance, tuple(0.8 + step / 100 for step in range(20))
        )
        for place, distance in enumerate((0.0, 0.4, 0.9))
    )
    page = build_grid_page(
        findings([CellResult(cell, "ok", "", record, line_ups), CellResult(replace(cell, seed=1), "ok", "", record, line_ups)])
    )
    reader = Reader(render_grid_page(page))
    assert "please write to anna.keller@example.org" in reader.text
    assert "Token accuracy is the share" in reader.text
    assert [view.rank for view in page.records] == ["1 of 21", "1 of 21", "12 of 21"]  # equals count against it
    assert {chart.name for chart in page.charts} == {"attempts-texts"}


def test_a_decoy_as_near_as_the_private_record_counts_against_it() -> None:
    assert rank_of(LineUp(0, "a", "", "", "mse", 0.5, (0.5, 0.7, 0.1))) == 3
    assert rank_of(LineUp(0, "a", "", "", "mse", float("inf"), (0.5, 0.7))) == 3
    assert rank_of(LineUp(0, "a", "", "", "mse", 0.0, (0.5, 0.7))) == 1


def test_a_larger_grid_gives_up_detail_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    given = findings(grid(seeds=3))
    finest = build_grid_page(given)
    monkeypatch.setattr("leakgauge.report.grid.page.LIMIT", finest.size() - 1)
    page = build_grid_page(given)
    monkeypatch.setattr("leakgauge.report.grid.page.LIMIT", 0)
    coarsest = build_grid_page(given)
    assert finest.shortened == ""
    assert page.shortened.startswith("To keep this page below 10 MB, pictures are at most")
    assert len(page.cells) == len(coarsest.cells) == 54
    assert "of 47 cells with scores" in coarsest.shortened or "cells with scores the 0 that leaked most" in coarsest.shortened
    assert coarsest.size() < page.size() <= finest.size()
    assert len(render_grid_page(coarsest)) < len(render_grid_page(finest))


def test_the_same_findings_give_the_same_bytes(found: Findings, text: str) -> None:
    again = build_grid_page(
        findings_of(found.results, PLAN, plan_hash=found.plan_hash, planned=38, ended="2026-11-21"), date="2026-11-21"
    )
    assert render_grid_page(again, date="2026-11-21") == text
    assert LEVELS[0].pixels > LEVELS[-1].pixels


def test_diagnostic_figures_are_marked_wherever_they_stand() -> None:
    results = []
    for result in grid(seeds=1):
        record = result.record
        if record is not None and result.cell.attack == "dlg":
            record = replace(record, conditions=replace(record.conditions, realistic=False))
        results.append(replace(result, record=record))
    page = build_grid_page(findings(results))
    assert {view.kind for view in page.cells if view.axes["attack"] == "dlg" and view.level} == {"diagnostic"}
    places = [place for matrix in page.matrices for _, row in matrix.rows for place in row if place.cell]
    marked = {place.cell for place in places if place.level.endswith("(diagnostic)")}
    assert marked == {place.cell for place in places if page.cells[place.cell - 1].axes["attack"] == "dlg"}
    assert any("diagnostic" in line for line in page.front.coverage)
    assert {row.cells[-1] for row in page.groups if row.name == "dlg"} == {"diagnostic"}
    assert "Diagnostic cells" in page.tradeoffs[0].caption
