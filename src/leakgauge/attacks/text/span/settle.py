"""From sequences that passed to a reconstruction: labels, endings, how many, and whether the update is explained."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from leakgauge.attacks.base import Limits
from leakgauge.attacks.matching.target import Target
from leakgauge.attacks.text.check import explained, padded, text_target, tolerance
from leakgauge.attacks.text.labels import labels_of
from leakgauge.attacks.text.network import TextNetwork
from leakgauge.attacks.text.span.endings import endings
from leakgauge.core.observation import Observation
from leakgauge.core.text_spec import IGNORED, TextSpec
from leakgauge.errors import LeakgaugeError

ATTEMPTS = 24  # sets of sequences that are tried


@dataclass(frozen=True)
class Settled:
    """One set of sequences with what belongs to it.

    Args:
        ids, mask: (M, L).
        labels: as the task has them, or None where they cannot be told.
        residual: relative residual of the recomputed update; NaN where it was not recomputed.
        explains: whether it agrees to rounding.
        notes: how labels and endings were found.
        attempts: recomputed updates.
    """

    ids: Tensor
    mask: Tensor
    labels: Tensor | None
    residual: float
    explains: bool
    notes: tuple[str, ...] = ()
    attempts: int = 0


@dataclass
class Settling:
    """Tries sets of sequences until one explains the update.

    Args:
        seen: the observation.
        network: its network.
        gradients: parameter name -> shared gradient.
        limits: what may be spent.
    """

    seen: Observation
    network: TextNetwork
    gradients: Mapping[str, Tensor]
    limits: Limits
    target: Target | None = field(default=None)

    @property
    def spec(self) -> TextSpec:
        """What one text looks like."""
        assert isinstance(self.seen.spec, TextSpec)
        return self.seen.spec

    def settle(self, sequences: list[Tensor], stems: list[Tensor]) -> Settled:
        """The first set of N sequences that explains the update, or the likeliest one if none does.

        Args:
            sequences: those that passed and did not grow, the likeliest first.
            stems: prefixes that grew; one of them is a text of its own where a text begins like a longer one.
        """
        first: Settled | None = None
        for number, chosen in enumerate(itertools.islice(self._sets(sequences, stems), ATTEMPTS)):
            found = self.tried(chosen, number + 1)
            first = first or found
            if found.explains:
                return found
            if self.limits.expired or found.labels is None:
                break
        return first if first is not None else self.tried([], 0)

    def tried(self, sequences: list[Tensor], attempts: int) -> Settled:
        """Labels, endings and residual of one set."""
        notes: list[str] = []
        labels: Tensor | None = None
        full = list(sequences)
        if self.spec.task == "causal" and full:
            ends = endings(self.network, self.gradients, full, self.spec.vocabulary)
            if ends is None:
                notes.append("The last token of each text is never read by the network, and neither the head nor the layer below "
                             "it was shared: texts end one token early.")  # fmt: skip
            else:
                full = [torch.cat([stem, token[None]]) for stem, token in zip(full, ends.tokens, strict=True)]
                notes.append(
                    f"The last tokens were read off {ends.source} (fit {float(ends.fit.min()):.3f} at worst, 1 at best)."
                )
        ids, mask = padded(full, self.spec.length, self.spec.padding)
        try:
            if self.spec.task == "causal":
                labels = torch.where(mask == 0, IGNORED, ids) if ends_known(notes) else None
            elif self.seen.labels is not None and len(full) == len(self.seen.labels) and self.spec.task == "masked":
                labels = self.seen.labels
            elif full and self.spec.task == "classification":
                labels = labels_of(self.network, self.gradients, ids, mask)
        except LeakgaugeError as error:
            notes.append(str(error))
        residual, fits = float("nan"), False
        if labels is not None and len(full) == self.seen.num_examples:
            self.target = self.target or text_target(self.seen, self.limits)
            residual = explained(self.seen, self.target, ids, mask, labels)
            fits = residual <= tolerance(self.seen)
        return Settled(ids, mask, labels, residual, fits, tuple(notes), attempts)

    def _sets(self, sequences: list[Tensor], stems: list[Tensor]) -> Iterator[list[Tensor]]:
        wanted = self.seen.num_examples
        if not sequences:
            return
        yield sequences[:wanted]
        missing = wanted - len(sequences)
        if 0 < missing <= 2:  # equal texts, or texts that begin like a longer one
            pool = sequences + stems[::-1]
            for added in itertools.combinations_with_replacement(pool, missing):
                yield [*sequences, *added]
        elif missing <= 0:  # too many: a text that seemed to go on, or one that should not be there
            for index in range(min(len(sequences), wanted) - 1, -1, -1):
                rest = [each for place, each in enumerate(sequences[:wanted]) if place != index]
                yield [*rest, sequences[index][:-1]]
                for other in sequences[wanted:]:
                    yield [*rest, other]


def ends_known(notes: list[str]) -> bool:
    """Whether the last tokens of causal texts were found."""
    return not any("end one token early" in note for note in notes)
