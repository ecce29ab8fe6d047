"""`leakgauge report` and `leakgauge compare` on the stores that an audit leaves behind."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from grid_examples import grid
from report_examples import one_rebuilt

from leakgauge.audit.audit import AuditReport
from leakgauge.audit.folder import save_record
from leakgauge.audit.run.result import CellResult
from leakgauge.audit.store.store import Store
from leakgauge.cli.app import main
from leakgauge.cli.compare import parse_growth, with_default_rule
from leakgauge.errors import OptionError
from leakgauge.report.reporters import audit_html, audit_json

PLAN = {"name": "ward 7", "data": ["demo:cat"], "models": ["lenet-dlg"], "attacks": ["dlg"], "verdict": {"resamples": 500}}


def kept(folder: Path, results: Sequence[CellResult], ended: int | None = None) -> str:
    with Store.open(folder) as store:
        store.set_plan(PLAN, "0123456789abcdef", [result.cell for result in results])
        for result in results[:ended]:
            store.begin(result.cell.key, "worker-1", 1)
            store.finish(result)
    return str(folder)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    return kept(tmp_path_factory.mktemp("runs") / "one", grid(seeds=1))


@pytest.fixture(scope="module")
def weaker(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same cells, of which those behind the stronger noise were played behind the weaker."""
    results = grid(seeds=1)
    strong, weak = "gaussian-noise:std=0.1", "gaussian-noise:std=0.001"
    played = {(result.cell.data, result.cell.attack): result for result in results if result.cell.defence == weak}
    changed = [
        replace(played[one.cell.data, one.cell.attack], cell=replace(one.cell, defence="gaussian-noise:std=0.01"))
        if one.cell.defence == strong
        else one
        for one in results
    ]
    return kept(tmp_path_factory.mktemp("runs") / "two", changed)


