"""How strong a defence is, read off its text, so that defences of one kind can be put in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from leakgauge.errors import OptionError
from leakgauge.registry import parse_call

NONE = "none"
WEAKER_WHEN_LARGER = {  # options of which a larger value protects less
    ("quantise", "bits"),
    ("clip", "norm"),
    ("top-k", "fraction"),
    ("percentile-sharing", "gamma"),
    ("svt", "fraction"),
    ("svt", "epsilon"),
    ("dp-sgd", "clip_norm"),
    ("central-dp", "clip_norm"),
}


@dataclass(frozen=True)
class Strength:
    """One defence of a sweep.

    Args:
        text: as in the plan, 'none' for no defence.
        family: name of the defence.
        option: which of its options is swept; '' where it has none.
        value: of that option; 0 where it has none.
    """

    text: str
    family: str
    option: str
    value: float

    @property
    def order(self) -> float:
        """Larger is stronger."""
        return -self.value if (self.family, self.option) in WEAKER_WHEN_LARGER else self.value


def strengths(texts: Sequence[str]) -> tuple[Strength, ...]:
    """The defences with 'none' first, families in the order of the list, each family from weak to strong.

    Raises:
        OptionError: for a defence that is listed twice.
    """
    twice = next((text for text in texts if list(texts).count(text) > 1), None)
    if twice:
        raise OptionError(f"tradeoff.defences names {twice!r} twice.")
    calls = [(text, *parse_call(text)) for text in texts if text != NONE]
    found = [Strength(NONE, NONE, "", 0.0)] if NONE in texts else []
    for family in dict.fromkeys(name for _, name, _ in calls):
        entries = [(text, options) for text, name, options in calls if name == family]
        option = _swept([options for _, options in entries])
        members = [Strength(text, family, option, float(options.get(option) or 0.0)) for text, options in entries]
        found += sorted(members, key=lambda entry: entry.order)
    return tuple(found)


def _swept(options: Sequence[dict[str, object]]) -> str:
    """The option whose number differs between the entries; the first number where none does."""
    names = list(dict.fromkeys(name for entry in options for name in entry))
    numbers = [name for name in names if all(isinstance(entry.get(name, 0), int | float) for entry in options)]
    differing = [name for name in numbers if len({entry.get(name) for entry in options}) > 1]
    return next(iter(differing or numbers), "")
