"""What a text update says before any search: the span of the first layer's inputs, tokens that fit each position, lengths."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from leakgauge.attacks.text.network import TextNetwork
from leakgauge.attacks.text.span.first import candidates, invented
from leakgauge.attacks.text.span.subspace import UNIT, Subspace, subspace_of
from leakgauge.core.observation import Observation
from leakgauge.core.text_spec import TextSpec

MISSED = 0.5  # share of places without a fitting token from which the span is not believed


@dataclass(frozen=True)
class Reading:
    """Facts.

    Args:
        space: span of the first layer's inputs, where one can be read; None otherwise.
        choices: per position the token ids whose first-layer input lies in it, ascending; empty where there is no span.
        mask: (N, L) where tokens stand, as far as known.
        note: for the record.
        causal: the last token of a text is predicted but never read, so that nothing fits its place.
    """

    space: Subspace | None
    choices: list[Tensor]
    mask: Tensor
    note: str
    causal: bool = False

    @property
    def complete(self) -> bool:
        """Whether every position where tokens stand has one that fits."""
        used = self.mask.any(0).nonzero().flatten().tolist()
        return bool(self.choices) and all(len(self.choices[t]) > 0 for t in (used[:-1] if self.causal else used))


def read_update(
    seen: Observation,
    network: TextNetwork,
    tensors: Mapping[str, Tensor],
    allowed: Tensor,
    generator: torch.Generator,
    span: bool,
    fit: bool,
    expired: Callable[[], bool],
) -> Reading:
    """Span, candidates and lengths.

    Rows of the first attention layer's weight gradients are combinations of its inputs, norm(e + p + type) for each token
    (Petrov et al. 2024, DAGER). One text of unknown length: its tokens are as many as the span has dimensions. Several: text
    i ends at the last position where i + 1 tokens fit, which later moves may correct.

    Args:
        seen: what the attacker holds.
        network: its parts.
        tensors: gradients.
        allowed: (V,) tokens that may occur.
        generator: of the decoys that the threshold is set by.
        span: whether the search is to stay in the span.
        fit: whether to look for the tokens that fit it; without, one padded text's length is the span's number of dimensions.
        expired: polled.
    """
    spec = seen.spec
    assert isinstance(spec, TextSpec)
    count, length, causal = seen.num_examples, spec.length, spec.task == "causal"
    whole = torch.ones(count, length, dtype=torch.int64, device=network.device)
    padded = spec.padding is not None
    unknown = f"All texts have {length} tokens."
    if padded:
        unknown = f"The length was not granted: texts are taken to fill all {length} places."
    if not (span or fit or (padded and count == 1)):
        return Reading(None, [], whole, unknown)
    site = next((site for site in network.sites if site.kind == "token"), None)
    gradient = None if site is None else network.gradient(site, tensors)
    if site is None or gradient is None or not bool(gradient.any()):
        return Reading(None, [], whole, f"No span: the first layer's gradient was not shared. {unknown}")
    if seen.training.lr is not None and seen.training.optimiser != "sgd":
        return Reading(None, [], whole, f"No span: {seen.training.optimiser} rescales every number. {unknown}")
    # Layers differ in the size of their gradients by orders; each is brought to length 1, which keeps the span.
    space = subspace_of(gradient / gradient.norm(), UNIT["bfloat16" if seen.training.amp else seen.training.dtype])
    space = space.with_threshold(invented(network, site, length, generator))
    if not space.separates:
        why = f"No span: it does not separate tokens (rank {space.rank} of {network.hidden})."
        return Reading(None, [], whole, f"{why} {unknown}")
    width = network.parameter(network.tokens).shape[1]
    usable = space if span and network.norm is not None and site.order == 0 and site.width == network.hidden == width else None
    if not fit:
        tokens = space.rank + causal  # a causal text's last token is not read
        if count == 1 and not padded and tokens < length:
            return Reading(None, [], whole, f"No span: its rank {space.rank} is below the number of tokens. {unknown}")
        if not padded or count > 1 or tokens > length:
            return Reading(usable, [], whole, unknown)
        note = f"The length was not granted; it is taken from the span's number of dimensions, {space.rank}."
        return Reading(usable, [], (torch.arange(length, device=network.device) < tokens).long()[None], note)
    choices = candidates(network, site, space, length, allowed, expired)
    found = [min(len(each), count) for each in choices]
    if sum(n > 0 for n in found) < MISSED * min(length, space.rank):
        why = f"No span: tokens fit at {sum(n > 0 for n in found)} of {length} places only (the update was rounded or noised)."
        return Reading(None, [], whole, f"{why} {unknown}")
    mask, note = whole, unknown
    if padded and any(found):
        rows = [max((t + 1 for t in range(length) if found[t] > i), default=1) for i in range(count)]
        rows = [min(row + causal, length) for row in rows]
        mask = (torch.arange(length) < torch.tensor(rows)[:, None]).long().to(network.device)
        note = f"The length was not granted; the span has {space.rank} dimensions and tokens fit up to position {max(rows)}."
    note = f"{note} Tokens whose first-layer input lies in the span: {_summary(choices)}."
    return Reading(usable, choices, mask, note, causal)


def first_guess(reading: Reading, padding: int, network: TextNetwork, generator: torch.Generator) -> Tensor:
    """(N, L) token ids: those that fit each position, shared out among the texts; a random token where none fits."""
    ids = torch.full_like(reading.mask, padding)
    for position in range(ids.shape[1]):
        rows = reading.mask[:, position].nonzero().flatten()
        fits = reading.choices[position] if reading.choices else torch.zeros(0, dtype=torch.int64)
        for index, row in enumerate(rows.tolist()):
            drawn = int(torch.randint(network.vocabulary, (), generator=generator))
            ids[row, position] = int(fits[index % len(fits)]) if len(fits) else drawn
    return ids


def _summary(choices: list[Tensor]) -> str:
    sizes = [len(each) for each in choices]
    return f"{min(sizes)} to {max(sizes)} for each position"
