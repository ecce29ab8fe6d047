"""`read_plan`: a TOML file into a SimulationPlan; every error is one sentence with the key's path."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from leakgauge.audit.simulation.plan import SimulationPlan, check_training
from leakgauge.audit.toml.sentences import first_problem
from leakgauge.audit.toml.text import Source, changed, read_toml
from leakgauge.core.callables import LOSSES
from leakgauge.errors import LeakgaugeError, OptionError, did_you_mean

SHAPE = re.compile(r"[1-9]\d{0,3}(x[1-9]\d{0,3}){2}", re.IGNORECASE)
PRIORS = ("class mean", "mean", "grey")
UNIONS = {"attack.budget": "fast, paper, max or a whole number"}


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
    table, source = read_toml(path)
    source = changed(table, source, settings)
    if data is not None:
        place = table.setdefault("data", {})
        if isinstance(place, dict):
            place |= {"source": data, "otherwise": ""}
    table.setdefault("name", Path(path).stem)
    return parse_plan(table, source)


def parse_plan(table: dict[str, Any], source: Source = Source()) -> SimulationPlan:  # noqa: B008 - frozen
    """The plan that a table of tables describes, checked as a whole.

    Args:
        table: as TOML has it.
        source: where its keys stand, for the sentences.

    Raises:
        OptionError: as `read_plan`.
    """
    try:
        plan = SimulationPlan.model_validate(table)
    except ValidationError as error:
        place, sentence = first_problem(error, SimulationPlan, UNIONS)
        raise OptionError(source.at(place) + sentence) from error
    for problem in _problems(plan):
        raise OptionError(problem)
    check_training(plan)
    _check_calls(plan)
    return plan


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
