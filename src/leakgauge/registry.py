"""Finding attacks, defences, measures, links and reporters by name, through entry points. Built-ins use the same door.

A plug-in package declares, in its pyproject.toml:

    [project.entry-points."leakgauge.attacks"]
    my-attack = "my_package.module:factory"

where `factory(**options)` returns the object, and may carry `summary`, `needs` and `source` (see `described`).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from leakgauge.errors import OptionError, did_you_mean

KINDS = ("attacks", "defences", "measures", "links", "reporters", "filters")
Factory = TypeVar("Factory", bound=Callable[..., Any])


@dataclass(frozen=True)
class Entry:
    """One line of a catalogue.

    Args:
        name: as given on the command line.
        summary: what it does, in one sentence.
        needs: what it needs to apply.
        source: where it was published.
        options: names of its options, with defaults.
    """

    name: str
    summary: str
    needs: str
    source: str
    options: tuple[str, ...]


def described(*, needs: str = "", source: str = "") -> Callable[[Factory], Factory]:
    """Marks a factory with what it needs and where it was published; the summary is its docstring's first line."""

    def mark(factory: Factory) -> Factory:
        factory.needs = needs  # type: ignore[attr-defined]
        factory.source = source  # type: ignore[attr-defined]
        return factory

    return mark


@cache
def _entries(kind: str) -> dict[str, EntryPoint]:
    if kind not in KINDS:
        raise OptionError(f"There is no catalogue of {kind!r}.{did_you_mean(kind, KINDS)}")
    return {entry.name: entry for entry in entry_points(group=f"leakgauge.{kind}")}


def entry_names(kind: str) -> tuple[str, ...]:
    """Names of a kind, without loading anything."""
    return tuple(sorted(_entries(kind)))


def find(kind: str, name: str) -> Callable[..., Any]:
    """The factory registered under a name.

    Raises:
        OptionError: if there is none; the nearest name is suggested.
    """
    entries = _entries(kind)
    if name not in entries:
        raise OptionError(f"There is no {kind.removesuffix('s')} {name!r}.{did_you_mean(name, entries)}")
    found: Callable[..., Any] = entries[name].load()
    return found


def make(kind: str, name: str, **options: Any) -> Any:
    """Calls the factory with options.

    Raises:
        OptionError: for an unknown name or option (the nearest is suggested), or a missing option.
    """
    factory = find(kind, name)
    parameters = inspect.signature(factory).parameters
    open_ended = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    for option in options:
        if option not in parameters and not open_ended:
            hint = did_you_mean(option, parameters) or " It takes no options."
            raise OptionError(f"The {kind.removesuffix('s')} {name!r} has no option {option!r}.{hint}")
    missing = [
        parameter.name
        for parameter in parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        and parameter.name not in options
    ]
    if missing:
        raise OptionError(f"The {kind.removesuffix('s')} {name!r} needs the option {missing[0]!r}, as in {name}:{missing[0]}=...")
    return factory(**options)


def catalogue(kind: str) -> list[Entry]:
    """All entries of a kind, by name: one of `KINDS`."""
    lines = []
    for name in sorted(_entries(kind)):
        factory = find(kind, name)
        options = tuple(
            parameter.name if parameter.default is parameter.empty else f"{parameter.name}={parameter.default}"
            for parameter in inspect.signature(factory).parameters.values()
            if parameter.kind is not parameter.VAR_KEYWORD
        )
        summary = (inspect.getdoc(factory) or "").split("\n", 1)[0]
        lines.append(Entry(name, summary, getattr(factory, "needs", ""), getattr(factory, "source", ""), options))
    return lines


def parse_call(text: str) -> tuple[str, dict[str, Any]]:
    """'NAME:k=v,..' into the name and its options; values are numbers, true/false/none, or text.

    A value that names data keeps its own commas, as in bn-matching:prior=folder:scans?indices=0,2-4&grey=true,tv=0.

    Raises:
        OptionError: if an option has no '='.
    """
    name, _, rest = text.partition(":")
    options: dict[str, Any] = {}
    parts: list[str] = []
    for piece in filter(None, (piece.strip() for piece in rest.split(","))):
        key, sign, _ = piece.partition("=")
        if parts and ":" in parts[-1] and not (sign and re.fullmatch(r"[A-Za-z_][\w-]*", key.strip())):
            parts[-1] += f",{piece}"
        else:
            parts.append(piece)
    for part in parts:
        key, sign, value = part.partition("=")
        if not sign:
            raise OptionError(f"The option {part!r} in {text!r} has no value; expected {name}:{part}=VALUE.")
        options[key.strip().replace("-", "_")] = _literal(value.strip())
    return name.strip(), options


def _literal(text: str) -> Any:
    lowered = text.lower()
    if lowered in ("true", "false", "none"):
        return {"true": True, "false": False, "none": None}[lowered]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
