"""What a language model's input looks like: length, vocabulary, padding and task. Public knowledge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from leakgauge.errors import OptionError

TASKS = ("masked", "classification", "causal")
IGNORED = -100  # label of a token that is not predicted, as in torch's cross-entropy


@dataclass(frozen=True)
class TextSpec:
    """Shape and meaning of one text: token ids (L,), padded at the end.

    Args:
        length: L, tokens of one padded text, >= 1.
        vocabulary: number of token ids, >= 1.
        padding: id of the padding token, or None where texts are never padded.
        task: 'masked' (labels (N, L), -100 where nothing is predicted), 'classification' (labels (N,)) or 'causal' (labels
            (N, L): the token ids themselves, -100 on padding; the model shifts them by one).

    Raises:
        OptionError: if a value is out of range or the task is unknown.
    """

    length: int
    vocabulary: int
    padding: int | None = None
    task: str = "classification"

    def __post_init__(self) -> None:
        for name in ("length", "vocabulary"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise OptionError(f"TextSpec.{name} is {value!r}; expected a whole number >= 1.")
        if self.padding is not None and (isinstance(self.padding, bool) or not 0 <= self.padding < self.vocabulary):
            raise OptionError(
                f"TextSpec.padding is {self.padding!r}; expected a token id from 0 to {self.vocabulary - 1}, or None."
            )
        if self.task not in TASKS:
            raise OptionError(f"TextSpec.task is {self.task!r}; expected one of {', '.join(TASKS)}.")

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready description; `spec_from_json` reads it."""
        return {
            "type": "text",
            "length": self.length,
            "vocabulary": self.vocabulary,
            "padding": self.padding,
            "task": self.task,
        }
