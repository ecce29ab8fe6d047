"""Network: a paper's architecture as a frozen record whose fields are its options."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from leakgauge.errors import ModelError, OptionError, did_you_mean

Shape = tuple[int, ...]
MAX_UNITS = 1 << 20  # a width above this is a slip of the keyboard


@dataclass(frozen=True)
class OptionEntry:
    """One option of a network, for listings: its name, default and possible values as text."""

    name: str
    default: str
    values: str
    description: str


@dataclass(frozen=True)
class ModelEntry:
    """One line of `names()`: what a person may write as MODEL, and where the network comes from."""

    name: str
    options: tuple[OptionEntry, ...]
    description: str
    source: str


@dataclass(frozen=True)
class Network(ABC):
    """An architecture with its options chosen; `build` makes the module for a number of classes and an input shape."""

    description: ClassVar[str]
    source: ClassVar[str]
    default_classes: ClassVar[int] = 10
    default_shape: ClassVar[Shape] = (3, 32, 32)

    @abstractmethod
    def build(self, num_classes: int, input_shape: Shape) -> nn.Module:
        """The module, its weights drawn from torch's CPU generator as it stands."""


def option(default: Any, description: str, choices: tuple[str, ...] = ()) -> Any:
    """A field of a `Network` that a name may set: a text out of `choices`, an integer, a number, or integers '256-256'."""
    return dataclasses.field(default=default, metadata={"description": description, "choices": choices})


def option_entries(network: type[Network]) -> tuple[OptionEntry, ...]:
    """The options of a network, for listings."""
    entries = []
    for field in dataclasses.fields(network):
        default = "-".join(map(str, field.default)) if isinstance(field.default, tuple) else str(field.default)
        values = "|".join(field.metadata["choices"]) or _expected(field.default)
        entries.append(OptionEntry(field.name, default, values, field.metadata["description"]))
    return tuple(entries)


def configure(name: str, network: type[Network], options: Mapping[str, str]) -> Network:
    """The network with `options` (texts, as written after its name) parsed and set.

    Raises:
        OptionError: for an option that the network does not have, or a value that does not fit.
    """
    fields = {field.name: field for field in dataclasses.fields(network)}
    chosen: dict[str, Any] = {}
    for key, text in options.items():
        if key not in fields:
            raise OptionError(f"The network {name!r} has no option {key!r}.{did_you_mean(key, fields)}")
        chosen[key] = _parse(f"{name}:{key}", text, fields[key].default, fields[key].metadata["choices"])
    return network(**chosen)


def require_picture(name: str, input_shape: Shape) -> tuple[int, int, int]:
    """The input shape as (C, H, W) with H and W of at least 8.

    Raises:
        ModelError: for any other shape, which a convolutional network cannot take.
    """
    if len(input_shape) != 3 or min(input_shape[1:]) < 8:
        raise ModelError(f"The network {name!r} takes pictures (C, H, W) with H and W of at least 8; got {input_shape}.")
    return input_shape[0], input_shape[1], input_shape[2]


def _expected(default: Any) -> str:
    if isinstance(default, tuple):
        return "positive integers joined by '-'"
    return "a number from 0 to 1" if isinstance(default, float) else "a positive integer"


def _parse(where: str, text: str, default: Any, choices: tuple[str, ...]) -> Any:
    if choices and isinstance(default, str):
        if text not in choices:
            raise OptionError(f"{where} is {text!r}; expected one of {', '.join(choices)}.{_near(text, choices)}")
        return text
    try:
        if isinstance(default, tuple):
            value: Any = tuple(_count(part) for part in text.split("-"))
        else:
            value = _share(text) if isinstance(default, float) else _count(text)
    except ValueError:
        raise OptionError(f"{where} is {text!r}; expected {_expected(default)}.") from None
    if choices and str(value) not in choices:
        raise OptionError(f"{where} is {text!r}; expected one of {', '.join(choices)}.")
    return value


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text) <= MAX_UNITS:
        raise ValueError(text)
    return int(text)


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError(text)
    return value


def _near(text: str, choices: tuple[str, ...]) -> str:
    hint = did_you_mean(text, choices)
    return hint if "Did you mean" in hint else ""
