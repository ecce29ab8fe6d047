"""Cell: one point of an audit's grid, as plain values that determine its result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from importlib.metadata import version
from typing import Any


@dataclass(frozen=True)
class Cell:
    """One attack on one client's update: everything that determines the record, and nothing else.

    Args:
        data: 'SOURCE:PATH?..' as `load_data` and `load_text` read it.
        model: network by name, as `load_model` reads it.
        attack: 'NAME:k=v,..'.
        seed: of the client's, the defence's and the attack's draws, and of a named network's initial weights.
        state: 'untrained', 'trained:rounds=N,..' or the path of a checkpoint.
        protocol: fields of LocalTraining as sorted (name, value) pairs; values are JSON.
        threat: arguments of `ThreatModel.honest_but_curious`, likewise.
        defence: 'none', or 'NAME:k=v,..', several joined by ' + '.
        loss: by name.
        num_classes: outputs of the network; None for its own default.
        budget: 'fast', 'paper', 'max' or a number of gradient evaluations.
        time_limit: seconds, or None.
        decoys: 'auto', 'none' or data as above: where the line-ups of identification come from.
        prior: public data that priors may use, or ''.
        measures: more measures of pictures, 'NAME:k=v' each.
        fingerprint: hash over the contents of files that the cell reads; '' where it reads none.
    """

    data: str
    model: str
    attack: str
    seed: int
    state: str = "untrained"
    protocol: tuple[tuple[str, Any], ...] = ()
    threat: tuple[tuple[str, Any], ...] = ()
    defence: str = "none"
    loss: str = "cross_entropy"
    num_classes: int | None = None
    budget: str | int = "fast"
    time_limit: float | None = None
    decoys: str = "auto"
    prior: str = ""
    measures: tuple[str, ...] = ()
    fingerprint: str = ""

    @property
    def key(self) -> str:
        """32 hex digits over all fields and the versions of leakgauge and torch: equal cells are played once."""
        return cell_key(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """Strict JSON; `from_json` is the inverse."""
        entries = asdict(self)
        entries["protocol"], entries["threat"] = dict(self.protocol), dict(self.threat)
        return entries

    @staticmethod
    def from_json(entries: Mapping[str, Any]) -> Cell:
        """The cell that `to_json` wrote.

        Raises:
            TypeError: for unknown or missing entries.
        """
        known = {item.name for item in fields(Cell)}
        given = {name: value for name, value in entries.items() if name in known}
        for name in ("protocol", "threat"):
            given[name] = pairs(given.get(name, {}))
        given["measures"] = tuple(given.get("measures", ()))
        return Cell(**given)


def pairs(table: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """A table as sorted pairs, lists as tuples, so that equal tables are equal values."""
    return tuple(sorted((name, tuple(value) if isinstance(value, list) else value) for name, value in table.items()))


def cell_key(entries: Mapping[str, Any]) -> str:
    """The key of a cell given as JSON."""
    content = {"cell": entries, "leakgauge": _version("leakgauge"), "torch": _version("torch")}
    text = json.dumps(content, sort_keys=True, ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@cache
def _version(package: str) -> str:
    return version(package)
