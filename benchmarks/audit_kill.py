"""`python -m benchmarks.audit_kill`: an audit killed with SIGKILL at random instants, against one that nobody disturbed.

Plays 48 cells on two workers to the end; then the same plan again, its process killed 20 times and started anew each time, and
once more to the end. Compares every row and every tensor of the two stores without timings, and looks for cells that were
played after they had ended. With --ray the same plan on a local Ray cluster, one of whose workers is killed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.common import machine, table

PLAN = """
name = "killed"
seeds = {seeds}
data = ["demo:digits?indices=0&size=16", "demo:digits?indices=1&size=16", "demo:digits?indices=2-3&size=16"]
models = ["lenet-dlg", "mlp:hidden=64,activation=sigmoid"]
num_classes = 10
attacks = ["linear-layer", "idlg:restarts=1"]
defences = ["none", "gaussian-noise:std=1e-3"]
budget = 60
"""
TIMINGS = ("seconds", "started", "ended", "worker", "attempt")


def command(plan: Path, store: Path, *further: str) -> list[str]:
    """The audit as a person would type it."""
    return [sys.executable, "-m", "leakgauge.cli", "audit", str(plan), "--store", str(store), "--device", "cpu", *further]


def rows_of(store: Path) -> list[dict[str, Any]]:
    """Every result with its tensors, without what depends on the clock."""
    connection = sqlite3.connect(store / "run.sqlite")
    connection.row_factory = sqlite3.Row
    query = "SELECT * FROM cells JOIN results USING (key) WHERE position NOT NULL ORDER BY position"
    rows = [dict(row) for row in connection.execute(query)]
    connection.close()
    for row in rows:
        for name in TIMINGS:
            del row[name]
        row["record"] = {key: value for key, value in json.loads(row["record"] or "{}").items() if key != "seconds"}
        file = store / "tensors" / f"{row['key']}.safetensors"
        row["tensors"] = file.read_bytes() if row["tensor_bytes"] else b""
    return rows


def played_after_its_end(store: Path) -> int:
    """Attempts at cells that had a result already."""
    connection = sqlite3.connect(store / "run.sqlite")
    query = "SELECT count(*) FROM attempts JOIN results USING (key) WHERE attempts.started > results.ended"
    found = int(connection.execute(query).fetchone()[0])
    connection.close()
    return found


def ended_in(store: Path) -> int:
    """Cells with a result."""
    if not (store / "run.sqlite").is_file():
        return 0
    connection = sqlite3.connect(store / "run.sqlite", timeout=30)
    try:
        return int(connection.execute("SELECT count(*) FROM results").fetchone()[0])
    except sqlite3.OperationalError:  # killed before the tables were there
        return 0
    finally:
        connection.close()


def killed_at_random(plan: Path, store: Path, kills: int, workers: int, draw: random.Random) -> list[int]:
    """Kills the run again and again, in turn while it starts up and while cells end; how many had ended after each kill."""
    counts: list[int] = []
    while len(counts) < kills:
        wanted = ended_in(store) + draw.choice((0, 1, 1, 2))
        delay = draw.uniform(0.0, 1.8 if wanted == ended_in(store) else 0.1)
        process = quietly(command(plan, store, "--workers", str(workers)))
        while process.poll() is None and ended_in(store) < wanted:
            time.sleep(0.01)
        try:
            process.wait(delay)
            sys.exit("The run ended before it was killed: give more --seeds.")
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        counts.append(ended_in(store))
        print(f"kill {len(counts)}: {counts[-1]} cells have ended", file=sys.stderr, flush=True)
    return counts


def quietly(arguments: list[str]) -> subprocess.Popen[bytes]:
    """A process whose words nobody reads."""
    return subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def with_a_killed_actor(plan: Path, store: Path) -> int:
    """Plays the plan on a local Ray cluster and kills the first worker that is given a cell; its process."""
    process = quietly(command(plan, store, "--ray", "local"))
    killed = 0
    while process.poll() is None:
        time.sleep(0.2)
        if killed or ended_in(store) < 3:
            continue
        connection = sqlite3.connect(store / "run.sqlite", timeout=30)
        (worker,) = connection.execute("SELECT worker FROM attempts ORDER BY number DESC LIMIT 1").fetchone()
        connection.close()
        found = re.match(r"process (\d+) on ", worker)
        if found:
            killed = int(found[1])
            os.kill(killed, signal.SIGKILL)
    return killed


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=2, help="24 cells for each")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--draw", type=int, default=0, help="seed of the instants")
    parser.add_argument("--ray", action="store_true", help="also on a local Ray cluster, with a killed worker")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        plan, whole, killed, ray = (Path(folder) / name for name in ("plan.toml", "whole", "killed", "ray"))
        plan.write_text(PLAN.format(seeds=list(range(given.seeds))), encoding="utf-8")
        began = time.monotonic()
        workers = ("--workers", str(given.workers))
        subprocess.run(command(plan, whole, *workers), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        undisturbed = time.monotonic() - began
        counts = killed_at_random(plan, killed, given.kills, given.workers, random.Random(given.draw))
        subprocess.run(command(plan, killed, *workers), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        expected = rows_of(whole)
        found = [("killed", given.kills, rows_of(killed), played_after_its_end(killed))]
        if given.ray:
            kills = int(with_a_killed_actor(plan, ray) > 0)
            found.append(("Ray, one worker killed", kills, rows_of(ray), played_after_its_end(ray)))
        lines = []
        for name, kills, rows, double in found:
            same = rows == expected
            held = same and kills > 0 and double == 0 and len({row["key"] for row in rows}) == len(expected)
            lines.append([name, kills, len(expected), len(rows), "yes" if same else "NO", double, "yes" if held else "NO"])
        print(f"{machine()}; {undisturbed:.0f} s undisturbed; cells that had ended after each kill: {counts}\n")
        print(table(("run", "kills", "cells", "results", "same table", "played twice after their end", "holds"), lines))
        return int(any(line[-1] == "NO" for line in lines))


if __name__ == "__main__":
    sys.exit(main())
