"""The axes of a grid in words: what a cell is about, and by what it differs from its neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from leakgauge.audit.plan.cell import Cell

AXES = {
    "data": "Data",
    "model": "Network",
    "state": "State of the model",
    "protocol": "Local training",
    "threat": "Granted to the attacker",
    "defence": "Defence",
    "attack": "Attack",
    "seed": "Seed",
}
FURTHER = {
    "loss": "Loss",
    "num_classes": "Classes",
    "budget": "Budget",
    "time_limit": "Time limit in seconds",
    "decoys": "Look-alikes",
    "prior": "Public data",
}
PLAIN = {"protocol": "one gradient", "threat": "the minimum"}
GRANTS = {
    ("labels", True): "labels known",
    ("labels", False): "labels not known",
    ("batch_norm", True): "BatchNorm statistics seen",
    ("batch_norm", False): "BatchNorm statistics not seen",
}


def axis_text(cell: Cell, axis: str) -> str:
    """One axis of a cell in words."""
    value = getattr(cell, axis)
    if axis in PLAIN:
        return _table(dict(value)) or PLAIN[axis]
    return "none" if value in (None, "") else str(value)


def varying(cells: Sequence[Cell]) -> tuple[str, ...]:
    """The axes on which these cells differ, in the order of a cell's fields."""
    names = (*AXES, *FURTHER)
    return tuple(name for name in names if len({axis_text(cell, name) for cell in cells}) > 1)


def cell_title(cell: Cell, differing: Sequence[str]) -> str:
    """A cell in one phrase: its attack, and whatever tells it from the others."""
    parts = [cell.attack]
    for name in differing:
        text = axis_text(cell, name)
        if name == "defence":
            parts.append("no defence" if text == "none" else f"defence {text}")
        elif name == "seed":
            parts.append(f"seed {text}")
        elif name != "attack":
            parts.append(text)
    return ", ".join(parts)


def axis_name(axis: str) -> str:
    """The heading of an axis."""
    return AXES.get(axis) or FURTHER[axis]


def _table(entries: Mapping[str, Any]) -> str:
    return ", ".join(GRANTS.get((name, value)) or f"{name.replace('_', ' ')} {_value(value)}" for name, value in entries.items())


def _value(value: Any) -> str:
    if isinstance(value, tuple | list):
        return " ".join(map(_value, value))
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)
