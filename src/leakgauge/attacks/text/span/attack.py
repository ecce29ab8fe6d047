"""`span-check`: exact texts of whole batches from a transformer's gradient, by membership in the span of layer inputs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from leakgauge.attacks.base import Attack, Limits
from leakgauge.attacks.text.bag import bag_of
from leakgauge.attacks.text.check import arithmetic_of, gradients_of, padded
from leakgauge.attacks.text.network import TextNetwork, read_network
from leakgauge.attacks.text.span.decoder import Decoded, decode
from leakgauge.attacks.text.span.encoder import search
from leakgauge.attacks.text.span.first import candidates
from leakgauge.attacks.text.span.grow import Growth
from leakgauge.attacks.text.span.settle import Settled, Settling
from leakgauge.attacks.text.span.sites import Checked, checked_sites, usable
from leakgauge.attacks.verify import has_signal
from leakgauge.core.observation import Observation
from leakgauge.core.reconstruction import Outcome, Reconstruction, Stats, unverified
from leakgauge.core.text_spec import TextSpec
from leakgauge.errors import UnsupportedError
from leakgauge.registry import described

NAME = "span-check"
HALF = ("float16", "bfloat16")
NOISED = (
    "The smallest singular values of the gradient are as even as independent noise makes them: the update was noised, and the "
    "directions of its weaker tokens drowned."
)


@dataclass(frozen=True)
class SpanCheck(Attack):
    """Tokens whose layer input lies in the span of the layer's gradient, then sequences of which that holds further up.

    The gradient of a linear layer is X^T D: its columns lie in the span of the layer's inputs X, one row per token of the
    batch. As long as the tokens number less than the width, few vectors lie in that span, and a token at a position, or an
    extension of a prefix, can be tried. Rank, noise and threshold come from the singular values and from inputs of public
    random texts; none is set by hand.

    Source: Petrov et al. 2024 (DAGER), sections 4.1 to 4.4. Differences are listed in docs/text-exact.md.
    """

    def __call__(self, seen: Observation, generator: torch.Generator, limits: Limits | None = None) -> Reconstruction:
        limits = limits or Limits()
        spec = seen.spec
        if not isinstance(spec, TextSpec):
            raise UnsupportedError(f"{NAME} needs a TextSpec; the observation has none.")
        if not has_signal(seen):
            empty = Settled(*padded([], spec.length, spec.padding), None, float("nan"), False)
            return self._result(limits, empty, Outcome.NO_GRADIENT_SIGNAL, "All shared tensors are zero.", (), False)
        with torch.no_grad():
            return self._attacked(seen, spec, generator, limits)

    def _attacked(self, seen: Observation, spec: TextSpec, generator: torch.Generator, limits: Limits) -> Reconstruction:
        gradients = gradients_of(seen, NAME)
        network = read_network(seen, torch.float64, limits.device)
        if network.longest is not None and spec.length > network.longest:
            raise UnsupportedError(
                f"The texts have up to {spec.length} tokens and the network has positions for {network.longest}: no such text "
                "can have caused the update."
            )
        dtype = arithmetic_of(seen)
        kind = "prefix" if network.causal else "text"
        first = checked_sites(network, gradients, "token", spec.length, dtype, generator)
        tokens = usable(first)
        least = max((each.space.rank for each in first[:1]), default=1)
        later = checked_sites(network, gradients, kind, spec.length, dtype, generator)
        further = usable(later, least)
        noised = dtype not in HALF and any(each.space.noised for each in (*first, *later))
        notes = tuple(each.words() for each in (*tokens[:1], *further[:1]))
        choices, bag_note = self._choices(seen, spec, network, tokens, limits, generator)
        if choices is None or (not further and (network.causal or seen.num_examples > 1)):
            ids, mask = padded([], spec.length, spec.padding)
            rounded = (
                f"Every number of the update fits into {dtype}: it was rounded, and the directions of its weaker tokens drowned."
            )
            cause = NOISED if noised else rounded if dtype in HALF else self._wall(network, seen, tokens, gradients)
            outcome = Outcome.INCONSISTENT if noised or dtype in HALF else Outcome.UNDERDETERMINED
            return self._result(limits, Settled(ids, mask, None, float("nan"), False), outcome, cause, notes, False)
        notes += (bag_note,) if bag_note else ()
        if network.causal:
            found = decode(Growth(network, further[0].site), further[0].space, choices, seen.num_examples, lambda: limits.expired)
        else:
            found = search(network, further[0] if further else None, choices, seen.num_examples, generator, limits)
        settled = Settling(seen, network, gradients, limits).settle(found.sequences, found.stems)
        whole = self._exhausted(seen, found, settled)
        outcome, cause = self._verdict(seen, found, settled, limits, noised)
        notes += (f"{sum(map(len, choices))} pairs of token and position passed the first layer; {found.checked} extensions or "
                  f"texts were tried further up; {len(found.sequences)} passed to their end.", *settled.notes)  # fmt: skip
        return self._result(limits, settled, outcome, cause, notes, whole)

    @staticmethod
    def _choices(
        seen: Observation, spec: TextSpec, network: TextNetwork, tokens: list[Checked], limits: Limits, generator: torch.Generator
    ) -> tuple[list[Tensor] | None, str]:
        allowed = torch.zeros(network.vocabulary, dtype=torch.bool)
        allowed[: spec.vocabulary] = True
        if spec.padding is not None:
            allowed[spec.padding] = False
        if tokens:
            best = tokens[0]
            return candidates(network, best.site, best.space, spec.length, allowed, lambda: limits.expired), ""
        bag = None if network.tied else bag_of(seen, network, generator)
        if bag is None:
            return None, ""
        if not bag.consistent:
            return None, ""
        kept = bag.tokens[allowed[bag.tokens]].to(network.device)
        return [kept] * spec.length, "The first layer tells no tokens; those of the embedding gradient were tried everywhere."

    @staticmethod
    def _wall(network: TextNetwork, seen: Observation, tokens: list[Checked], gradients: dict[str, Tensor]) -> str:
        if not any(network.gradient(site, gradients) is not None for site in network.sites):
            return "No linear layer that sees tokens was shared, so there is no span to check."
        where = "At every layer further up" if tokens else "At the first layer"
        return (
            f"{where} the span of the gradient leaves no room: either the batch of {seen.num_examples} has as many tokens as the "
            f"layer is wide ({network.hidden}) or more, so that every text lies in the span, or the update was rounded until its "
            "small singular values drowned, or what was shared (adapters, the last layers) has too low a rank."
        )

    @staticmethod
    def _exhausted(seen: Observation, found: Decoded, settled: Settled) -> bool:
        """Whether the enumeration was complete and left exactly one set of texts."""
        return not found.cut and len(found.sequences) == seen.num_examples and settled.explains and settled.attempts == 1

    @staticmethod
    def _verdict(seen: Observation, found: Decoded, settled: Settled, limits: Limits, noised: bool) -> tuple[Outcome, str]:
        if limits.expired:
            return Outcome.TIMEOUT, "The clock ran out."
        if settled.explains:
            return Outcome.DETERMINED, ""
        if not found.sequences:
            return Outcome.INCONSISTENT, "No text's layer inputs lie in the span of the gradient."
        if math.isnan(settled.residual) and noised:
            return Outcome.INCONSISTENT, NOISED
        if math.isnan(settled.residual):
            return Outcome.UNDERDETERMINED, (
                f"{len(found.sequences)} texts passed for {seen.num_examples} examples, or their labels cannot be told; "
                "the update was not recomputed."
            )
        return Outcome.INCONSISTENT, f"The recomputed update differs by {settled.residual:.1e} of its size."

    @staticmethod
    def _result(
        limits: Limits, settled: Settled, outcome: Outcome, cause: str, notes: tuple[str, ...], whole: bool
    ) -> Reconstruction:
        certified = unverified(len(settled.ids))
        if whole and settled.explains and outcome is Outcome.DETERMINED:
            certified[:] = True
        labels = settled.labels
        return Reconstruction(
            inputs=settled.ids,
            labels=labels,
            outcome=outcome,
            explains=settled.explains,
            certified=certified,
            confidence=torch.full((len(settled.ids),), 1.0 if settled.explains else 0.5),
            stats=Stats(evaluations=settled.attempts, residual=settled.residual, cause=cause, notes=notes),
            seconds=limits.seconds,
            attack=NAME,
        )


@described(
    needs="one gradient (or plain SGD's change) of attention or MLP layers; fewer tokens in the batch than the network is wide",
    source="Petrov et al. 2024 (DAGER)",
)
def span_check() -> SpanCheck:
    """Exact texts of whole batches: token by token, those whose layer inputs lie in the span of the gradient."""
    return SpanCheck()
