"""`read_plan`: a TOML file into a SimulationPlan; every error is one sentence with the key's path."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from leakgauge.audit.simulation.plan import SimulationPlan, check_training
from leakgauge.core.callables import LOSSES
from leakgauge.errors import DataError, LeakgaugeError, OptionError, did_you_mean

EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": "text in quotes",
    "bool_type": "true or false",
    "list_type": "a list, in brackets",
    "model_type": "a table",
    "model_attributes_type": "a table",
    "too_short": "at least one entry",
}
SHAPE = re.compile(r"[1-9]\d{0,3}(x[1-9]\d{0,3}){2}", re.IGNORECASE)
PRIORS = ("class mean", "mean", "grey")


def read_plan(path: str | Path, settings: Sequence[str] = (), data: str | None = None) -> SimulationPlan:
    """The plan in a file, checked as a whole.

    Args:
        path: the TOML file.
        settings: changes 'a.b=1', as after --set; values as in TOML, or plain text.
        data: in place of the plan's `data.source`.

    Raises:
        DataError: if there is no such file, or it is no TOML.
        OptionError: for an unknown key (the nearest is suggested), a missing one, or a value that cannot be.
    """
    file = Path(path)
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"The plan {file} is not TOML: {error}.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"The plan {file} is not text in UTF-8 ({error.reason}).") from error
    except OSError as error:
        raise DataError(f"The plan {file} cannot be read ({error.strerror}).") from error
    for setting in settings:
        _change(table, setting)
    if data is not None:
        place = table.setdefault("data", {})
        if isinstance(place, dict):
            place |= {"source": data, "otherwise": ""}
    table.setdefault("name", file.stem)
    return parse_plan(table)


def parse_plan(table: dict[str, Any]) -> SimulationPlan:
    """The plan that a table of tables describes, checked as a whole.

    Raises:
        OptionError: as `read_plan`.
    """
    try:
        plan = SimulationPlan.model_validate(table)
    except ValidationError as error:
        raise OptionError(_sentence(error)) from error
    for problem in _problems(plan):
        raise OptionError(problem)
    check_training(plan)
    _check_calls(plan)
    return plan


def _sentence(error: ValidationError) -> str:
    """The first problem, unknown keys before others, since they are the likely cause of missing ones."""
    found = sorted(error.errors(include_url=False), key=lambda entry: entry["type"] != "extra_forbidden")[0]
    place, kind, value = tuple(found["loc"]), found["type"], found.get("input")
    path = _path(place)
    if kind == "extra_forbidden":
        holder, key = _path(place[:-1]) or "The plan", str(place[-1])
        return f"{holder} has the unknown key {key!r}.{did_you_mean(key, _keys(place[:-1]))}"
    if kind == "missing":
        holder = _path(place[:-1]) or "The plan"
        return f"{holder} lacks the key {str(place[-1])!r}."
    limits = found.get("ctx", {})
    bounds = {
        "greater_than_equal": ("ge", ">="),
        "greater_than": ("gt", ">"),
        "less_than_equal": ("le", "<="),
        "less_than": ("lt", "<"),
    }
    if kind in bounds:
        name, sign = bounds[kind]
        expected = f"a number {sign} {limits[name]:g}" if isinstance(limits[name], int | float) else f"{sign} {limits[name]}"
    elif kind == "literal_error":
        expected = str(limits.get("expected", "another value"))
    else:
        expected = EXPECTED.get(kind, "another kind of value")
    if any(isinstance(part, str) and part in ("str", "int", "list[str]") for part in place):
        path = _path(tuple(part for part in place if part not in ("str", "int", "list[str]")))
        expected = {"attack.budget": "fast, paper, max or a whole number"}.get(path, "text in quotes, or a list of texts")
    return f"{path} is {value!r}; expected {expected}."


def _path(place: tuple[int | str, ...]) -> str:
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _keys(place: tuple[int | str, ...]) -> list[str]:
    """The keys that a table of the plan may have."""
    model: type[BaseModel] = SimulationPlan
    for part in place:
        if isinstance(part, str) and part in model.model_fields:
            annotation = model.model_fields[part].annotation
            kinds = [annotation, *get_args(annotation)]
            model = next(kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel))
    return [field.alias or name for name, field in model.model_fields.items()]


def _change(table: dict[str, Any], setting: str) -> None:
    """Puts 'a.b=1' or 'clients[0].lr=0.1' into the table."""
    path, sign, text = setting.partition("=")
    parts = re.findall(r"[^.\[\]]+", path.strip())
    if not sign or not parts:
        raise OptionError(f"--set {setting!r} is no change; expected KEY=VALUE such as attack.budget=200.")
    try:
        value = tomllib.loads(f"value = {text.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    place: Any = table
    for part in parts[:-1]:
        if isinstance(place, list):
            if not part.isdigit() or int(part) >= len(place):
                raise OptionError(f"--set {setting!r} names entry {part!r}; there are {len(place)}, from 0.")
            place = place[int(part)]
        elif isinstance(place, dict):
            place = place.setdefault(part, {})
        else:
            raise OptionError(f"--set {setting!r} goes through {part!r}, which is no table.")
    if not isinstance(place, dict):
        raise OptionError(f"--set {setting!r} does not end in a key of a table.")
    place[parts[-1]] = value


def _problems(plan: SimulationPlan) -> Iterator[str]:
    """What only shows when keys are seen together."""
    if not SHAPE.fullmatch(plan.input):
        yield f"input is {plan.input!r}; expected channels x height x width, such as '1x64x64'."
    elif plan.shape[0] not in (1, 3):
        yield f"input is {plan.input!r}; expected 1 channel (grey) or 3 (colour)."
    if plan.loss not in LOSSES:
        yield f"loss is {plan.loss!r}.{did_you_mean(plan.loss, LOSSES)}"
    names = [name for name, _ in plan.members]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        yield f"Two clients are called {twice!r}; expected names that differ."
    for position, name in enumerate(plan.attack.clients or ()):
        if name not in names:
            yield f"attack.clients[{position}] is {name!r}.{did_you_mean(name, names)}"
    yield from _round_problems(plan)
    if plan.federation.topology != "server" and (plan.federation.secure_aggregation or plan.federation.server_defence):
        key = "secure_aggregation" if plan.federation.secure_aggregation else "server_defence"
        yield f"federation.{key} needs a server; expected topology 'server', and it is {plan.federation.topology!r}."
    if plan.federation.topology == "ring" and len(names) < 2:
        yield f"federation.topology is 'ring', which needs at least two clients; there is {len(names)}."
    if plan.tradeoff is not None and plan.data.validation == 0:
        yield "data.validation is 0; expected at least one picture, since a trade-off compares accuracies."
    prior = plan.attack.prior
    if prior in ("class mean", "mean") and plan.data.public == 0 and "prior" in plan.attack.model_fields_set:
        yield f"attack.prior is {prior!r}, which needs public pictures; give data.public = 1 or more, or prior = 'grey'."
    if prior not in PRIORS and ":" not in prior:
        yield f"attack.prior is {prior!r}.{did_you_mean(prior, PRIORS)}"
    budget = plan.attack.budget
    if budget not in ("fast", "paper", "max") and not (isinstance(budget, int) and not isinstance(budget, bool) and budget > 0):
        yield f"attack.budget is {budget!r}; expected fast, paper, max or a positive whole number."


def _round_problems(plan: SimulationPlan) -> Iterator[str]:
    if plan.attack.rounds is not None and plan.attack.every is not None:
        yield "attack.rounds and attack.every are both given; expected one of them."
    listed = [("attack", plan.attack.rounds)]
    if plan.tradeoff is not None:
        listed.append(("tradeoff", plan.tradeoff.rounds))
    for table, rounds in listed:
        if rounds is not None and not rounds:
            yield f"{table}.rounds is empty; expected at least one round."
        for position, number in enumerate(rounds or ()):
            if not 1 <= number <= plan.rounds:
                yield f"{table}.rounds[{position}] is {number}; expected a round from 1 to {plan.rounds}."


def _check_calls(plan: SimulationPlan) -> None:
    """Makes every attack and defence once, so that a wrong name shows before any work."""
    from leakgauge.audit.case import attack_call, defences_of
    from leakgauge.audit.prior import without_picture
    from leakgauge.registry import make

    calls: list[tuple[str, str]] = []
    for position, client in enumerate(plan.clients):
        calls += [(f"clients[{position}].defences[{index}]", text) for index, text in enumerate(client.defences)]
    if plan.tradeoff is not None:
        entries = enumerate(plan.tradeoff.defences)
        calls += [(f"tradeoff.defences[{index}]", text) for index, text in entries if text != "none"]
    if plan.federation.server_defence:
        calls.append(("federation.server_defence", plan.federation.server_defence))
    for path, text in calls:
        try:
            defences_of((text,))
        except LeakgaugeError as error:
            raise OptionError(f"{path}: {error}") from error
    for index, text in enumerate(plan.attack.attacks):
        try:
            name, options = attack_call(text)
            make("attacks", name, **without_picture(options))
        except LeakgaugeError as error:
            raise OptionError(f"attack.with[{index}]: {error}") from error
    repeated = next((text for text in plan.attack.attacks if plan.attack.attacks.count(text) > 1), None)
    if repeated:
        raise OptionError(f"attack.with names {repeated!r} twice.")
