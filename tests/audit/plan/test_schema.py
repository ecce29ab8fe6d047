"""The JSON Schema agrees with what the reader takes, and its file with the code."""

from __future__ import annotations

import copy
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from audit_plans import plain, table

from leakgauge.audit.plan.reading import parse_audit_plan
from leakgauge.audit.plan.schema import TRAINING, plan_schema, schema_text
from leakgauge.audit.plan.shipped import plans_folder
from leakgauge.audit.simulation.plan import TRAINING_KEYS
from leakgauge.errors import LeakgaugeError


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft7Validator:
    schema = plan_schema()
    jsonschema.Draft7Validator.check_schema(schema)
    return jsonschema.Draft7Validator(schema)


def test_the_file_is_what_the_code_says() -> None:
    held = (plans_folder() / "plan.schema.json").read_text(encoding="utf-8")
    assert held == schema_text(), "write it anew: leakgauge audit --schema > plans/plan.schema.json"


def test_the_schema_knows_every_field_of_local_training() -> None:
    assert set(TRAINING) == set(TRAINING_KEYS)


def test_every_key_is_described(validator: jsonschema.Draft7Validator) -> None:
    keys = validator.schema["properties"]
    bare = [key for key, entry in keys.items() if "description" not in entry]
    assert set(bare) <= {"verdict", "resources", "exclude", "expect"}, bare
    assert all("description" in entry for entry in validator.schema["$defs"].values())


@pytest.mark.parametrize("path", sorted(plans_folder().rglob("*.toml")), ids=lambda path: path.stem)
def test_every_shipped_plan_fits(validator: jsonschema.Draft7Validator, path: Path) -> None:
    validator.validate(tomllib.loads(path.read_text(encoding="utf-8")))


def test_what_the_reader_takes_the_schema_takes(validator: jsonschema.Draft7Validator) -> None:
    validator.validate(table())
    validator.validate(plain(budget=5, time_limit=2.5, exclude=[{"seeds": 0, "data": ["demo:face?size=16"]}]))


@pytest.mark.parametrize(
    "changes",
    [
        {"sedes": [0]}, {"data": None}, {"data": "demo:cat"}, {"seeds": [0.5]}, {"budget": "fsat"}, {"loss": "ce"},
        {"protocols": [{"lr": "x"}]}, {"protocols": [{"mode": "evil"}]}, {"threats": [{"labels": 1}]}, {"time_limit": 0},
        {"verdict": {"false_alarm": 1}}, {"exclude": [{"attack": "x"}]}, {"expect": [{"what": "x"}]}, {"models": []},
        {"training": {"rounds": 3}},
    ],
)  # fmt: skip
def test_what_the_schema_refuses_the_reader_refuses(validator: jsonschema.Draft7Validator, changes: dict[str, Any]) -> None:
    wrong = plain(**changes)
    assert not validator.is_valid(wrong)
    with pytest.raises(LeakgaugeError):
        parse_audit_plan(copy.deepcopy(wrong))
