"""What only shows when a plan's values are looked at: ranges, names that are made once, cells that remain."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from leakgauge.audit.case import attack_call, defences_of
from leakgauge.audit.plan.expand import MOST_CELLS, count_of, grid_of, protocol_of
from leakgauge.audit.plan.selector import selector_problems
from leakgauge.audit.plan.states import is_trained, trained_of
from leakgauge.audit.plan.tables import MOST_EVALUATIONS, NONE, SEED_LIMIT, SHARES, AuditPlan, ExpectTable, defence_calls
from leakgauge.audit.prior import names_picture, without_picture
from leakgauge.audit.toml.lines import Place
from leakgauge.audit.toml.sentences import path_of, shown
from leakgauge.core.callables import LOSSES
from leakgauge.data.load import list_items
from leakgauge.data.spec import parse_data_spec
from leakgauge.data.text import is_text
from leakgauge.errors import LeakgaugeError, did_you_mean
from leakgauge.registry import make, parse_call

Problems = Iterator[tuple[Place, str]]
PROSE = (("about",), ("what",), ("source",))
BUDGETS = ("fast", "paper", "max")


def value_problems(plan: AuditPlan) -> Problems:
    """Values out of range, which need nothing beside them."""
    yield from _texts((), plan.model_dump())
    for index, seed in enumerate(plan.seeds):
        if not -SEED_LIMIT <= seed < SEED_LIMIT:
            yield ("seeds", index), f"seeds[{index}] is {shown(seed)}; expected a whole number of at most 63 bits."
    budget = plan.budget
    if isinstance(budget, str) and budget not in BUDGETS:
        yield ("budget",), f"budget is {shown(budget)}; expected fast, paper, max or a whole number.{_near(budget, BUDGETS)}"
    if isinstance(budget, int) and not 1 <= budget <= MOST_EVALUATIONS:
        yield ("budget",), f"budget is {shown(budget)}; expected a whole number from 1 to {MOST_EVALUATIONS}."
    if plan.loss not in LOSSES:
        yield ("loss",), f"loss is {shown(plan.loss)}.{did_you_mean(plan.loss, LOSSES)}"
    for index, table in enumerate(plan.protocols):
        yield from _tried(("protocols", index), protocol_of, table)
    for index, text in enumerate(plan.states):
        if is_trained(text.strip()):
            yield from _tried(("states", index), trained_of, text.strip(), plan.training)
    for index, entry in enumerate(plan.expect):
        yield from _expectation(("expect", index), entry)


def call_problems(plan: AuditPlan) -> Problems:
    """Makes every attack, defence and measure once, and looks whether the data that is named beside the axes is there."""
    for index, text in enumerate(plan.attacks):
        yield from _tried(("attacks", index), _try_attack, text)
    for index, text in enumerate(plan.defences):
        yield from _tried(("defences", index), _try_defences, text)
    for index, text in enumerate(plan.measures):
        yield from _tried(("measures", index), _try_measure, text)
    for key, text, without in (("decoys", plan.decoys, ("auto", NONE)), ("prior", plan.prior, ("",))):
        if text.strip() not in without:
            yield from _tried((key,), _try_data, text)
    for index, text in enumerate(plan.states):
        if is_trained(text.strip()):
            yield from _tried(("states", index), _try_data, trained_of(text.strip(), plan.training).data)


def grid_problems(plan: AuditPlan) -> Problems:
    """Selectors that mean nothing, and grids that are empty or endless."""
    for index, selector in enumerate(plan.exclude):
        yield from selector_problems(plan, selector, ("exclude", index))
        if not selector:
            yield ("exclude", index), f"exclude[{index}] is empty, which would leave out every cell."
    for index, entry in enumerate(plan.expect):
        yield from selector_problems(plan, entry.where, ("expect", index, "where"))
        yield from selector_problems(plan, entry.versus or {}, ("expect", index, "versus"))
    count = count_of(plan)
    if count > MOST_CELLS:
        yield (), f"The plan has {count} cells; expected at most {MOST_CELLS}."
    elif not grid_of(plan):
        yield ("exclude",), "The plan's [[exclude]] leaves out every cell."


def _texts(place: Place, value: Any) -> Problems:
    """No text holds control characters, which paths and names cannot have."""
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from _texts((*place, key), entry)
    elif isinstance(value, list | tuple):
        for index, entry in enumerate(value):
            yield from _texts((*place, index), entry)
    elif isinstance(value, str) and place[-1:] not in PROSE and any(ord(sign) < 32 or ord(sign) == 127 for sign in value):
        yield place, f"{path_of(place)} is {shown(value)}; expected text without control characters."


def _expectation(place: Place, entry: ExpectTable) -> Problems:
    path = path_of(place)
    if (entry.statistic == "share") != (entry.measure in SHARES):
        kind = "'share'" if entry.measure in SHARES else "median, mean, min or max"
        yield (
            (*place, "statistic"),
            f"{path}.statistic is {entry.statistic!r}; expected {kind} for the measure {entry.measure!r}.",
        )
    if entry.value is None and entry.versus is None:
        yield (*place, "relation"), f"{path} lacks the key 'value' (or 'versus', another group of cells)."
    if entry.relation == "about" and entry.tolerance is None:
        yield (*place, "relation"), f"{path} lacks the key 'tolerance', which 'about' needs."
    if entry.relation != "about" and entry.tolerance is not None:
        yield (*place, "tolerance"), f"{path}.tolerance is only for the relation 'about'."
    if entry.measure in SHARES and entry.value is not None and not -1 <= entry.value <= 1:
        yield (*place, "value"), f"{path}.value is {entry.value:g}; expected a share from 0 to 1."


def _tried(place: Place, make_once: Callable[..., object], *arguments: object) -> Problems:
    """The sentence of what goes wrong in making something once. Plug-ins are made here, and may raise anything."""
    try:
        make_once(*arguments)
    except LeakgaugeError as error:
        yield place, f"{path_of(place)}: {_rooted(str(error))}"
    except Exception as error:  # noqa: BLE001 - a plug-in's, or Python's own for a value that nobody checked
        given = shown(arguments[0]) if isinstance(arguments[0], str) else "its value"
        yield place, f"{path_of(place)}: {given} cannot be used ({type(error).__name__}: {_short(error)})."


def _rooted(sentence: str) -> str:
    return sentence.removeprefix("LocalTraining.")


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return (text if len(text) <= 200 else f"{text[:200]}..").rstrip(".")


def _near(text: str, known: tuple[str, ...]) -> str:
    hint = did_you_mean(text, known)
    return hint if "Did you mean" in hint else ""


def _try_attack(text: str) -> None:
    name, options = attack_call(text.strip())
    make("attacks", name, **without_picture(options))
    if names_picture(options):
        _try_data(options["prior"])


def _try_defences(text: str) -> None:
    defences_of(defence_calls(text))


def _try_measure(text: str) -> None:
    name, options = parse_call(text.strip())
    make("measures", name, **options)


def _try_data(text: str) -> None:
    """Whether the examples are there; none is read."""
    if is_text(text):
        from leakgauge.data.text import load_texts

        load_texts(text)
        return
    spec = parse_data_spec(text)
    spec.select(len(list_items(spec)))
