"""The smallest attack: one grey value everywhere. It shows what an attack returns."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from leakgauge import Attack, Limits, Observation, Outcome, Reconstruction
from leakgauge.core.reconstruction import Stats, unverified
from leakgauge.errors import UnsupportedError
from leakgauge.registry import described


@dataclass(frozen=True)
class PublicAverage(Attack):
    """Guesses one grey value everywhere.

    Args:
        value: pixel in [0, 1].
    """

    value: float = 0.5

    def __call__(self, seen: Observation, generator: torch.Generator, limits: Limits | None = None) -> Reconstruction:
        """See `leakgauge.Attack`."""
        limits = limits or Limits()
        if seen.pictures is None:
            raise UnsupportedError("public-average guesses pictures; the observation holds none.")
        pixels = torch.full((seen.num_examples, *seen.pictures.shape), self.value)
        return Reconstruction(
            inputs=seen.pictures.normalise(pixels),
            labels=None,
            outcome=Outcome.UNDERDETERMINED,
            explains=False,
            certified=unverified(len(pixels)),
            confidence=torch.zeros(len(pixels)),
            stats=Stats(notes=(f"Every pixel is {self.value:g}; the update is not read.",)),
            seconds=limits.seconds,
        )


@described(needs="pictures", source="a sample")
def public_average(value: float = 0.5) -> PublicAverage:
    """Guesses one grey value everywhere."""
    return PublicAverage(value)
