"""Policies: rules about leakage, accuracy and epsilon that a defence has to meet, as 'rdlv <= 0.1'."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from leakgauge.errors import OptionError, did_you_mean

MEASURES = ("rdlv", "ssim", "psnr", "identification", "accuracy", "epsilon")
SIGNS = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt}
RULE = re.compile(r"\s*(?:(?P<over>max|mean)\s+)?(?P<measure>[a-z]+)\s*(?P<sign><=|>=|<|>)\s*(?P<limit>-?[0-9.]+(?:e-?\d+)?)\s*")


@dataclass(frozen=True)
class Rule:
    """One rule.

    Args:
        measure: 'rdlv', 'ssim', 'psnr', 'identification' (combined probability), 'accuracy' or 'epsilon'.
        over: 'max' over the attacked pictures, or 'mean'; without meaning for the last three.
        sign: '<=', '>=', '<' or '>'.
        limit: a number.
    """

    measure: str
    over: str
    sign: str
    limit: float

    def __str__(self) -> str:
        over = f"{self.over} " if self.measure in ("rdlv", "ssim", "psnr") else ""
        return f"{over}{self.measure} {self.sign} {self.limit:g}"

    def holds(self, value: float) -> bool:
        """Whether it holds; never for a value that was not measured."""
        return not math.isnan(value) and bool(SIGNS[self.sign](value, self.limit))


def parse_policy(text: str | Sequence[str]) -> tuple[Rule, ...]:
    """The rules of a policy, which must hold together; none for ''.

    Without 'mean' before it a measure of pictures is taken at its largest, since a client is as exposed as its worst picture.

    Raises:
        OptionError: for what is no rule.
    """
    parts = re.split(r"\band\b|,", text) if isinstance(text, str) else list(text)
    rules = []
    for part in filter(None, (entry.strip() for entry in parts)):
        match = RULE.fullmatch(part)
        if match is None:
            raise OptionError(f"tradeoff.policy has the rule {part!r}; expected MEASURE <= NUMBER, such as 'rdlv <= 0.1'.")
        if match["measure"] not in MEASURES:
            raise OptionError(
                f"tradeoff.policy names the measure {match['measure']!r}.{did_you_mean(match['measure'], MEASURES)}"
            )
        try:
            limit = float(match["limit"])
        except ValueError:
            raise OptionError(f"tradeoff.policy has the limit {match['limit']!r}; expected a number.") from None
        rules.append(Rule(match["measure"], match["over"] or "max", match["sign"], limit))
    return tuple(rules)


def broken_rules(rules: Sequence[Rule], values: Mapping[tuple[str, str], float]) -> tuple[str, ...]:
    """The rules that do not hold, each with the value it met; values are keyed by (measure, over)."""
    found = []
    for rule in rules:
        value = values.get((rule.measure, rule.over), math.nan)
        if not rule.holds(value):
            found.append(f"{rule} (it is {'not measured' if math.isnan(value) else f'{value:.3g}'})")
    return tuple(found)