def test_every_file_is_written(run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pyarrow")
    files = {name: str(tmp_path / f"out.{name}") for name in ("html", "json", "csv", "parquet", "latex", "junit", "annex")}
    options = [word for name, file in files.items() for word in (f"--{name}", file)]
    assert main(["report", run, *options]) == 0
    said = capsys.readouterr().out
    for name, file in files.items():
        assert file in said
        assert Path(file).stat().st_size > 500, name
    page = Path(files["html"]).read_text(encoding="utf-8")
    exported: dict[str, Any] = json.loads(Path(files["json"]).read_text(encoding="utf-8"))
    assert "ward 7" in page
    assert "0123456789abcdef" in page
    assert page.count("<img") > 10
    assert [entry["number"] for entry in exported["records"]] == list(range(1, 19))
    assert len(list(csv.DictReader(Path(files["csv"]).read_text(encoding="utf-8").splitlines()))) >= 18


def test_without_a_file_it_prints_what_the_first_page_says(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", run]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "of 4 private records are identified." in said
    assert "Attacks and defences" in said


def test_redaction_holds_for_every_file(run: str, tmp_path: Path) -> None:
    files = [str(tmp_path / name) for name in ("page.html", "out.json", "out.csv", "out.tex", "out.xml", "annex.md")]
    options = [
        "--html",
        files[0],
        "--json",
        files[1],
        "--csv",
        files[2],
        "--latex",
        files[3],
        "--junit",
        files[4],
        "--annex",
        files[5],
    ]
    assert main(["report", run, "--redact", *options]) == 0
    for file in files:
        text = Path(file).read_text(encoding="utf-8")
        for secret in ("scan-", "clinic", "P50"):
            assert secret not in text, (file, secret)


def test_the_reporters_of_the_registry_write_the_same_page(run: str, tmp_path: Path) -> None:
    report = AuditReport.load(run)
    audit_html()(report, tmp_path / "plain.html")
    audit_html(redact=True)(report, tmp_path / "redacted.html")
    audit_json(redact=True)(report, tmp_path / "out.json")
    assert main(["report", run, "--html", str(tmp_path / "again.html")]) == 0
    assert (tmp_path / "plain.html").read_bytes() == (tmp_path / "again.html").read_bytes()
    assert "This page is redacted" in (tmp_path / "redacted.html").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["verdict"]["redacted"] is True


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        ("identified > 0", 1),
        ("incomplete > 0", 0),
        ("failed > 0", 0),
        ("timeout > 0", 1),
        ("psnr > 100", 0),
        ("ssim > 0.5", 1),
        ("unsupported < 0", 0),
    ],
)
def test_rules_over_an_audit(run: str, rule: str, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", run, "--fail-if", rule]) == code
    assert ("Rule broken" in capsys.readouterr().out) == bool(code)


def test_rules_stand_in_the_test_cases(run: str, tmp_path: Path) -> None:
    assert main(["report", run, "--junit", str(tmp_path / "out.xml"), "--fail-if", "identified > 0"]) == 1
    assert 'name="identified &gt; 0"' in (tmp_path / "out.xml").read_text(encoding="utf-8")


def test_an_audit_that_was_stopped_is_reported_as_far_as_it_came(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = grid(seeds=1)
    empty = kept(tmp_path / "empty", results, ended=0)
    assert main(["report", empty]) == 2
    assert "No cell of the audit" in capsys.readouterr().err
    half = kept(tmp_path / "half", results, ended=9)
    assert main(["report", half, "--html", str(tmp_path / "half.html")]) == 0
    assert "9 of the plan have not been played yet" in (tmp_path / "half.html").read_text(encoding="utf-8")


def test_a_folder_of_records_has_tables_and_no_test_cases(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_record(one_rebuilt(), tmp_path / "run")
    assert main(["report", str(tmp_path / "run"), "--csv", str(tmp_path / "out.csv")]) == 0
    assert main(["report", str(tmp_path / "run"), "--junit", str(tmp_path / "out.xml")]) == 2
    assert "expected a folder that `leakgauge audit` wrote" in capsys.readouterr().err
    assert main(["report", str(tmp_path / "nowhere")]) == 2


def test_compare_with_itself_is_empty(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", run, run, "--fail-if"]) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == ["No difference in 18 matched cells.", "No rule broken: worse"]


def test_compare_with_a_weaker_defence_names_what_got_worse(
    run: str, weaker: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, exported = tmp_path / "compared.html", tmp_path / "compared.json"
    assert main(["compare", run, weaker, "--html", str(page), "--json", str(exported)]) == 0
    said = capsys.readouterr().out
    assert "Defence: gaussian-noise:std=0.1 before, gaussian-noise:std=0.01 now." in said
    assert "worse: inverting-gradients, " in said
    assert main(["compare", run, weaker, "--fail-if"]) == 1
    assert main(["compare", run, weaker, "--fail-if", "worse"]) == 1
    assert main(["compare", run, weaker, "--fail-if", "psnr > +3"]) == 1
    assert main(["compare", run, weaker, "--fail-if", "psnr > 40"]) == 0
    assert main(["compare", weaker, run, "--fail-if"]) == 0
    assert json.loads(exported.read_text(encoding="utf-8"))["changes"]
    assert "More leaks now" in page.read_text(encoding="utf-8")


def test_compare_refuses_what_is_no_audit_and_what_is_no_rule(
    run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", run, str(tmp_path)]) == 2
    assert "There is no audit in" in capsys.readouterr().err
    assert main(["compare", run, run, "--fail-if", "speed > 3"]) == 2
    assert "unknown measure" in capsys.readouterr().err
    with pytest.raises(OptionError, match="expected 'worse' or the growth of one of psnr"):
        parse_growth("explains > 0")
    assert str(parse_growth("psnr > +3")) == str(parse_growth("psnr > 3")) == "psnr > +3"
    assert with_default_rule(["compare", "a", "b", "--fail-if", "--html", "x"]) == [
        "compare",
        "a",
        "b",
        "--fail-if",
        "worse",
        "--html",
        "x",
    ]
    assert with_default_rule(["report", "a", "--fail-if"]) == ["report", "a", "--fail-if"]
