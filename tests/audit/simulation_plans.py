"""Small plans for the tests of simulations: seconds each, on bundled pictures."""

from __future__ import annotations

import copy
from typing import Any

from leakgauge.audit.plan_file import parse_plan
from leakgauge.audit.simulation.plan import SimulationPlan

TINY: dict[str, Any] = {
    "name": "tiny",
    "model": "lenet-dlg:width=4",
    "input": "1x16x16",
    "classes": 2,
    "rounds": 2,
    "data": {"validation": 10, "public": 4},
    "training": {"lr": 0.05},
    "clients": [{"name": "single", "examples": 1}, {"name": "site", "count": 2, "examples": 3}],
    "attack": {"with": ["inverting-gradients:restarts=1"], "budget": 12},
}


def tiny(**changes: Any) -> SimulationPlan:
    """The tiny plan with changes; 'attack.budget' and the like are written attack__budget."""
    return parse_plan(table(**changes))


def table(**changes: Any) -> dict[str, Any]:
    """The tiny plan as a table of tables."""
    found = copy.deepcopy(TINY)
    for key, value in changes.items():
        place, parts = found, key.split("__")
        for part in parts[:-1]:
            place = place.setdefault(part, {})
        place["with" if parts[-1] == "attacks" else parts[-1]] = value
    return found
