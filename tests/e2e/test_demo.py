"""`leakgauge demo`: the main job, its Ctrl-C, and that its table is what it promises."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest
from e2e_run import Leakgauge, start

from leakgauge.cli.demo_cases import NARROW, NOISE, planned_cases
from leakgauge.cli.demo_text import available
from leakgauge.registry import catalogue


def records(folder: Path) -> list[dict[str, object]]:
    return [json.loads(path.read_text()) for path in (folder / "records").glob("*/record.json")]


@pytest.mark.parametrize("quick", [False, True])
def test_the_table_holds_what_the_demo_promises(quick: bool) -> None:
    cases = [planned.case for planned in planned_cases(quick, seed=3)]
    swept = [case for case in cases if case.series is not None]
    assert len(swept) >= 6
    assert {case.series.name for case in swept if case.series} == {NOISE}
    assert {(case.data, case.attack, case.model) for case in swept} == {(swept[0].data, swept[0].attack, swept[0].model)}
    assert any("demo:face" in str(case.data) for case in cases)
    assert any("retina" in str(case.data) for case in cases)
    assert any(case.attack == "linear-layer" and "size=64" in str(case.data) for case in cases)
    assert {case.seed for case in cases} == {case.attack_seed for case in cases} == {3}
    assert len({case.title for case in cases}) == len(cases)
    written = any("demo:texts" in str(case.data) for case in cases)
    assert written == (available() and "span-check" in {entry.name for entry in catalogue("attacks")})
    solved = [case for case in cases if case.attack == "recursive"]
    assert any(case.model == "cnn6:bias=last" and "size=32" in str(case.data) for case in solved)
    assert any(case.model == NARROW for case in solved), "a first layer that lacks equations"
    assert quick or any(case.model == "cnn6-d:bias=last" for case in solved)
    assert {case.attack.partition(":")[0] for case in cases} <= {entry.name for entry in catalogue("attacks")}


def test_ctrl_c_keeps_what_is_done_and_still_writes_the_page(tmp_path: Path) -> None:
    process = start("demo", "--quick", "--out", tmp_path)
    deadline = time.monotonic() + 60
    while not records(tmp_path) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    sent = time.monotonic()
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert time.monotonic() - sent < 45
    assert "what is done is kept" in err
    assert 1 <= len(records(tmp_path)) < len(planned_cases(True, 0))
    assert "the page holds those" in out
    assert "data:image/png" in (tmp_path / "report.html").read_text()


@pytest.mark.slow
def test_the_quick_demo_rebuilds_pictures_and_says_what_it_cannot(leakgauge: Leakgauge, tmp_path: Path) -> None:
    done = leakgauge("demo", "--quick", "--out", tmp_path / "one", timeout=300)
    assert done.code == 0, done.err
    assert str(tmp_path / "one" / "report.html") in done.out
    held = records(tmp_path / "one")
    assert len(held) == len(planned_cases(True, 0))
    best = sorted(
        (max(score["psnr"] if score["psnr"] != "inf" else 999 for score in record["scores"]), record["title"])
        for record in held
        if "text" not in record["conditions"]
    )
    assert sum(psnr >= 30 for psnr, _ in best) >= 4
    assert any(not record["determinable"] for record in held)
    told = [record for record in held if "text" in record["conditions"]]
    assert len(told) == sum("demo:texts" in str(planned.case.data) for planned in planned_cases(True, 0))
    assert all(record["scores"][0]["exact"] for record in told)
    certain = {record["title"]: record["certified"] for record in held if record["attack"] == "recursive"}
    assert sorted(certain.values()) == [0, 1], certain
    assert "Equations of lenet-dlg on 3 x 32 x 32" in done.out
    page = (tmp_path / "one" / "report.html").read_text()
    assert "What the networks give away by counting" in page
    assert "That is proof" in page
    again = leakgauge("demo", "--quick", "--out", tmp_path / "two", timeout=300)
    assert again.code == 0, again.err
    first, second = ({record["key"]: record["scores"] for record in records(tmp_path / name)} for name in ("one", "two"))
    assert first == second
