"""`leakgauge audit`: what a person sees, files, exit codes, and one sentence for a mistake."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli_run import Leakgauge

import leakgauge as lg
from leakgauge.audit.store.store import Store

PLAN = """
name = "small"
seeds = [0, 1]
data = ["demo:digits?indices=0&size=8"]
models = ["mlp:hidden=8,activation=sigmoid"]
attacks = ["linear-layer", "idlg:restarts=1"]
num_classes = 10
budget = 5

[[expect]]
what = "the closed form is exact"
where = { attacks = "linear-layer" }
measure = "psnr"
statistic = "min"
relation = "at least"
value = 60.0
"""


@pytest.fixture
def plan(own_folder: Path) -> Path:
    path = own_folder / "plan.toml"
    path.write_text(PLAN, encoding="utf-8")
    return path


def times(store: Path) -> list[tuple[str, str]]:
    """When each cell ended."""
    rows = sqlite3.connect(store / "run.sqlite").execute("SELECT key, ended FROM results ORDER BY key")
    return [(key, ended) for key, ended in rows]


def test_a_run_tells_its_verdict_and_the_same_command_plays_nothing_twice(leakgauge: Leakgauge, plan: Path) -> None:
    run = leakgauge("audit", plan, "--store", "run", "--workers", "1", "--html", "page.html", "--json", "page.json")
    assert run.code == 0, run.err
    assert "1 identified" in run.out
    assert "Held: the closed form is exact" in run.out
    assert f"The store: {Path('run').resolve()} (plan " in run.out
    assert "<html" in Path("page.html").read_text(encoding="utf-8")
    assert len(json.loads(Path("page.json").read_text(encoding="utf-8"))["records"]) == 4
    ended = times(Path("run"))
    again = leakgauge("audit", plan, "--store", "run", "--set", "verdict.seed=1", "--fail-if", "identified > 0")
    assert again.code == 1
    assert "Rule broken: identified > 0: private record 1 has identified 1" in again.out
    assert times(Path("run")) == ended
    report = lg.AuditReport.load("run")
    assert report.complete
    assert report.plan["name"] == "small"
    assert [result.status for result in report.results] == ["ok"] * 4
    assert report.results[0].record is not None and report.results[0].record.pictures is not None
    assert report.results[0].record.pictures.frames is None


def test_more_cells_are_added_and_failed_ones_played_again(leakgauge: Leakgauge, plan: Path) -> None:
    assert leakgauge("audit", plan, "--store", "run", "--workers", "1", "--set", "seeds=[0]").code == 0
    ended = dict(times(Path("run")))
    connection = sqlite3.connect("run/run.sqlite")
    connection.execute("UPDATE results SET status = 'failed' WHERE key = ?", (min(ended),))
    connection.commit()
    connection.close()
    assert leakgauge("audit", plan, "--store", "run", "--workers", "1", "--again", "failed").code == 0
    now = dict(times(Path("run")))
    assert len(now) == 4
    assert [key for key in ended if now[key] == ended[key]] == [max(ended)]


def test_an_expectation_that_is_not_held_ends_with_one(leakgauge: Leakgauge, plan: Path) -> None:
    run = leakgauge("audit", plan, "--store", "run", "--workers", "1", "--set", "seeds=[0]", "--set", "expect[0].relation=below")
    assert run.code == 1, run.err
    assert "Not held: the closed form is exact" in run.out


def test_a_dry_run_plays_nothing(leakgauge: Leakgauge, plan: Path) -> None:
    run = leakgauge("audit", plan, "--dry-run", "--store", "run", "--workers", "2")
    assert run.code == 0, run.err
    assert "closed form" in run.out
    assert "4 cells" in run.out
    assert "on 2 workers" in run.out
    assert not Path("run").exists()


def test_the_schema_is_printed(leakgauge: Leakgauge) -> None:
    assert leakgauge("audit", "--schema").json["title"] == "leakgauge audit plan"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--store", "run"), "The plan is missing"),
        (("plan.toml",), "--store is missing"),
        (("none.toml", "--store", "run"), "none.toml"),
        (("plan.toml", "--store", "run", "--set", "budgt=3"), "unknown key 'budgt'"),
        (("plan.toml", "--store", "plan.toml"), "cannot be used (File exists)"),
        (("plan.toml", "--store", "run", "--workers", "0"), "--workers"),
        (("plan.toml", "--store", "run", "--again", "faild"), "--again 'faild' is no status. Did you mean 'failed'?"),
        (("plan.toml", "--store", "run", "--device", "tpu"), "The device 'tpu' cannot be used here"),
        (("plan.toml", "--store", "run", "--fail-if", "psnr"), "The rule 'psnr' cannot be read"),
        (("plan.toml", "--store", "run", "--html", "."), "is a folder"),
        (("plan.toml", "--store", "run", "--ray", ""), "--ray names no address"),
        (("plan.toml", "--store", "run", "--ray", "clusters"), "--ray 'clusters' is no address"),
        (("plan.toml", "--store", "run", "--ray", "localhost:1"), "No Ray cluster can be used at 'localhost:1'"),
    ],
)
def test_a_mistake_is_one_sentence(leakgauge: Leakgauge, plan: Path, arguments: tuple[str, ...], words: str) -> None:
    assert words in leakgauge("audit", *arguments).sentence


def test_a_store_that_cannot_be_used_is_one_sentence(leakgauge: Leakgauge, plan: Path) -> None:
    with Store.open("busy"):
        assert "Another run is at work in 'busy' (process " in leakgauge("audit", plan, "--store", "busy").sentence
    Path("other").mkdir()
    Path("other/run.sqlite").write_text("a diary\n" * 1000, encoding="utf-8")
    assert "is damaged (file is not a database)" in leakgauge("audit", plan, "--store", "other").sentence
    sqlite3.connect("busy/run.sqlite").execute("PRAGMA user_version = 9").connection.close()
    assert "written by a newer leakgauge" in leakgauge("audit", plan, "--store", "busy").sentence


def test_ctrl_c_keeps_what_is_done(plan: Path) -> None:
    slow = [*sys_command(plan), "--workers", "1", "--set", "attacks=['linear-layer', 'idlg']", "--set", "budget=1000000"]
    process = subprocess.Popen(slow, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    began = time.monotonic()
    while time.monotonic() - began < 120 and not list(Path("run/tensors").glob("*.safetensors")):
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, (out, err)
    assert "of 4 cells have ended and are kept in run; the same command continues." in err
    assert err.rstrip().endswith("Stopped.")
    assert "Traceback" not in err
    with Store.open("run", write=False) as store:
        assert store.counts()["ok"] >= 1


def sys_command(plan: Path) -> list[str]:
    """The command in a process of its own, on this package."""
    return [sys.executable, "-m", "leakgauge.cli", "audit", str(plan), "--store", "run", "--device", "cpu"]


def test_a_plain_script_needs_no_guard(plan: Path) -> None:
    """Worker processes begin with their own entry, and not with the caller's file again."""
    script = (
        "import leakgauge as lg\nprint(lg.Audit.from_toml('plan.toml', ['seeds=[0]']).run('run', workers=2).verdict.sentence)\n"
    )
    Path("script.py").write_text(script, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    run = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, check=False, env=environment)
    assert run.returncode == 0, run.stderr
    assert len(run.stdout.splitlines()) == 1
