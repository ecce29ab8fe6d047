"""What the tests of runs share: small cells, a plug-in that misbehaves, and the table of a store without its timings."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from leakgauge.audit.plan.cell import Cell
from leakgauge.audit.store.store import Store

MODEL = "mlp:hidden=8,activation=sigmoid"
SMALL = Cell(
    data="demo:digits?indices=0&size=8", model=MODEL, attack="linear-layer", seed=0, num_classes=10, budget=5, decoys="none"
)
TIMINGS = ("seconds", "started", "ended", "worker", "attempt")


def small_cells(attacks: Sequence[str] = ("linear-layer",), seeds: int = 2, indices: int = 1, **given: Any) -> list[Cell]:
    """Cells of an 8x8 digit and a network of 8 hidden units."""
    return [
        replace(SMALL, attack=attack, seed=seed, data=f"demo:digits?indices={index}&size=8", **given)
        for index in range(indices)
        for attack in attacks
        for seed in range(seeds)
    ]


def planned(folder: Path, cells: Sequence[Cell], **plan: Any) -> Store:
    """A store in which these cells are to be played."""
    store = Store.open(folder)
    store.set_plan({"name": "test", **plan}, "0123456789abcdef", cells)
    return store


def install_misbehaving(folder: Path) -> Path:
    """The plug-in package in a folder that can be put on the path."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(Path(__file__).with_name("misbehaving.py"), folder)
    place = folder / "misbehaving-0.1.dist-info"
    place.mkdir()
    (place / "METADATA").write_text("Metadata-Version: 2.1\nName: misbehaving\nVersion: 0.1\n", encoding="utf-8")
    (place / "entry_points.txt").write_text("[leakgauge.attacks]\nmisbehave = misbehaving:misbehave\n", encoding="utf-8")
    return folder


def table(folder: Path) -> list[dict[str, Any]]:
    """All results of a store's plan, tensors included, without anything that depends on the clock."""
    connection = sqlite3.connect(folder / "run.sqlite")
    connection.row_factory = sqlite3.Row
    query = "SELECT * FROM cells JOIN results USING (key) WHERE position NOT NULL ORDER BY position"
    rows = [dict(row) for row in connection.execute(query)]
    connection.close()
    for row in rows:
        for name in TIMINGS:
            del row[name]
        if row["record"] is not None:
            row["record"] = {key: value for key, value in json.loads(row["record"]).items() if key != "seconds"}
        path = folder / "tensors" / f"{row['key']}.safetensors"
        row["tensors"] = path.read_bytes() if row["tensor_bytes"] else b""
    return rows
