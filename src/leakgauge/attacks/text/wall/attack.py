"""`embedding-rows`: texts of a batch with more tokens than the network is wide, from the gradients of both embeddings."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from leakgauge.attacks.base import Attack, Limits
from leakgauge.attacks.text.check import explained, padded, text_target, tolerance
from leakgauge.attacks.text.network import read_network
from leakgauge.attacks.text.wall.rows import NAME, read_rows
from leakgauge.attacks.text.wall.search import read_texts
from leakgauge.attacks.verify import has_signal, no_texts
from leakgauge.core.observation import Observation
from leakgauge.core.reconstruction import Outcome, Reconstruction, Stats, unverified
from leakgauge.core.text_spec import TextSpec
from leakgauge.errors import UnsupportedError
from leakgauge.registry import described

BUDGETS = (200_000, 400_000, 2_000_000)  # gradient evaluations: an evaluation is one backward pass over N texts


@dataclass(frozen=True)
class EmbeddingRows(Attack):
    """A search for the texts whose derivatives add up to the rows of the token and position embeddings' gradients.

    `span-check` ends where a batch has as many tokens as the network is wide; these sums go on telling. Nothing that it finds is
    certified, and it may stop with wrong tokens: the residual of the recomputed update says whether it did.

    Source: our own; see docs/text-wall.md.
    """

    evaluations: tuple[int, int, int] = BUDGETS

    def __call__(self, seen: Observation, generator: torch.Generator, limits: Limits | None = None) -> Reconstruction:
        """Attacks one observation.

        Raises:
            UnsupportedError: unless a causal network that classifies shares the gradients of both embeddings, and the token
                embedding is apart from the head.
        """
        limits = limits or Limits()
        if not isinstance(seen.spec, TextSpec):
            raise no_texts(seen, NAME)
        if not has_signal(seen):
            raise UnsupportedError(f"{NAME} needs a gradient that is not zero.")
        network = read_network(seen, torch.float32, limits.device)
        rows = read_rows(seen, network)
        most = limits.evaluations(*self.evaluations)
        read = read_texts(rows, generator, lambda: limits.expired, most)
        ids, mask = padded(read.texts, seen.spec.length, seen.spec.padding)
        residual = explained(seen, text_target(seen, limits), ids, mask, read.labels)
        explains = residual <= tolerance(seen)
        ended = Outcome.TIMEOUT if limits.expired else Outcome.STEP_LIMIT
        differs = f"The update recomputed from these texts differs by {residual:.1e} of its size: some tokens are wrong."
        return Reconstruction(
            inputs=ids,
            labels=read.labels,
            outcome=Outcome.CONVERGED if explains else ended,
            explains=explains,
            certified=unverified(len(ids)),
            confidence=torch.full((len(ids),), 1.0 if explains else 0.5),
            stats=Stats(
                evaluations=read.evaluations,
                objective=read.residual,
                residual=residual,
                cause="" if explains else differs,
                notes=(f"{read.rounds} rounds of prediction and assignment.",),
            ),
            seconds=limits.seconds,
            attack=NAME,
        )


@described(
    needs="a causal classifier, and the gradients of its token embedding (apart from the head) and position embedding",
    source="our own, 2026: docs/text-wall.md",
)
def embedding_rows() -> EmbeddingRows:
    """Reads texts past the rank wall from the sums in the rows of both embedding gradients; approximate."""
    return EmbeddingRows()
