"""Runs on a Ray cluster: the same table as local processes give, whatever is lost on the way."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from audit_runs import SMALL, install_misbehaving, planned, small_cells, table

from leakgauge import registry
from leakgauge.audit.plan.cell import Cell
from leakgauge.audit.run import ray_cluster
from leakgauge.audit.run.local import run_local
from leakgauge.audit.run.ray_cluster import run_ray
from leakgauge.audit.store.store import Store
from leakgauge.errors import LeakgaugeError

pytest.importorskip("ray", reason="needs the extra leakgauge[ray]")
pytestmark = pytest.mark.timeout(900)
PROCESS = re.compile(r"process (\d+) on ")


@pytest.fixture
def misbehaving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plug-in on this process's path, which a local cluster takes over."""
    monkeypatch.syspath_prepend(str(install_misbehaving(tmp_path / "plug-in")))
    registry._entries.cache_clear()


@pytest.fixture(autouse=True)
def no_cluster_left() -> Iterator[None]:
    import ray

    yield
    ray.shutdown()


def played_locally(folder: Path, cells: list[Cell]) -> list[dict[str, Any]]:
    """The table of an undisturbed run on processes."""
    with planned(folder, cells) as store:
        assert run_local(store, store.pending(), 1, threads=1, device="cpu")
    return table(folder)


def kill_once(store: Store, killed: list[int]) -> None:
    """Kills the worker that was given a cell last."""
    found = [row[0] for row in store.connection.execute("SELECT worker FROM attempts ORDER BY number DESC LIMIT 1")]
    match = PROCESS.match(found[0]) if found else None
    if match and not killed:
        killed.append(int(match[1]))
        os.kill(killed[0], signal.SIGKILL)


@pytest.mark.slow
def test_a_killed_worker_changes_nothing_in_the_table(tmp_path: Path, misbehaving: None) -> None:
    """What plug-ins do to a worker is told as by local processes; a worker that was killed from outside is replaced."""
    cells = small_cells(("linear-layer", "idlg:restarts=1"), indices=2)
    cells += small_cells(("misbehave:how=abort", "misbehave:how=memory", "misbehave:how=raise"), seeds=1)
    cells += small_cells(("linear-layer",), seeds=1, state="trained:rounds=1")
    training = {"data": "demo:digits?indices=10-30&size=8", "lr": 0.5}
    killed: list[int] = []
    with planned(tmp_path / "ray", cells, training=training) as store:
        done = run_ray(store, store.pending(), "local", 2, device="cpu", stopped=lambda: bool(kill_once(store, killed)))
        assert done
        assert len(killed) == 1
        attempts = store.connection.execute("SELECT attempt FROM attempts").fetchall()
        assert len(attempts) >= len(cells) + 3, "the killed worker's cell, and those of two plug-ins, are played twice"
        found = {result.cell.attack: result for result in store.results()[-4:-1]}
    assert {result.status for result in found.values()} == {"failed"}
    assert re.search("Its worker was lost .*in each of 2 attempts", found["misbehave:how=abort"].reason)
    assert "Its worker ran out of memory (DefaultCPUAllocator" in found["misbehave:how=memory"].reason
    assert found["misbehave:how=raise"].reason == "ValueError: a plug-in with a fault"
    with planned(tmp_path / "local", [*cells[:8], cells[-1]], training=training) as store:
        assert run_local(store, store.pending(), 1, threads=1, device="cpu")
    for row in (rows := table(tmp_path / "ray")):
        row["position"] -= 3 if row["position"] > 10 else 0
    assert [*rows[:8], rows[-1]] == table(tmp_path / "local")


@pytest.mark.slow
def test_a_lost_node_changes_nothing_in_the_table(tmp_path: Path) -> None:
    from ray.cluster_utils import Cluster

    cells = small_cells(("linear-layer", "idlg:restarts=1"), indices=2)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    lost: list[Any] = []

    def lose_one() -> bool:
        if not lost and store.counts().get("ok", 0) >= 2:
            lost.append(nodes[0])
            cluster.remove_node(nodes[0], allow_graceful=False)
        return False

    try:
        with planned(tmp_path / "ray", cells) as store:
            assert run_ray(store, store.pending(), cluster.address, 2, device="cpu", stopped=lose_one)
            assert lost
    finally:
        import ray

        ray.shutdown()
        cluster.shutdown()
    assert table(tmp_path / "ray") == played_locally(tmp_path / "local", cells)


def test_a_cluster_that_is_not_there_is_told(tmp_path: Path) -> None:
    with planned(tmp_path, [SMALL]) as store:
        with pytest.raises(LeakgaugeError, match="No Ray cluster can be used at 'auto'"):
            run_ray(store, store.pending(), "auto")
        assert store.counts() == {"pending": 1}


def test_a_missing_extra_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "ray", None)
    with planned(tmp_path, [SMALL]) as store, pytest.raises(LeakgaugeError, match=r"pip install 'leakgauge\[ray\]'"):
        run_ray(store, store.pending(), "local")


def test_workers_of_other_versions_are_refused() -> None:
    own = ray_cluster.versions()
    ray_cluster._check_versions(own, "process 1 on here")
    with pytest.raises(LeakgaugeError, match="The worker process 2 on there has torch 1.0, and this machine has .*same version"):
        ray_cluster._check_versions({**own, "torch": "1.0"}, "process 2 on there")
