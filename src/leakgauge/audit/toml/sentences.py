"""What pydantic found wrong with a table, as one sentence with the key's path."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from leakgauge.audit.toml.lines import Place
from leakgauge.errors import did_you_mean

EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text in quotes",
    "bool_type": "true or false",
    "list_type": "a list, in brackets",
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
    "too_short": "at least one entry",
    "string_too_short": "some text",
}
BOUNDS = {
    "greater_than_equal": ("ge", ">="),
    "greater_than": ("gt", ">"),
    "less_than_equal": ("le", "<="),
    "less_than": ("lt", "<"),
}
UNION = ("str", "int", "float", "list[str]")  # how pydantic names the members of 'str | int' in a place


def first_problem(
    error: ValidationError, plan: type[BaseModel], unions: Mapping[str, str], order: Iterable[str] = ()
) -> tuple[Place, str]:
    """The place and the sentence of one problem: unknown keys before others, since they are the likely cause of missing ones.

    Args:
        error: what pydantic raised.
        plan: the class that was to be read.
        unions: what is expected at paths that take several kinds of values.
        order: keys whose problems are told first, such as those that give the others a meaning.
    """
    first = list(order)

    def rank(entry: Any) -> tuple[bool, int]:
        head = str(entry["loc"][0]) if entry["loc"] else ""
        return entry["type"] != "extra_forbidden", first.index(head) if head in first else len(first)

    found = sorted(error.errors(include_url=False), key=rank)[0]
    place, kind, value = tuple(found["loc"]), found["type"], found.get("input")
    if kind == "extra_forbidden":
        holder, key = path_of(place[:-1]) or "The plan", str(place[-1])
        return place, f"{holder} has the unknown key {key!r}.{did_you_mean(key, _keys(plan, place[:-1]))}"
    if kind == "missing":
        return place, f"{path_of(place[:-1]) or 'The plan'} lacks the key {str(place[-1])!r}."
    limits = found.get("ctx", {})
    if kind in BOUNDS:
        name, sign = BOUNDS[kind]
        expected = f"a number {sign} {limits[name]:g}" if isinstance(limits[name], int | float) else f"{sign} {limits[name]}"
    elif kind == "literal_error":
        expected = str(limits.get("expected", "another value"))
    else:
        expected = EXPECTED.get(kind, "another kind of value")
    if any(part in UNION for part in place):
        place = tuple(part for part in place if part not in UNION)
        expected = unions.get(path_of(place), "text in quotes, or a list of texts")
    return place, f"{path_of(place)} is {shown(value)}; expected {expected}."


def path_of(place: Place) -> str:
    """'clients[0].lr'."""
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def shown(value: object) -> str:
    """A value as a sentence shows it: in one line, and not too long."""
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # an integer beyond Python's limit of digits
        return "a very large number"
    return text if len(text) <= 120 else f"{text[:117]}..."


def _keys(model: type[BaseModel], place: Place) -> list[str]:
    """The keys that a table of the plan may have."""
    for part in place:
        found = next((entry for name, entry in model.model_fields.items() if part in (name, entry.alias)), None)
        if found is not None:
            model = next(iter(_models(found.annotation)), model)
    return [entry.alias or name for name, entry in model.model_fields.items()]


def _models(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and get_origin(annotation) is None:
        return [annotation] if issubclass(annotation, BaseModel) else []
    if get_origin(annotation) in (list, Union, UnionType):
        return [model for member in get_args(annotation) for model in _models(member)]
    return []
