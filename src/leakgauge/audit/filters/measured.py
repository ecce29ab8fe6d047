"""Everything that was measured on a filter, in one record, and the words that the rules share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from leakgauge.audit.filters.claim import Claim
from leakgauge.audit.filters.record import ClipFacts, EpsilonBound, NoiseFacts, TensorFacts


@dataclass(frozen=True)
class Measured:
    """Everything that was measured, for the rules below; see `FilterAudit` for the fields that it repeats."""

    claim: Claim
    repeats: int
    tensors: tuple[TensorFacts, ...]
    noise: NoiseFacts
    clipping: ClipFacts
    epsilon: EpsilonBound | None
    dropped: tuple[str, ...]
    added: tuple[str, ...]
    misshapen: tuple[str, ...]
    not_finite: tuple[str, ...]
    changed_in_place: tuple[str, ...]
    zero_stays_zero: bool | None
    levels: int
    precision: str
    sparsity: float
    one_sided: str
    support: float  # share of the unchanged entries that leave unchanged when one other entry changes
    uses_weights: bool
    cosine: float
    largest: float  # largest planted magnitude of the repeated update
    failures: Mapping[str, str]

    @property
    def noisy(self) -> bool:
        """Whether there is any noise on the parameters."""
        return self.noise.std > 0

    def of(self, role: str) -> list[TensorFacts]:
        """Tensors of a role that leave, and that were changed."""
        return [facts for facts in self.tensors if facts.role == role and facts.sent and not math.isnan(facts.unchanged)]


def named(tensors: Sequence[TensorFacts]) -> str:
    """Names of tensors, the first three of them."""
    return listed([facts.name for facts in tensors])


def listed(names: Sequence[str]) -> str:
    """Names, the first three of them."""
    return ", ".join(repr(name) for name in names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def percent(value: float) -> str:
    """A share as a percentage."""
    return f"{100 * value:.3g} %"
