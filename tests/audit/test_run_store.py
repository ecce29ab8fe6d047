"""The store: what is kept survives, what is broken is told in one sentence, and one run writes at a time."""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from audit_runs import SMALL, planned, small_cells, table

from leakgauge.audit.audit import AuditReport
from leakgauge.audit.run.play import play
from leakgauge.audit.run.result import CellResult
from leakgauge.audit.store.store import Store
from leakgauge.audit.verdict.lineup import LineUp
from leakgauge.errors import DataError

VERSION_0 = """
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE cells (
    key TEXT PRIMARY KEY, position INTEGER UNIQUE, data TEXT NOT NULL, model TEXT NOT NULL, state TEXT NOT NULL,
    protocol TEXT NOT NULL, threat TEXT NOT NULL, defence TEXT NOT NULL, attack TEXT NOT NULL, seed INTEGER NOT NULL,
    cell TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE results (
    key TEXT PRIMARY KEY REFERENCES cells (key), status TEXT NOT NULL, reason TEXT NOT NULL, record TEXT,
    line_ups TEXT NOT NULL, seconds REAL NOT NULL, attempt INTEGER NOT NULL, started TEXT NOT NULL, ended TEXT NOT NULL
) WITHOUT ROWID;
"""


@pytest.fixture(scope="module")
def played() -> CellResult:
    """A real result, with line-ups as a far guess and a missing one give them."""
    line_ups = (
        LineUp(0, "ab12", "digit 0", "p7", "mse", 0.25, (0.5, 0.125), ("0a", "0b")),
        LineUp(1, "cd34", "digit 1", "", "mse", math.inf, (math.inf,)),
    )
    return replace(play(SMALL, device="cpu"), line_ups=line_ups, decoys="2 digits")


