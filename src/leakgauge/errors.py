"""Every error that leakgauge raises on purpose.

LeakgaugeError                 one clear sentence: what was wrong, where, what was expected; exit code 2
├── InputError                 something that was handed over cannot be used
│   ├── ShapeError             a tensor has the wrong shape
│   ├── DataError              a picture, table or folder cannot be read
│   ├── ModelError             a model name cannot be resolved, or the model does not fit
│   ├── OptionError            an unknown name or option; the nearest one is suggested
│   ├── UpdateError            an update, observation or state file is broken, incomplete or does not match
│   └── KnowledgeError         an attack needs something that the threat model does not grant
├── UnsupportedError           a network or protocol that a method cannot treat, with every reason
├── IntegrationError           an engine (Flower, NVFlare, ...) and a recorder do not fit together, or a recorder is told to stop
└── MissingExtraError          an optional package is absent; the sentence names the extra

Programming errors stay TypeError and ValueError.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LeakgaugeError(Exception):
    """Root of all deliberate errors; its text is one sentence a person can act on."""

    exit_code = 2


class InputError(LeakgaugeError):
    """Something that was handed over cannot be used."""


class ShapeError(InputError):
    """A tensor has the wrong shape."""


class DataError(InputError):
    """A picture, table or folder cannot be read."""


class ModelError(InputError):
    """A model name cannot be resolved, or the model does not fit the data."""


class OptionError(InputError):
    """An unknown name or option."""


class UpdateError(InputError):
    """An update, observation or state file is broken, incomplete or does not match."""


class KnowledgeError(InputError):
    """An attack needs something that the threat model does not grant."""


class UnsupportedError(LeakgaugeError):
    """A network or protocol that a method cannot treat."""


class IntegrationError(LeakgaugeError):
    """An engine and a recorder do not fit together, or a recorder that failed is told to stop the training."""


class MissingExtraError(LeakgaugeError):
    """An optional package is absent."""

    def __init__(self, package: str, extra: str, purpose: str, reason: str = "is not installed") -> None:
        super().__init__(f"{purpose} needs the package {package!r}, which {reason}: pip install 'leakgauge[{extra}]'.")
        self.extra = extra


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Returns ' Did you mean ...?' with the nearest of `choices`, or the list of them when none is near."""
    known = sorted(choices)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if near:
        return f" Did you mean {near[0]!r}?"
    return f" Known: {', '.join(known)}." if known else ""
