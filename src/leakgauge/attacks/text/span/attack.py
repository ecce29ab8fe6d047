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
from leakgauge.attacks.text.span.walls import NOISED, dropped, wall
from leakgauge.attacks.verify import has_signal, no_texts
from leakgauge.core.observation import Observation
from leakgauge.core.reconstruction import Outcome, Reconstruction, Stats, unverified
from leakgauge.core.text_spec import TextSpec
from leakgauge.errors import UnsupportedError
from leakgauge.registry import described

NAME = "span-check"
HALF = ("float16", "bfloat16")


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
            raise no_texts(seen, NAME)
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
        drifted = seen.training.lr is not None and seen.training.steps_for(seen.num_examples) > 1
        first = checked_sites(network, gradients, "token", spec.length, dtype, generator, drifted=drifted)
        tokens = usable(first)
        least = max((each.space.rank for each in first[:1]), default=1)
        later = checked_sites(network, gradients, kind, spec.length, dtype, generator, drifted=drifted)
        further = usable(later, least)
        noised = dtype not in HALF and any(each.space.noised for each in (*first, *later))
        notes = tuple(each.words() for each in (*tokens[:1], *further[:1]))
        rounded = (
            f"Every number of the update fits into {dtype}: it was rounded, and the directions of its weaker tokens drowned."
        )
        lost = rounded if dtype in HALF else NOISED if noised else dropped(seen)
        blocked = (
            Outcome.INCONSISTENT if lost else Outcome.UNDERDETERMINED,
            lost or wall(network, seen, first, later, told=bool(tokens)),
        )
        choices, source = self._choices(seen, spec, network, tokens, limits, generator)
        if choices is None and network.causal and not first and further:
            every = self._allowed(spec, network).nonzero().flatten().to(network.device)
            choices, source = (
                [every] * spec.length,
                "No layer that sees single tokens was shared: the whole vocabulary was tried.",
            )
        if choices is None or (not further and seen.num_examples > 1):
            empty = Settled(*padded([], spec.length, spec.padding), None, float("nan"), False)
            return self._result(limits, empty, *blocked, notes, False)
        notes += (source,) if source else ()
        if network.causal and further:
            found = decode(Growth(network, further[0].site), further[0].space, choices, seen.num_examples, lambda: limits.expired)
        else:
            found = search(network, further[0] if further else None, choices, seen.num_examples, generator, limits)
        settled = Settling(seen, network, gradients, limits).settle(found.sequences, found.stems)
        whole = self._exhausted(seen, found, settled)
        outcome, cause = self._verdict(seen, found, settled, limits, noised, not network.causal)
        if outcome in (Outcome.INCONSISTENT, Outcome.UNDERDETERMINED) and (not further or not first or dropped(seen)):
            outcome, cause = blocked
        passed = f"{sum(map(len, choices))} pairs of token and position were left by the first layer"
        tried = f"{found.checked} extensions or texts were tried further up; {len(found.sequences)} passed to their end."
        notes += (f"{passed}; {tried}", *settled.notes)
        return self._result(limits, settled, outcome, cause, notes, whole)

    @staticmethod
    def _choices(
        seen: Observation, spec: TextSpec, network: TextNetwork, tokens: list[Checked], limits: Limits, generator: torch.Generator
    ) -> tuple[list[Tensor] | None, str]:
        """Tokens that may stand at each position, None where nothing tells them; and where they come from."""
        allowed = SpanCheck._allowed(spec, network)
        if tokens:
            best = tokens[0]
            return candidates(network, best.site, best.space, spec.length, allowed, lambda: limits.expired), ""
        bag = None if network.tied else bag_of(seen, network, generator)
        if bag is None or not bag.consistent:
            return None, ""
        kept = bag.tokens[allowed[bag.tokens]].to(network.device)
        return [kept] * spec.length, "The first layer tells no tokens; those of the embedding gradient were tried everywhere."

    @staticmethod
    def _allowed(spec: TextSpec, network: TextNetwork) -> Tensor:
        """(V,) bool: tokens that may occur."""
        allowed = torch.zeros(network.vocabulary, dtype=torch.bool)
        allowed[: spec.vocabulary] = True
        if spec.padding is not None:
            allowed[spec.padding] = False
        return allowed

    @staticmethod
    def _exhausted(seen: Observation, found: Decoded, settled: Settled) -> bool:
        """Whether the enumeration was complete and left exactly one set of texts."""
        return not found.cut and len(found.sequences) == seen.num_examples and settled.explains and settled.attempts == 1

    @staticmethod
    def _verdict(
        seen: Observation, found: Decoded, settled: Settled, limits: Limits, noised: bool, searched: bool
    ) -> tuple[Outcome, str]:
        if limits.expired:
            return Outcome.TIMEOUT, "The clock ran out."
        if settled.explains:
            return Outcome.DETERMINED, ""
        if found.cut and searched and len(found.sequences) < seen.num_examples:
            return Outcome.STEP_LIMIT, (
                f"The search for texts whose every position lies in the span found {len(found.sequences)} of {seen.num_examples}."
            )
        if not found.sequences:
            return Outcome.INCONSISTENT, "No text's layer inputs lie in the span of the gradient."
        if math.isnan(settled.residual) and noised:
            return Outcome.INCONSISTENT, NOISED
        if math.isnan(settled.residual):
            why = settled.notes[-1] if settled.notes else "their labels cannot be told."
            return Outcome.UNDERDETERMINED, (
                f"{len(found.sequences)} texts passed for {seen.num_examples} examples; the update was not recomputed. {why}"
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