@pytest.fixture
def readable() -> Iterator[Path]:
    """A folder that another user may enter."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_a_result_comes_back_as_it_was(tmp_path: Path, played: CellResult) -> None:
    cells = [replace(SMALL, seed=3), SMALL]
    with planned(tmp_path, cells) as store:
        assert store.pending() == cells
        store.begin(SMALL.key, "worker 7", 1)
        store.finish(played)
        assert store.pending() == cells[:1]
        assert store.counts() == {"ok": 1, "pending": 1}
    with Store.open(tmp_path, write=False) as store:
        (found,) = store.results(pictures=True)
        assert found.record is not None and played.record is not None
        assert found.record.pictures is not None and played.record.pictures is not None
        assert torch.equal(found.record.pictures.guess, played.record.pictures.guess)
        assert torch.equal(found.record.pictures.truth, played.record.pictures.truth)  # type: ignore[arg-type]
        without = replace(found.record, pictures=None)
        assert repr(without) == repr(replace(played.record, pictures=None))  # repr, since NaN is not equal to itself
        assert (found.cell, found.line_ups, found.decoys) == (SMALL, played.line_ups, "2 digits")
        assert store.results()[0].record.pictures is None  # type: ignore[union-attr]
        assert store.result(SMALL.key).line_ups == played.line_ups
        assert store.plan == {"name": "test"}
        assert store.plan_hash == "0123456789abcdef"
    row = sqlite3.connect(tmp_path / "run.sqlite").execute("SELECT worker, started, ended FROM results").fetchone()
    assert row[0] == "worker 7"
    assert row[1] <= row[2]


def test_a_cell_has_one_result(tmp_path: Path, played: CellResult) -> None:
    with planned(tmp_path, [SMALL]) as store:
        store.finish(played)
        with pytest.raises(DataError, match="UNIQUE"):
            store.finish(replace(played, status="failed", record=None))
        assert store.counts() == {"ok": 1}


def test_results_stay_when_the_plan_changes_and_comes_back(tmp_path: Path, played: CellResult) -> None:
    other = replace(SMALL, seed=9)
    with planned(tmp_path, [SMALL]) as store:
        store.finish(played)
        store.set_plan({"name": "other"}, "1", [other])
        assert store.results() == []
        assert store.pending() == [other]
        with pytest.raises(DataError, match="no result of a cell"):
            store.result(SMALL.key)
        store.set_plan({"name": "both"}, "2", [other, SMALL])
        assert store.cells() == [other, SMALL]
        assert [result.cell for result in store.results()] == [SMALL]
        assert store.pending() == [other]


def test_failures_can_be_forgotten(tmp_path: Path, played: CellResult) -> None:
    cells = small_cells(seeds=3)
    with planned(tmp_path, cells) as store:
        store.finish(replace(played, cell=cells[0]))
        store.finish(CellResult(cells[1], "failed", "it rained"))
        store.finish(CellResult(cells[2], "timeout", "it took long"))
        assert store.forget("failed", "timeout") == 2
        assert store.pending() == cells[1:]
        assert store.forget("failed") == 0


def test_only_one_run_writes_at_a_time(tmp_path: Path, played: CellResult) -> None:
    with planned(tmp_path, [SMALL]) as store:
        store.finish(played)
        with pytest.raises(DataError, match=f"Another run is at work in .*process {os.getpid()} on "):
            Store.open(tmp_path)
        with Store.open(tmp_path, write=False) as reader:
            assert len(reader.results()) == 1
    Store.open(tmp_path).close()


HOLDER = """
import sys, time
from leakgauge.audit.store.store import Store
held = Store.open(sys.argv[1])
print(1, flush=True)
time.sleep(60)
"""


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(DataError, match=f"process {process.pid} on "):
            Store.open(tmp_path)
        process.send_signal(signal.SIGKILL)
    Store.open(tmp_path).close()


def test_a_store_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    planned(tmp_path, [SMALL]).close()
    connection = sqlite3.connect(tmp_path / "run.sqlite")
    connection.execute("PRAGMA user_version = 7")
    connection.close()
    for write in (True, False):
        with pytest.raises(DataError, match="written by a newer leakgauge .its layout is 7, and this one knows 1.; upgrade"):
            Store.open(tmp_path, write)


def test_an_older_store_is_brought_up_to_date(tmp_path: Path, played: CellResult) -> None:
    with planned(tmp_path / "new", [SMALL]) as store:
        store.finish(played)
    old = tmp_path / "old"
    (old / "tensors").mkdir(parents=True)
    tensors = (tmp_path / "new" / "tensors" / f"{SMALL.key}.safetensors").read_bytes()
    (old / "tensors" / f"{SMALL.key}.safetensors").write_bytes(tensors)
    connection = sqlite3.connect(old / "run.sqlite")
    connection.executescript(VERSION_0)
    connection.execute("ATTACH ? AS new", (str(tmp_path / "new" / "run.sqlite"),))
    names = "key, status, reason, record, line_ups, seconds, attempt, started, ended"
    connection.execute("INSERT INTO about SELECT * FROM new.about")
    connection.execute("INSERT INTO cells SELECT * FROM new.cells")
    connection.execute(f"INSERT INTO results ({names}) SELECT {names} FROM new.results")
    connection.commit()
    connection.close()
    before = (old / "run.sqlite").read_bytes()
    with Store.open(old, write=False) as reader:
        assert reader.results(pictures=True)[0].record.pictures is not None  # type: ignore[union-attr]
    assert (old / "run.sqlite").read_bytes() == before, "a reader changes nothing"
    with Store.open(old) as store:
        (found,) = store.results(pictures=True)
        assert found.record is not None and found.record.pictures is not None
        assert (found.line_ups, found.decoys) == (played.line_ups, "")
        store.begin(SMALL.key, "worker 1", 1)
    with Store.open(old) as again:
        assert again.counts() == {"ok": 1}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def spoilt(folder: Path) -> None:
    """All pages but the first are overwritten."""
    content = (folder / "run.sqlite").read_bytes()
    (folder / "run.sqlite").write_bytes(content[:4096] + b"\x07" * (len(content) - 4096))


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda folder: (folder / "run.sqlite").write_bytes(b"holiday pictures" * 300), "is damaged .*file is not a database"),
        (lambda folder: (folder / "run.sqlite").write_bytes(b""), "is damaged .it holds no tables"),
        (lambda folder: (folder / "run.sqlite").unlink(), "There is no run in"),
        (spoilt, "is damaged .database disk image is malformed"),
    ],
    ids=["other", "empty", "gone", "spoilt"],
)
def test_a_damaged_database_is_told(tmp_path: Path, played: CellResult, harm: Callable[[Path], object], words: str) -> None:
    with planned(tmp_path, [SMALL]) as store:
        store.finish(played)
    harm(tmp_path)
    with pytest.raises(DataError, match=words) as told:
        Store.open(tmp_path, write=False).results()
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "harm",
    [
        "UPDATE results SET record = '{\"key\": 3}'",
        "UPDATE results SET record = 'no JSON'",
        "UPDATE results SET line_ups = '[{}]'",
        "UPDATE results SET seconds = 'long'",
        "UPDATE results SET tensor_bytes = 'many'",
        cut,
        Path.unlink,
    ],
)
def test_a_damaged_result_is_told_and_made_anew(tmp_path: Path, played: CellResult, harm: str | Callable[[Path], object]) -> None:
    with planned(tmp_path, [SMALL]) as store:
        store.finish(played)
        if isinstance(harm, str):
            store.connection.execute(harm)
        else:
            harm(tmp_path / "tensors" / f"{SMALL.key}.safetensors")
        with pytest.raises(DataError, match=f"The result of cell {SMALL.key} in .* is damaged .*run again, makes it anew"):
            store.results(pictures=True)
        assert store.drop_damaged() == [SMALL.key]
        assert store.pending() == [SMALL]
        store.finish(played)
        assert store.drop_damaged() == []


@pytest.mark.parametrize("plan", ["[]", "{", '{"data": 3}'])
def test_a_damaged_plan_is_told(tmp_path: Path, played: CellResult, plan: str) -> None:
    with planned(tmp_path, [SMALL]) as store:
        store.finish(played)
        store.connection.execute("UPDATE about SET value = ? WHERE name = 'plan'", (plan,))
    with pytest.raises(DataError, match="The store in .* is damaged .its plan "):
        AuditReport.load(tmp_path)


def test_leftovers_of_a_kill_are_swept(tmp_path: Path) -> None:
    planned(tmp_path, [SMALL]).close()
    (tmp_path / "tensors").mkdir()
    half = tmp_path / "tensors" / f".{SMALL.key}.new"
    half.write_bytes(b"half a file")
    Store.open(tmp_path, write=False).close()
    assert half.exists(), "a reader leaves the files of a run alone"
    Store.open(tmp_path).close()
    assert not half.exists()


def test_a_kill_between_tensors_and_row_loses_only_that_cell(tmp_path: Path, played: CellResult) -> None:
    with planned(tmp_path / "whole", [SMALL]) as store:
        store.finish(played)
    with planned(tmp_path / "killed", [SMALL]) as store:
        (tmp_path / "killed" / "tensors").mkdir()
        (tmp_path / "killed" / "tensors" / f"{SMALL.key}.safetensors").write_bytes(b"of the killed run")
        assert store.pending() == [SMALL]
        store.finish(played)
    assert table(tmp_path / "killed") == table(tmp_path / "whole")


LIMITED = """
import resource, sys
from leakgauge.audit.store.store import Store
from leakgauge.errors import DataError
store = Store.open(sys.argv[1])
(result,) = Store.open(sys.argv[2], write=False).results(pictures=True)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
try:
    store.finish(result)
