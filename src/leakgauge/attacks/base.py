"""Attack: turns an observation into a reconstruction. What it may spend is counted in gradient evaluations."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from leakgauge.core.observation import Observation
from leakgauge.core.reconstruction import Reconstruction
from leakgauge.errors import OptionError

BUDGETS = ("fast", "paper", "max")


@dataclass(frozen=True)
class Progress:
    """How far a search is.

    Args:
        evaluations: gradient evaluations spent so far, over all restarts.
        planned: evaluations planned in all.
        objective: best value of the attack's own objective so far.
        seconds: wall-clock time so far.
    """

    evaluations: int
    planned: int
    objective: float
    seconds: float


@dataclass(frozen=True)
class Limits:
    """What an attack may spend, and who is told.

    Args:
        budget: 'fast', 'paper', 'max' or a number of gradient evaluations over all restarts.
        time_limit: wall-clock seconds, or None; what was best by then comes back with the outcome `TIMEOUT`.
        device: 'cpu', 'cuda' or 'cuda:N'.
        cancelled: polled during the search; True ends it like the clock does.
        progress: called now and then.
        started: when the clock began (time.monotonic).

    Raises:
        OptionError: for a budget that is neither a known name nor a positive whole number, or a time limit <= 0.
    """

    budget: str | int = "fast"
    time_limit: float | None = None
    device: str = "cpu"
    cancelled: Callable[[], bool] = field(default=lambda: False, repr=False)
    progress: Callable[[Progress], None] = field(default=lambda _: None, repr=False)
    started: float = field(default_factory=time.monotonic, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.budget, str) and self.budget.isdigit():
            object.__setattr__(self, "budget", int(self.budget))
        if isinstance(self.budget, bool) or (self.budget not in BUDGETS and not isinstance(self.budget, int)):
            raise OptionError(f"The budget is {self.budget!r}; expected fast, paper, max or a number of gradient evaluations.")
        if isinstance(self.budget, int) and self.budget < 1:
            raise OptionError(f"The budget is {self.budget}; expected at least one gradient evaluation.")
        if self.time_limit is not None and not self.time_limit > 0:
            raise OptionError(f"The time limit is {self.time_limit!r}; expected seconds > 0, or None.")

    def evaluations(self, fast: int, paper: int, most: int) -> int:
        """Evaluations over all restarts: one of the three by name, or the number given."""
        if isinstance(self.budget, int):
            return self.budget
        return {"fast": fast, "paper": paper, "max": most}[self.budget]

    @property
    def seconds(self) -> float:
        """Wall-clock seconds since the start."""
        return time.monotonic() - self.started

    @property
    def expired(self) -> bool:
        """Whether the clock has run out or someone has cancelled."""
        return (self.time_limit is not None and self.seconds >= self.time_limit) or self.cancelled()


class Attack(ABC):
    """Configuration of an attack: a frozen dataclass in each subclass; data arrives by the call."""

    @abstractmethod
    def __call__(self, seen: Observation, generator: torch.Generator, limits: Limits | None = None) -> Reconstruction:
        """Attacks one observation.

        Args:
            seen: what the attacker holds.
            generator: source of every draw.
            limits: what it may spend; the budget 'fast' by default.

        Raises:
            UnsupportedError: where the method cannot treat the network or the protocol, with the reason.
            KnowledgeError: where it needs something that was not granted.
        """


def resolve_device(name: str) -> str:
    """'auto' becomes 'cuda' where a GPU is usable, else 'cpu'.

    Raises:
        OptionError: for a device that is not there.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise OptionError(f"The device {name!r} cannot be used here; expected 'auto', 'cpu' or a GPU that torch sees.") from error
    return name
