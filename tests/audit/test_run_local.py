"""Runs on worker processes: whatever an attack does to its process, every cell ends with a status and its reason."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from audit_runs import SMALL, TIMINGS, install_misbehaving, planned, small_cells, table

from leakgauge import registry
from leakgauge.audit.plan.cell import Cell
from leakgauge.audit.run import dispatch
from leakgauge.audit.run.dispatch import Patience, run_cells
from leakgauge.audit.run.local import LocalCrew, run_local
from leakgauge.audit.run.result import CellResult
from leakgauge.audit.store.store import Store
from leakgauge.errors import LeakgaugeError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def misbehaving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The plug-in on this process's path, which its workers take over."""
    place = install_misbehaving(tmp_path / "plug-in")
    monkeypatch.syspath_prepend(str(place))
    registry._entries.cache_clear()
    return place


def play_all(folder: Path, cells: list[Cell], workers: int = 1, **plan: object) -> list[CellResult]:
    """The results of a whole run."""
    with planned(folder, cells, **plan) as store:
        assert run_local(store, store.pending(), workers, device="cpu")
        assert store.pending() == []
        return store.results()


def test_two_workers_and_one_give_the_same_table(tmp_path: Path) -> None:
    cells = small_cells(("linear-layer", "idlg:restarts=1", "control"), indices=2)
    for workers in (1, 2):
        with planned(tmp_path / str(workers), cells) as store:
            assert run_local(store, store.pending(), workers, threads=1, device="cpu")
    one, two = table(tmp_path / "1"), table(tmp_path / "2")
    assert [row["attack"] for row in one] == [cell.attack for cell in cells]
    assert one == two
    with Store.open(tmp_path / "2", write=False) as store:
        assert len({row[0] for row in store.connection.execute("SELECT worker FROM results")}) == 2


DIED_TWICE = {
    "abort": "Its worker was ended by SIGABRT, in each of 2 attempts.",
    "exit": "Its worker ended with exit code 3, in each of 2 attempts.",
    "memory": "Its worker ran out of memory (DefaultCPUAllocator: can't allocate memory",
}
REPORTED = {
    "raise": "ValueError: a plug-in with a fault",
    "nonfinite": "The search ran into values that are not finite.",
}


def test_what_an_attack_does_is_its_own_cells_failure(tmp_path: Path, misbehaving: Path) -> None:
    reasons = DIED_TWICE | REPORTED
    cells = small_cells((*(f"misbehave:how={how}" for how in reasons), "linear-layer"), seeds=1)
    *results, other = play_all(tmp_path / "run", cells, workers=2)
    assert (other.status, other.attempt) == ("ok", 1)
    for (how, reason), result in zip(reasons.items(), results, strict=True):
        assert result.status == "failed", how
        assert reason in result.reason
        assert result.attempt == (2 if how in DIED_TWICE else 1)
        assert (result.record is None) == (how != "nonfinite")


def test_a_worker_that_crashes_once_is_forgiven(tmp_path: Path, misbehaving: Path) -> None:
    attack = f"misbehave:how=abort,once={tmp_path / 'crashed'}"
    (result,) = play_all(tmp_path / "run", small_cells((attack,), seeds=1))
    assert (result.status, result.attempt) == ("ok", 2)
    with Store.open(tmp_path / "run", write=False) as store:
        assert [row[0] for row in store.connection.execute("SELECT attempt FROM attempts ORDER BY number")] == [1, 2]


def test_a_worker_that_takes_too_much_memory_is_stopped(tmp_path: Path, misbehaving: Path) -> None:
    cells = small_cells(("misbehave:how=eat", "linear-layer"), seeds=1)
    eaten, other = play_all(tmp_path / "run", cells, resources={"memory": 1.5})
    assert eaten.status == "failed"
    assert eaten.reason == "Its worker used more than 1.5 GB of memory, in each of 2 attempts."
    assert other.status == "ok"


def test_a_cell_that_hangs_is_a_timeout(tmp_path: Path, misbehaving: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "GRACE", 0.0)
    cells = [replace(cell, time_limit=3.0) for cell in small_cells(("misbehave:how=hang", "linear-layer"), seeds=1)]
    hung, other = play_all(tmp_path / "run", cells, resources={"hang_factor": 2.0})
    assert hung.status == "timeout"
    assert hung.reason == "It did not stop by itself at its time limit of 3 s, and was ended after 6 s."
    assert 6 <= hung.seconds < 30
    assert other.status == "ok"


def test_a_cell_without_a_limit_that_falls_silent_is_a_timeout(tmp_path: Path, misbehaving: Path) -> None:
    with planned(tmp_path, small_cells(("misbehave:how=hang",), seeds=1)) as store:
        crew = LocalCrew(1, device="cpu")
        assert run_cells(store, store.pending(), crew, 1, patience=Patience(silence=2.0))
        (result,) = store.results()
    assert result.status == "timeout"
    assert result.reason == "It was ended after 2 s without any progress."


def test_statuses_say_what_became_of_a_cell(tmp_path: Path) -> None:
    cells = [
        replace(SMALL, attack="recursive", data="demo:digits?indices=0-1&size=8"),
        replace(SMALL, attack="no-such-attack"),
        replace(SMALL, defence="gaussian-noise:std=-1"),
        replace(SMALL, state="nowhere.safetensors"),
        replace(SMALL, attack="idlg", budget=100_000, time_limit=0.01),
        replace(SMALL, attack="control"),
        replace(SMALL, state="trained:rounds=1"),
    ]
    found = play_all(tmp_path, cells)
    assert [result.status for result in found] == [
        "unsupported", "failed", "failed", "failed", "timeout", "underdetermined", "failed",
    ]  # fmt: skip
    assert "There is no attack 'no-such-attack'" in found[1].reason
    assert "std" in found[2].reason
    assert "There is no file nowhere.safetensors" in found[3].reason
    assert "needs data to train on" in found[6].reason
    assert all(result.reason for result in found)
    assert [result.record is None for result in found] == [False, True, True, True, False, False, True]