except DataError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
store.finish(result)
print(store.counts())
"""


@pytest.mark.parametrize("room", [100, 6_000], ids=["tensors", "database"])
def test_a_full_disk_is_told_and_nothing_is_half_written(tmp_path: Path, played: CellResult, room: int) -> None:
    """No file may grow beyond `room` bytes: the tensors of a cell need more than the first, the database than the second."""
    with planned(tmp_path / "from", [SMALL]) as store:
        store.finish(played)
    many = small_cells(seeds=40)
    planned(tmp_path / "to", [SMALL, *many]).close()
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "to"), str(tmp_path / "from"), str(room)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    told, counts = run.stdout.splitlines()
    assert "is the disk full? What is done is kept: make room, and the same command continues." in told
    assert counts == "{'ok': 1, 'pending': 39}"
    assert not list((tmp_path / "to" / "tensors").glob(".*"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_a_folder_that_may_not_be_written_is_told_and_can_be_read(readable: Path, played: CellResult) -> None:
    with planned(readable / "store", [SMALL]) as store:
        store.finish(played)
    (readable / "store").chmod(0o555)

    def as_nobody(work: Callable[[], object]) -> str:
        """What a process without rights says."""
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            try:
                text = str(work())
            except DataError as error:
                text = str(error)
            os.write(writing, text.encode())
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as stream:
            said = stream.read()
        os.waitpid(child, 0)
        return said

    told = as_nobody(lambda: Store.open(readable / "store"))
    assert "cannot be written or opened (Permission denied); give a folder that you may write to." in told
    assert "cannot be written or opened" in as_nobody(lambda: Store.open(readable / "store" / "deeper"))
    assert as_nobody(lambda: len(Store.open(readable / "store", write=False).results(pictures=True))) == "1"


def test_a_path_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be used .File exists"):
        Store.open(tmp_path / "file")


def test_a_key_is_no_way_out_of_the_folder(tmp_path: Path, played: CellResult) -> None:
    with planned(tmp_path, [SMALL]) as store:
        store.finish(played)
        store.connection.execute("PRAGMA foreign_keys = OFF")
        for name in ("cells", "results"):
            store.connection.execute(f"UPDATE {name} SET key = '../../etc/passwd'")
        with pytest.raises(DataError, match="is damaged"):
            store.results(pictures=True)


def test_a_store_is_readable_by_people(tmp_path: Path, played: CellResult) -> None:
    with planned(tmp_path, [SMALL]) as store:
        store.finish(played)
    wanted = "model, attack, defence, seed, status, json_extract(record, '$.scores[0].psnr')"
    row = sqlite3.connect(tmp_path / "run.sqlite").execute(f"SELECT {wanted} FROM cells JOIN results USING (key)")
    model, attack, defence, seed, status, psnr = row.fetchone()
    assert (model, attack, defence, seed, status) == (SMALL.model, "linear-layer", "none", 0, "ok")
    assert played.record is not None
    assert psnr == "inf"
    assert played.record.picture_scores[0].psnr == math.inf
    assert json.loads(table(tmp_path)[0]["cell"]) == SMALL.to_json() | {"measures": []}


def test_writing_a_result_takes_little(tmp_path: Path, played: CellResult) -> None:
    cells = small_cells(seeds=20)
    with planned(tmp_path, cells) as store:
        began = time.monotonic()
        for cell in cells:
            store.begin(cell.key, "worker", 1)
            store.finish(replace(played, cell=cell))
        assert (time.monotonic() - began) / len(cells) < 0.25
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 0
