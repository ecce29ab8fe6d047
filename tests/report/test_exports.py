"""Tables and test cases for other programs hold every cell, every number and every condition."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from grid_examples import findings, grid, played
from report_examples import four_pictures, scene

from leakgauge.audit.plan.cell import Cell
from leakgauge.audit.plan.expectations import Held
from leakgauge.audit.run.result import CellResult
from leakgauge.errors import DataError, MissingExtraError
from leakgauge.report.exports.junit import junit_cases, junit_text, write_junit
from leakgauge.report.exports.latex import escaped, latex_table
from leakgauge.report.exports.lines import COLUMNS, lines_of, lines_of_records
from leakgauge.report.exports.table_files import csv_text, write_csv, write_parquet
from leakgauge.report.grid.annex import annex_markdown
from leakgauge.report.grid.findings import Findings
from leakgauge.report.grid.page import build_grid_page


@pytest.fixture(scope="module")
def found() -> Findings:
    return findings()


def test_every_cell_has_its_lines_and_a_failed_one_has_no_score(found: Findings) -> None:
    lines = lines_of(found)
    assert {line["cell"] for line in lines} == set(range(1, 37))
    assert all(set(line) == set(COLUMNS) for line in lines)
    for number, result in enumerate(found.results, start=1):
        own = [line for line in lines if line["cell"] == number]
        if result.record is None:
            assert [(line["psnr"], line["verdict"], line["reason"]) for line in own] == [(None, None, result.reason)]
        else:
            assert [line["psnr"] for line in own] == [score.psnr for score in result.record.picture_scores]
            assert [line["record"] for line in own] == [line_up.record for line_up in result.line_ups]
            assert {line["defence"] for line in own} == {result.cell.defence}
            assert {line["record_verdict"] for line in own} == {"identified"}


def test_csv_reads_back(found: Findings, tmp_path: Path) -> None:
    lines = lines_of(found)
    write_csv(lines, tmp_path / "cells.csv")
    read = list(csv.DictReader(io.StringIO((tmp_path / "cells.csv").read_text(encoding="utf-8"))))
    assert list(read[0]) == list(COLUMNS)
    for line, row in zip(lines, read, strict=True):
        assert float(row["psnr"]) == line["psnr"] if line["psnr"] is not None else row["psnr"] == ""
        assert row["realistic"] in ("true", "false", "")
        assert row["attack"] == line["attack"]


def test_a_name_that_is_no_text_is_written_all_the_same(tmp_path: Path) -> None:
    one = played(Cell("d", "m", "dlg", 0), scene(1)[None], 0.1, names=["scan-\udcff.png"], patients=["x"])
    write_csv(lines_of(findings([one])), tmp_path / "cells.csv")
    assert "scan-\\udcff.png" in (tmp_path / "cells.csv").read_text(encoding="utf-8")


def test_csv_writes_exact_pictures_and_never_a_formula() -> None:
    cell = Cell("=HYPERLINK(1)", "m", "dlg", 0)
    one = played(cell, scene(1)[None], 0.0, names=["+cmd|' /C calc'!A0"], patients=["@x"])
    (row,) = csv.DictReader(io.StringIO(csv_text(lines_of(findings([one])))))
    assert row["psnr"] == "inf"
    assert (row["data"], row["name"], row["patient"]) == ("'=HYPERLINK(1)", "'+cmd|' /C calc'!A0", "'@x")


def test_parquet_holds_the_same_with_types(found: Findings, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    lines = lines_of(found)
    write_parquet(lines, tmp_path / "deep" / "cells.parquet")
    table = parquet.read_table(tmp_path / "deep" / "cells.parquet")
    assert table.column_names == list(COLUMNS)
    assert [str(table.schema.field(name).type) for name in ("psnr", "cell", "certified", "attack")] == [
        "double",
        "int64",
        "bool",
        "string",
    ]
    rows = table.to_pylist()
    for line, row in zip(lines, rows, strict=True):
        assert {name: value for name, value in row.items() if value is not None} == {
            name: value
            for name, value in line.items()
            if value is not None and not (isinstance(value, float) and math.isnan(value))
        }
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        write_parquet(lines, tmp_path / "file" / "cells.parquet")


def test_parquet_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"leakgauge\[parquet\]"):
        write_parquet([], tmp_path / "cells.parquet")


def test_records_without_a_plan_make_the_same_lines() -> None:
    lines = lines_of_records([four_pictures()])
    assert [line["example"] for line in lines] == [1, 2, 3, 4]
    assert [line["verdict"] for line in lines] == ["rebuilt", "rebuilt", "partly", "not found"]
    assert {(line["cell"], line["status"], line["model"], line["rank"]) for line in lines} == {(1, "ok", "lenet-dlg", None)}


def test_latex_escapes_and_counts_what_is_missing(found: Findings) -> None:
    table = latex_table(found)
    assert escaped("a_b & 5 % of {x}\\n$y$") == r"a\_b \& 5 \% of \{x\}\textbackslash{}n\$y\$"
    lines = table.splitlines()
    rows = [line for line in lines if line.endswith(r"\\")][1:]
    assert len(rows) == len(found.judgement.groups) == 9
    assert all(row.count(" & ") == 6 for row in rows)
    assert any("without or cut short" in row for row in rows)
    assert "6 unsupported" in table
    assert "model lenet-dlg" in table
    assert table.count("{") == table.count("}")
    first = found.judgement.groups[0]
    assert f"{first.median:.1f}\\,dB [{first.low:.1f}\\,dB, {first.high:.1f}\\,dB]" in rows[0]


def test_junit_says_what_failed_and_why(found: Findings, tmp_path: Path) -> None:
    told = replace(found, expected=(
        Held("DLG rebuilds", "", True, 40.0, 30.0, "It does."), Held("IG does not", "", False, 40.0, 30.0, "It does, though."),
        Held("R-GAP", "", None, math.nan, 30.0, "No cell."),
    ))  # fmt: skip
    write_junit(told, tmp_path / "audit.xml", [("psnr > 30", ["cell 1 has 40", "cell 2 has 41"]), ("failed > 1", [])])
    root = ElementTree.parse(tmp_path / "audit.xml").getroot()
    suites = {suite.get("name"): suite for suite in root}
    assert [case.find("failure") is not None for case in suites["rules"]] == [True, False]
    ends = [(case.find("failure") is not None, case.find("skipped") is not None) for case in suites["expectations"]]
    assert ends == [(False, False), (True, False), (False, True)]
    assert suites["records"].get("failures") == "4"
    assert len(suites["cells"]) == 36
    assert suites["cells"].get("errors") == "1"
    assert suites["cells"].get("skipped") == "8"
    errors = [case.find("error").get("message") for case in suites["cells"] if case.find("error") is not None]  # type: ignore[union-attr]
    assert errors == ["failed: The worker ran out of memory twice."]
    assert root.get("tests") == str(2 + 3 + 4 + 36)


def test_junit_survives_what_xml_cannot_hold() -> None:
    cell = Cell("d", "m", "a\x00\x1b<&\"'>", 0)
    text = junit_text(junit_cases(findings([CellResult(cell, "failed", "\x07]]> broke\ud800")])), 'n"ame')
    root = ElementTree.fromstring(text.encode())
    assert root.get("name") == 'n"ame'
    assert any("]]> broke" in str(case.find("error").text) for case in root.iter("testcase") if case.find("error") is not None)  # type: ignore[union-attr]


def test_the_annex_in_markdown_holds_every_part_and_no_markup_of_others(found: Findings) -> None:
    page = build_grid_page(findings(grid(seeds=1)), date="2026-11-21")
    text = annex_markdown(page.annex, "Annex | <b>")
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        f"## {number}. {part.title}" for number, part in enumerate(page.annex, start=1)
    ]
    assert len(page.annex) == 9
    assert "<b>" not in text.replace("\\<b\\>", "")
    for words in (
        "It draws no",
        "is for the controller to decide",
        "0123456789abcdef",
        "gaussian-noise:std=0.1",
        "malicious server",
    ):
        assert (words in text) == (words != "It draws no"), words