@pytest.mark.slow  # it takes time, and needs a machine that is not busy
def test_two_workers_work_side_by_side(tmp_path: Path, misbehaving: Path) -> None:
    """Cells that wait need no core, so that the machine's load does not count."""
    cells = small_cells(("misbehave:how=wait,seconds=1.5",), seeds=6)
    spans = []
    for workers in (1, 2):
        with planned(tmp_path / str(workers), cells) as store:
            assert run_local(store, store.pending(), workers, device="cpu")
            began, ended = store.connection.execute("SELECT min(started), max(ended) FROM results").fetchone()
        spans.append((datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds())
    assert spans[0] >= 9.0
    assert spans[0] / spans[1] >= 1.5


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_forty_eight_cells_and_twenty_kills(tmp_path: Path) -> None:
    """The command itself, killed at random instants, and once more on Ray with a killed worker."""
    pytest.importorskip("ray", reason="needs the extra leakgauge[ray]")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-m", "benchmarks.audit_kill", "--ray"]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "| killed | 20 | 48 | 48 | yes | 0 | yes |" in run.stdout


def test_a_stop_keeps_what_is_done_and_the_rest_follows(tmp_path: Path, misbehaving: Path) -> None:
    cells = small_cells(("linear-layer", "misbehave:how=wait,seconds=1"), seeds=2)
    with planned(tmp_path / "run", cells) as store:
        assert not run_local(store, store.pending(), 1, device="cpu", stopped=lambda: "ok" in store.counts())
        assert 1 <= store.counts()["ok"] < len(cells)
        told: list[float] = []
        assert run_local(store, store.pending(), 1, device="cpu", tell=lambda share, _: told.append(share))
        assert store.counts() == {"ok": len(cells)}
    assert told[-1] == 1.0
    assert min(told) >= 0.0


def test_workers_that_do_not_start_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leakgauge.audit.run.local.BOOT", "raise SystemExit('no torch in sight')")
    with planned(tmp_path, [SMALL]) as store:
        with pytest.raises(
            LeakgaugeError, match="Worker processes do not start: each ended with exit code 1 .no torch in sight."
        ):
            run_local(store, store.pending(), 1)
        assert store.counts() == {"pending": 1}


def test_a_trained_state_is_trained_once_and_kept(tmp_path: Path) -> None:
    training = {"data": "demo:digits?indices=10-40&size=8", "lr": 0.5, "epochs": 2, "validation": 5, "clients": 2}
    cells = small_cells(("linear-layer", "idlg:restarts=1"), seeds=1, state="trained:rounds=2")
    results = play_all(tmp_path, cells, training=training)
    assert [result.status for result in results] == ["ok", "ok"]
    assert results[0].record is not None
    assert results[0].record.conditions.model_state.startswith("trained here for 2 rounds (")
    (state,) = (tmp_path / "states").iterdir()
    assert f"--weights states/{state.name}" in results[0].record.reproduce
    stamp = state.stat().st_mtime_ns
    with Store.open(tmp_path) as store:
        store.forget("ok")
        assert run_local(store, store.pending(), 1, device="cpu")
        assert [repr(result.record)[:200] for result in store.results()] == [repr(result.record)[:200] for result in results]
    assert state.stat().st_mtime_ns == stamp


RUN = """
import sys
from leakgauge.audit.run.local import run_local
from leakgauge.audit.store.store import Store
with Store.open(sys.argv[1]) as store:
    run_local(store, store.pending(), 2, threads=1, device="cpu")
"""


def children(process: int) -> list[int]:
    """Processes that a process has started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == process and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


def ends_within(seconds: float, holds: Callable[[], bool]) -> bool:
    """Whether something comes to hold in time."""
    began = time.monotonic()
    while not holds():
        if time.monotonic() - began > seconds:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_killed_at_any_instant_it_loses_and_doubles_nothing(tmp_path: Path) -> None:
    cells = small_cells(("linear-layer", "idlg:restarts=1"), seeds=2, indices=2)
    for name in ("whole", "killed"):
        planned(tmp_path / name, cells).close()
    whole, killed = ([sys.executable, "-c", RUN, str(tmp_path / name)] for name in ("whole", "killed"))
    subprocess.run(whole, check=True)
    for wanted in (1, 3, 5):
        process = subprocess.Popen(killed)
        database = tmp_path / "killed" / "tensors"
        assert ends_within(120, lambda: process.poll() is not None or len(list(database.glob("*"))) >= wanted)  # noqa: B023
        workers = children(process.pid)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert workers or process.returncode == 0
        assert ends_within(10, lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers)), "a worker lives on"  # noqa: B023
    with Store.open(tmp_path / "killed", write=False) as store:
        done = store.counts().get("ok", 0)
        assert done >= 4
    subprocess.run(killed, check=True)
    assert table(tmp_path / "killed") == table(tmp_path / "whole")
    with Store.open(tmp_path / "killed", write=False) as store:
        query = "SELECT count(*) FROM attempts JOIN results USING (key) WHERE attempts.started > results.ended"
        assert store.connection.execute(query).fetchone()[0] == 0, "a cell that had ended was played again"
        assert store.counts() == {"ok": len(cells)}


def test_the_timings_that_are_left_out_are_columns() -> None:
    """`table` must not compare less than it says."""
    from leakgauge.audit.store.schema import TABLES

    results = TABLES.partition("CREATE TABLE results")[2]
    assert all(f" {name} " in results for name in TIMINGS)
