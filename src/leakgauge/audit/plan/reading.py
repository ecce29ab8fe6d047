"""`read_audit_plan`: a TOML file into an AuditPlan, checked as a whole before any work; every error is one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from leakgauge.audit.plan.checking import call_problems, grid_problems, value_problems
from leakgauge.audit.plan.materials import material_problems
from leakgauge.audit.plan.shipped import plan_path
from leakgauge.audit.plan.tables import AuditPlan
from leakgauge.audit.toml.sentences import first_problem
from leakgauge.audit.toml.text import Source, changed, read_toml
from leakgauge.errors import OptionError

UNIONS = {"budget": "fast, paper, max or a whole number"}


def read_audit_plan(path: str | Path, settings: Sequence[str] = ()) -> AuditPlan:
    """The plan in a file, or one that comes with the package ('plan:paper/dlg').

    Args:
        path: the TOML file, or 'plan:NAME'.
        settings: changes 'a.b=1', as after --set; values as in TOML, or plain text.

    Raises:
        DataError: if there is no such file, or it is no TOML.
        OptionError: for an unknown key (the nearest is suggested), a missing one, or a value that cannot be; the sentence names
            the key's path and its line.
    """
    file = plan_path(str(path))
    table, source = read_toml(file)
    source = changed(table, source, settings)
    table.setdefault("name", file.stem)
    return parse_audit_plan(table, source)


def parse_audit_plan(table: dict[str, Any], source: Source = Source()) -> AuditPlan:  # noqa: B008 - frozen
    """The plan that a table of tables describes: checked as a whole, and every name in it tried once without work.

    Args:
        table: as TOML has it.
        source: where its keys stand, for the sentences.

    Raises:
        OptionError: as `read_audit_plan`.
    """
    try:
        plan = AuditPlan.model_validate(table)
    except ValidationError as error:
        place, sentence = first_problem(error, AuditPlan, UNIONS)
        raise OptionError(source.at(place) + sentence) from error
    for problems in (value_problems, call_problems, grid_problems, material_problems):
        for place, sentence in problems(plan):
            raise OptionError(source.at(place) + sentence)
    return plan
