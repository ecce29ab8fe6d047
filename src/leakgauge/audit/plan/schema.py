"""`plan_schema`: the JSON Schema of a plan, for editors that complete and check TOML while it is written."""

from __future__ import annotations

import json
from typing import Any

from leakgauge.audit.plan import tables
from leakgauge.audit.plan.tables import AXES, TABLE_AXES, AuditPlan
from leakgauge.audit.simulation.plan import ThreatTable, TrainingTable
from leakgauge.core.callables import LOSSES
from leakgauge.core.threat import ThreatModel
from leakgauge.core.training import DTYPES, OPTIMISERS, LocalTraining

DIALECT = "http://json-schema.org/draft-07/schema#"  # the one that editors of TOML read
NUMBER: dict[str, Any] = {"type": "number"}
NUMBERS: dict[str, Any] = {"type": "array", "items": NUMBER}
WHOLE: dict[str, Any] = {"type": "integer", "minimum": 1}
ABOVE: dict[str, Any] = {"type": "number", "exclusiveMinimum": 0}
LEAST: dict[str, Any] = {"type": "number", "minimum": 0}
SHARE: dict[str, Any] = {"type": "number", "minimum": 0, "exclusiveMaximum": 1}
YES: dict[str, Any] = {"type": "boolean"}
TRAINING: dict[str, dict[str, Any]] = {
    "steps": WHOLE,
    "epochs": WHOLE,
    "batch_size": WHOLE,
    "lr": ABOVE,
    "optimiser": {"enum": list(OPTIMISERS)},
    "momentum": SHARE,
    "nesterov": YES,
    "betas": {**NUMBERS, "minItems": 2, "maxItems": 2},
    "weight_decay": LEAST,
    "schedule": NUMBERS,
    "accumulation": WHOLE,
    "clip_norm": ABOVE,
    "reduction": {"enum": ["mean", "sum"]},
    "label_smoothing": SHARE,
    "class_weights": NUMBERS,
    "proximal": LEAST,
    "shuffle": YES,
    "drop_last": YES,
    "mode": {"enum": ["eval", "train"]},
    "dtype": {"enum": list(DTYPES)},
    "amp": YES,
}


def plan_schema() -> dict[str, Any]:
    """The schema: draft 7, tables closed, with the descriptions of the tables' docstrings."""
    schema = AuditPlan.model_json_schema()
    definitions = schema["$defs"]
    for name in ("TrainingTable", "TrainedTable"):
        for key, kind in TRAINING.items():
            definitions[name]["properties"][key] = dict(kind)
    definitions["Selector"] = _selector()
    properties = schema["properties"]
    properties["exclude"]["items"] = {"$ref": "#/$defs/Selector"}
    expect = definitions["ExpectTable"]["properties"]
    for key in ("where", "versus"):
        expect[key] = {"$ref": "#/$defs/Selector"}
    properties["budget"] = {"anyOf": [{"enum": ["fast", "paper", "max"]}, {"type": "integer", "minimum": 1}], "default": "fast"}
    properties["loss"] = {"enum": list(LOSSES), "default": "cross_entropy"}
    for name in ("TrainingTable", "TrainedTable"):
        _describe(LocalTraining.__doc__, definitions[name])
    _describe(ThreatModel.honest_but_curious.__doc__, definitions["ThreatTable"])
    for table in (
        tables.VerdictTable,
        tables.ResourcesTable,
        tables.TrainedTable,
        tables.ExpectTable,
        ThreatTable,
        TrainingTable,
    ):
        _describe(table.__doc__, definitions[table.__name__])
    _describe(AuditPlan.__doc__, schema)
    plain: dict[str, Any] = json.loads(json.dumps({"$schema": DIALECT, "title": "leakgauge audit plan", **_clean(schema)}))
    return plain


def schema_text() -> str:
    """The schema as the file `plans/plan.schema.json` holds it."""
    return json.dumps(plan_schema(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _selector() -> dict[str, Any]:
    """A table of axis -> entry or entries."""
    references = {"protocols": "#/$defs/TrainingTable", "threats": "#/$defs/ThreatTable"}
    properties: dict[str, Any] = {}
    for axis in AXES:
        entry: dict[str, Any] = (
            {"$ref": references[axis]} if axis in TABLE_AXES else {"type": "integer" if axis == "seeds" else "string"}
        )
        properties[axis] = {"anyOf": [entry, {"type": "array", "items": entry, "minItems": 1}]}
    description = (
        "Which cells are meant: on every axis that is named, one of the entries that are named; '*' stands for any text."
    )
    return {"type": "object", "additionalProperties": False, "properties": properties, "description": description}


def _describe(docstring: str | None, schema: dict[str, Any]) -> None:
    """Puts the docstring's lines about arguments beside the keys, and keeps its first line for the table."""
    first, _, rest = (docstring or "").partition("Args:")
    schema["description"] = " ".join(first.split())
    name = ""
    for line in rest.partition("Raises:")[0].splitlines():
        key, colon, words = line.strip().partition(": ")
        if colon and key in schema["properties"]:
            name = key
            schema["properties"][name]["description"] = words
        elif name and line.strip():
            schema["properties"][name]["description"] += f" {line.strip()}"


def _clean(schema: Any) -> Any:
    """Without titles, which repeat the keys; 'number or null' as number, since TOML has no null."""
    if isinstance(schema, list):
        return [_clean(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: _clean(value) for key, value in schema.items() if not (key == "title" and isinstance(value, str))}
    kinds = [entry for entry in found.get("anyOf", []) if entry != {"type": "null"}]
    if "anyOf" in found and len(kinds) == 1:
        del found["anyOf"]
        found |= {key: value for key, value in kinds[0].items() if key not in found}
        if found.get("default", 0) is None:
            del found["default"]
    return found
