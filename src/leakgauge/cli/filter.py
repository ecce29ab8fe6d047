"""`leakgauge filter`: what a deployed filter really removes, measured from outside."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leakgauge.cli.options import Classes, Json, ModelOption, Seed, parse_shape, use_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from leakgauge.audit.filters import FilterAudit

FAULTY = 1
FILE = "filter.json"
PLAIN = "plain"


def filter_command(
    filter: Annotated[
        str, typer.Argument(metavar="FILTER", help="pkg.mod:name; the current folder is importable.", show_default=False)
    ],
    model: ModelOption,
    engine: Annotated[
        str, typer.Option(help="What FILTER is: plain (a function of before and after), flower (a mod) or nvflare (a filter).")
    ] = PLAIN,
    claim: Annotated[
        list[str] | None,
        typer.Option(
            "--claim", metavar="NAME:k=v", help="What it is said to do, as clip:norm=1; repeat in order.", show_default=False
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="k=v", help="Setting of the engine, as clipping_norm=1 or kind=weights.", show_default=False
        ),
    ] = None,
    shape: Annotated[str | None, typer.Option("--input", metavar="CxHxW", help="Shape of one input.", show_default=False)] = None,
    classes: Classes = None,
    repeats: Annotated[int, typer.Option(min=4, help="Calls on one and the same update.")] = 20,
    seed: Seed = 0,
    out: Annotated[str | None, typer.Option(metavar="DIR", help=f"Where {FILE} goes.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """Audit a deployed filter as a black box: planted updates in, what leaves is measured; exit code 1 for a fault."""
    from leakgauge.audit.filters import audit_filter
    from leakgauge.cli.console import print_json
    from leakgauge.cli.places import output_folder
    from leakgauge.cli.progress import Bar
    from leakgauge.models import load_model

    use_threads()
    folder = output_folder(out) if out else None
    network = load_model(model, num_classes=classes, input_shape=parse_shape(shape) if shape else None)
    deployed = _deployed(filter, engine, settings or ())
    with _quiet(), Bar("filter", as_json) as bar:
        found = audit_filter(
            deployed,
            network,
            claim=claim or None,
            seed=seed,
            repeats=repeats,
            name=filter,
            model_name=model,
            progress=lambda calls, planned: bar.show(calls / planned, f"call {calls}"),
        )
    facts = found.to_json()
    if folder is not None:
        from leakgauge.report.files import write_text

        write_text(folder / FILE, json.dumps(facts, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    if as_json:
        print_json(facts)
    else:
        _print(found)
    if found.faults:
        raise typer.Exit(FAULTY)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps an engine from logging the same line for each of hundreds of calls."""
    import logging

    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _deployed(name: str, engine: str, settings: Sequence[str]) -> Callable[..., Any]:
    """The object that FILTER names, as a function of tensors before and after.

    Raises:
        OptionError, ModelError: if a name cannot be resolved, or a setting does not fit.
    """
    from leakgauge.errors import IntegrationError, LeakgaugeError, OptionError
    from leakgauge.models.foreign import current_folder_importable, find_callable

    if ":" not in name:
        raise OptionError(f"The filter {name!r} is no name; expected pkg.mod:name.")
    options = dict(_setting(text) for text in settings)
    with current_folder_importable():
        adapter = None if engine == PLAIN else _adapter(engine)
        try:
            found = find_object(name) if adapter else find_callable(name)
        except LeakgaugeError as error:
            raise type(error)(str(error).replace("The model", "The filter").replace("the model", "the filter")) from error
        if adapter is None:
            if options:
                raise OptionError("--set is for filters of an engine; a plain filter takes before and after alone.")
            return found
        if isinstance(found, type):
            try:
                found = found()
            except Exception as error:
                raise IntegrationError(
                    f"The class {name!r} cannot be made without arguments ({type(error).__name__}: {error}); name an object of "
                    "it in a module of your own."
                ) from error
    return _adapted(adapter, engine, found, options)


def _setting(text: str) -> tuple[str, Any]:
    """'k=v' as its name and value: JSON where v is JSON, else text."""
    from leakgauge.errors import OptionError

    name, sign, value = text.partition("=")
    if not sign:
        raise OptionError(f"--set {text!r} has no value; expected NAME=VALUE.")
    try:
        return name.strip(), json.loads(value)
    except ValueError:
        return name.strip(), value.strip()


def find_object(name: str) -> Any:
    """The object that 'pkg.mod:name' names, callable or not."""
    import importlib

    from leakgauge.errors import ModelError
    from leakgauge.models.foreign import find_callable

    module, _, path = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError):
        return find_callable(name)
    if found is None:
        raise ModelError(f"The filter {name!r} is None.")
    return found


def _adapter(engine: str) -> Callable[..., Any]:
    from leakgauge.errors import MissingExtraError, OptionError, did_you_mean
    from leakgauge.registry import entry_names, find

    if engine not in entry_names("filters"):
        raise OptionError(f"There is no engine {engine!r}.{did_you_mean(engine, (PLAIN, *entry_names('filters')))}")
    try:
        return find("filters", engine)
    except ImportError as error:
        raise MissingExtraError(error.name or engine, engine, f"An audit of filters of {engine}") from error


def _adapted(adapter: Callable[..., Any], engine: str, found: Any, options: dict[str, Any]) -> Callable[..., Any]:
    """Settings that the adapter does not name go into its `config`, where it has one."""
    import inspect

    from leakgauge.errors import OptionError, did_you_mean

    known = [name for name, one in inspect.signature(adapter).parameters.items() if one.kind is one.KEYWORD_ONLY]
    given = {name: value for name, value in options.items() if name in known}
    rest = {name: value for name, value in options.items() if name not in known}
    if rest and "config" not in known:
        name = next(iter(rest))
        raise OptionError(f"Filters of {engine} have no setting {name!r}.{did_you_mean(name, known)}")
    result: Callable[..., Any] = adapter(found, **given, **({"config": rest} if rest else {}))
    return result


def _print(found: FilterAudit) -> None:
    from rich.table import Table
    from rich.text import Text

    from leakgauge.cli.console import result_console, say

    table = Table("tensor", "role", "entries", "as planted", "zero", "noise")
    for column in table.columns[2:]:
        column.justify = "right"
    for facts in found.tensors:
        numbers = [_share(facts.unchanged), _share(facts.zeroed), f"{facts.noise_std:.3g}" if facts.noise_std > 0 else "-"]
        table.add_row(facts.name, facts.role, str(facts.size), *(numbers if facts.sent else ("not sent", "", "")))
    result_console().print(table)
    for finding in found.findings:
        result_console().print(Text(f"{finding.severity}: {finding.text}"), soft_wrap=True)
    say(found.verdict)


def _share(value: float) -> str:
    return "-" if value != value else f"{100 * value:.3g} %"  # noqa: PLR0124 - NaN
