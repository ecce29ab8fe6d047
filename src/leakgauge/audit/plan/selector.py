"""Selectors: which cells a table of axis -> entry means, in [[exclude]] and [[expect]]."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from leakgauge.audit.plan.cell import Cell
from leakgauge.audit.plan.tables import AXES, TABLE_AXES, AuditPlan
from leakgauge.audit.simulation.plan import ThreatTable
from leakgauge.audit.toml.sentences import path_of, shown
from leakgauge.core.training import LocalTraining
from leakgauge.errors import did_you_mean

FIELDS = {
    "data": "data",
    "models": "model",
    "states": "state",
    "protocols": "protocol",
    "threats": "threat",
    "defences": "defence",
    "attacks": "attack",
    "seeds": "seed",
}
PROTOCOL_FIELDS = tuple(item.name for item in dataclasses.fields(LocalTraining))


def matches(selector: Mapping[str, Any], cell: Cell) -> bool:
    """Whether a cell has, on every axis that is named, one of the entries that are named."""
    return all(_any(axis, entries, cell) for axis, entries in selector.items())


def selector_problems(plan: AuditPlan, selector: Mapping[str, Any], place: tuple[int | str, ...]) -> Iterator[tuple[Any, str]]:
    """(place, sentence) for every axis that is none, and every entry that no cell can have."""
    for axis, entries in selector.items():
        where = (*place, axis)
        if axis not in AXES:
            yield where, f"{path_of(place)} has the unknown key {axis!r}.{did_you_mean(axis, AXES)}"
            continue
        if isinstance(entries, list) and not entries:
            yield where, f"{path_of(where)} is empty; expected at least one entry."
        for entry in entries if isinstance(entries, list) else [entries]:
            problem = _entry_problem(plan, axis, entry)
            if problem:
                yield where, f"{path_of(where)} has {shown(entry)}; {problem}"


def _entry_problem(plan: AuditPlan, axis: str, entry: Any) -> str:
    """What is wrong with one entry, as the end of a sentence; '' where nothing is."""
    if axis in TABLE_AXES:
        known = PROTOCOL_FIELDS if axis == "protocols" else tuple(ThreatTable.model_fields)
        if not isinstance(entry, dict):
            return f"expected a table such as {{ {'lr = 0.1' if axis == 'protocols' else 'labels = true'} }}."
        wrong = next((key for key in entry if key not in known), None)
        return "" if wrong is None else f"there is no field {wrong!r}.{did_you_mean(wrong, known)}"
    if axis == "seeds":
        held = entry in plan.seeds and not isinstance(entry, bool)
        return "" if held else f"expected one of the plan's seeds: {shown(plan.seeds)}."
    if not isinstance(entry, str):
        return "expected text in quotes."
    listed = [text.strip() for text in getattr(plan, axis)]
    if any(_same_text(entry, text) for text in listed):
        return ""
    return f"the plan's {axis} have no such entry.{did_you_mean(entry, listed)}"


def _any(axis: str, entries: Any, cell: Cell) -> bool:
    held = getattr(cell, FIELDS[axis])
    return any(_one(axis, entry, held) for entry in (entries if isinstance(entries, list) else [entries]))


def _one(axis: str, entry: Any, held: Any) -> bool:
    if axis == "protocols":
        return _subset(entry, dataclasses.asdict(LocalTraining(**dict(held))))
    if axis == "threats":
        return _subset(entry, ThreatTable(**dict(held)).model_dump())
    return bool(entry == held) if axis == "seeds" else _same_text(entry, held)


def _subset(entry: Mapping[str, Any], held: Mapping[str, Any]) -> bool:
    return all((tuple(value) if isinstance(value, list) else value) == held.get(name) for name, value in entry.items())


def _same_text(pattern: str, text: str) -> bool:
    """Equality, where '*' stands for any text."""
    first, *others = pattern.strip().split("*")
    if not others:
        return first == text
    if not text.startswith(first):
        return False
    at = len(first)
    for part in others[:-1]:
        found = text.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return len(text) - len(others[-1]) >= at and text.endswith(others[-1])
