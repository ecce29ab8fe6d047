"""`cells_of`: the cells of a plan, in order, each with all that determines its result."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
from collections.abc import Sequence
from typing import Any

from leakgauge.audit.plan.cell import Cell, pairs
from leakgauge.audit.plan.fingerprint import Fingerprints
from leakgauge.audit.plan.selector import matches
from leakgauge.audit.plan.tables import AXES, AuditPlan, defence_calls, training_of
from leakgauge.audit.simulation.plan import ThreatTable, TrainingTable
from leakgauge.core.training import LocalTraining
from leakgauge.errors import OptionError

MOST_CELLS = 100_000
MOST_STEPS = 1_000_000
NUMBERS = ("lr", "momentum", "weight_decay", "clip_norm", "label_smoothing", "proximal")


def cells_of(plan: AuditPlan) -> tuple[Cell, ...]:
    """Every cell once, in the order data, model, state, protocol, threat, defence, attack, seed.

    Raises:
        LeakgaugeError: if a file that a cell reads is not there.
    """
    prints = Fingerprints(plan)
    return tuple(dataclasses.replace(cell, fingerprint=prints.of(cell)) for cell in grid_of(plan))


def grid_of(plan: AuditPlan) -> tuple[Cell, ...]:
    """The cells without fingerprints, as far as [[exclude]] leaves them in; no file is read."""
    axes: list[list[Any]] = [[], [], [], [], [], [], [], []]
    for at, axis in enumerate(AXES):
        for entry in getattr(plan, axis):
            axes[at].append(_entry(entry))
    common: dict[str, Any] = {
        "loss": plan.loss,
        "num_classes": plan.num_classes,
        "budget": plan.budget,
        "time_limit": plan.time_limit,
        "decoys": plan.decoys.strip(),
        "prior": plan.prior.strip(),
        "measures": tuple(text.strip() for text in plan.measures),
    }
    found: dict[Cell, None] = {}
    for data, model, state, protocol, threat, defence, attack, seed in itertools.product(*axes):
        cell = Cell(
            data=data,
            model=model,
            attack=attack,
            seed=seed,
            state=state,
            protocol=protocol,
            threat=threat,
            defence=" + ".join(defence_calls(defence)) or "none",
            **common,
        )
        if not any(matches(selector, cell) for selector in plan.exclude):
            found[cell] = None
    return tuple(found)


def count_of(plan: AuditPlan) -> int:
    """Combinations of the axes' entries, before any is left out."""
    return math.prod(len(getattr(plan, axis)) for axis in AXES)


def plan_hash(plan: AuditPlan, cells: Sequence[Cell]) -> str:
    """16 hex digits over the plan and the keys of its cells."""
    content = [plan.to_json(), [cell.key for cell in cells]]
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()[:16]


def protocol_of(table: TrainingTable) -> tuple[tuple[str, Any], ...]:
    """The fields of LocalTraining that differ from their default, as a cell holds them: equal training, equal protocol.

    Raises:
        OptionError: for a value out of range.
    """
    training = training_of(table)
    given = {item.name: getattr(training, item.name) for item in dataclasses.fields(LocalTraining)}
    for name in NUMBERS:
        if given[name] is not None:
            given[name] = float(given[name])
    for name in ("steps", "epochs", "batch_size", "accumulation"):
        if given[name] is not None and given[name] > MOST_STEPS:
            raise OptionError(f"{name} is {given[name]}; expected at most {MOST_STEPS}.")
    for name in ("schedule", "class_weights"):
        if given[name] is not None and not all(map(math.isfinite, given[name])):
            raise OptionError(f"{name} is {list(given[name])}; expected finite numbers.")
    return pairs({item.name: given[item.name] for item in dataclasses.fields(LocalTraining) if given[item.name] != item.default})


def threat_of(table: ThreatTable) -> tuple[tuple[str, Any], ...]:
    """What is granted otherwise than by default, as a cell holds it."""
    default = ThreatTable().model_dump()
    return pairs({name: value for name, value in table.model_dump().items() if value != default[name]})


def _entry(entry: Any) -> Any:
    if isinstance(entry, TrainingTable):
        return protocol_of(entry)
    if isinstance(entry, ThreatTable):
        return threat_of(entry)
    return entry.strip() if isinstance(entry, str) else entry
