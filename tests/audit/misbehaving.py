"""A plug-in whose attack does to its process what must not harm an audit. Installed into a test's path by `audit_runs`."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from leakgauge.attacks.base import Attack, Limits
from leakgauge.core.observation import Observation
from leakgauge.core.reconstruction import Outcome, Reconstruction, Stats, unverified
from leakgauge.registry import described


@dataclass(frozen=True)
class Misbehave(Attack):
    """Guesses grey, unless told otherwise.

    Args:
        how: 'grey', 'abort', 'exit', 'hang', 'eat' (memory), 'raise', 'memory' (an error that says so), 'nonfinite', 'wait'.
        once: a file; where it is there the attack behaves, else it is made.
        seconds: for 'wait'.
    """

    how: str = "grey"
    once: str = ""
    seconds: float = 0.0

    def __call__(self, seen: Observation, generator: torch.Generator, limits: Limits | None = None) -> Reconstruction:
        limits = limits or Limits()
        if not self.once or not Path(self.once).exists():
            if self.once:
                Path(self.once).touch()
            self._misbehave()
        assert seen.pictures is not None
        pixels = torch.full((seen.num_examples, *seen.pictures.shape), 0.5)
        return Reconstruction(
            inputs=seen.pictures.normalise(pixels),
            labels=None,
            outcome=Outcome.NONFINITE if self.how == "nonfinite" else Outcome.STEP_LIMIT,
            explains=False,
            certified=unverified(len(pixels)),
            confidence=torch.zeros(len(pixels)),
            stats=Stats(evaluations=1),
            seconds=limits.seconds,
        )

    def _misbehave(self) -> None:
        held = []
        if self.how == "abort":
            os.abort()
        if self.how == "exit":
            os._exit(3)
        if self.how == "raise":
            raise ValueError("a plug-in\nwith a fault")
        if self.how == "memory":
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 byte")
        if self.how == "wait":
            time.sleep(self.seconds)
        while self.how in ("hang", "eat"):
            if self.how == "eat":
                held.append(torch.ones(2_000_000))
            time.sleep(0.01)


@described(needs="pictures", source="a test")
def misbehave(how: str = "grey", once: str = "", seconds: float = 0.0) -> Misbehave:
    """Guesses grey, unless told otherwise."""
    return Misbehave(how, once, seconds)
