"""`python -m benchmarks.audit_run`: what an audit costs beside its attacks, and what a second worker gains.

Overhead: cells of a closed form on one worker; the time from the first cell's end to the last one's, less the seconds that the
attacks themselves took, for each cell (limit: 0.5 s). Gain: equal cells of a search on one worker and on two, from the first
cell's start to the last one's end (limit: 1.7). The start of workers is left out of both, and told apart.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from benchmarks.common import machine, table
from leakgauge.audit.plan.cell import Cell
from leakgauge.audit.run.local import run_local
from leakgauge.audit.store.store import Store

CELL = Cell(data="demo:cat?size=32", model="lenet-dlg", attack="linear-layer", seed=0, num_classes=10)
CLOSED = replace(CELL, model="mlp:hidden=64,activation=sigmoid", data="demo:digits?indices=0&size=16")
SEARCH = replace(CELL, attack="inverting-gradients:restarts=1", budget=150)
OVERHEAD, GAIN = 0.5, 1.7
Run = Callable[[Store, int], object]


def on_processes(store: Store, workers: int) -> object:
    """Local worker processes."""
    return run_local(store, store.pending(), workers, threads=1, device="cpu")


def on_ray(store: Store, workers: int) -> object:
    """Actors of a local Ray cluster."""
    from leakgauge.audit.run.ray_cluster import run_ray

    return run_ray(store, store.pending(), "local", workers, threads=1, device="cpu")


def played(run: Run, cells: list[Cell], workers: int) -> tuple[float, float, float, float]:
    """Seconds until the first cell began, from there to the last end, from the first end to the last, and of the attacks that
    ended after the first."""
    with tempfile.TemporaryDirectory() as folder, Store.open(folder) as store:
        store.set_plan({"name": "timing"}, "", cells)
        called = time.time()
        run(store, workers)
        results = store.results()
        problems = [result.reason for result in results if result.record is None]
        if problems:
            sys.exit(problems[0])
        rows = store.connection.execute("SELECT key, started, ended FROM results ORDER BY ended").fetchall()
        began = min(_seconds(row[1]) for row in rows)
        ends = [_seconds(row[2]) for row in rows]
        first = rows[0][0]
        attacks = sum(result.record.seconds for result in results if result.record and result.cell.key != first)
        return began - called, ends[-1] - began, ends[-1] - ends[0], attacks


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cells", type=int, default=60, help="closed forms, for the overhead")
    parser.add_argument("--searches", type=int, default=24, help="equal searches, for the gain")
    parser.add_argument("--no-ray", action="store_true")
    given = parser.parse_args()
    kinds: list[tuple[str, Run]] = [("processes", on_processes)] + ([] if given.no_ray else [("Ray, local", on_ray)])
    lines, held = [], True
    for name, run in kinds:
        for cell in (CLOSED, replace(CLOSED, model=CELL.model, attack="control")):
            cells = [replace(cell, seed=seed) for seed in range(given.cells)]
            start, _, span, attacks = played(run, cells, 1)
            overhead = (span - attacks) / (len(cells) - 1)
            held &= overhead <= OVERHEAD
            lines.append([name, f"{cell.attack}, {cell.model}", len(cells), f"{start:.1f}", f"{attacks:.2f}", f"{overhead:.3f}"])
    print(f"{machine()}\n")
    print(table(("run on", "cells of", "cells", "start (s)", "attacks (s)", "overhead per cell (s)"), lines))
    lines = []
    for name, run in kinds:
        cells = [replace(SEARCH, seed=seed) for seed in range(given.searches)]
        one, two = (played(run, cells, workers)[1] for workers in (1, 2))
        held &= one / two >= GAIN
        lines.append([name, len(cells), f"{one:.1f}", f"{two:.1f}", f"{one / two:.2f}"])
    print("\n" + table(("run on", "cells", "one worker (s)", "two workers (s)", "gain"), lines))
    return int(not held)


if __name__ == "__main__":
    sys.exit(main())
