"""`april`: one text or one picture in closed form, from the gradient of a learnable position embedding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from leakgauge.attacks.base import Attack, Limits
from leakgauge.attacks.exact.patches.attack import picture_of
from leakgauge.attacks.text.check import arithmetic_of, explained, gradients_of, padded, text_target
from leakgauge.attacks.text.identity import identity_holds, nearest, solved
from leakgauge.attacks.text.network import TextNetwork, read_network
from leakgauge.attacks.text.rows import FITS, masked_labels, order_of, rows_hold
from leakgauge.attacks.text.span.settle import Settled, Settling
from leakgauge.attacks.text.span.subspace import UNIT
from leakgauge.attacks.verify import agrees, has_signal
from leakgauge.core.observation import Observation
from leakgauge.core.reconstruction import Outcome, Reconstruction, Stats, unverified
from leakgauge.core.spec import ImageSpec
from leakgauge.core.text_spec import TextSpec
from leakgauge.errors import UnsupportedError
from leakgauge.registry import described

NAME = "april"
CLEAR = 2.0  # how many times worse the second best token must fit at every position, for a certificate


@dataclass(frozen=True)
class April(Attack):
    """One example, from the gradient of a learnable position embedding: its row t is the loss's gradient d_t by token t's input.

    Text, token embedding trained: row v of its gradient is the sum of d_t over the places where token v stands. Picture: the
    layer that reads patches p_t has the gradient sum_t d_t p_t^T. Both hold for any network behind, whatever its
    attention does, and for sums over steps of SGD.

    Text, token embedding frozen or not shared: X^T T = dQ W_q^T + dK W_k^T + dV W_v^T is solved for the inputs X (L, D) of the
    first attention layer, where T holds the d_t and nothing but that layer reads them. dQ, dK, dV are gradients (D, D_out) of the
    weights in y = x W. The identity is tried on a public text first.

    Source: Lu et al. 2022 (APRIL), proposition 1 and section 3.2 for the attention; the gradient of a linear layer (Phong et al.
    2017, section III) for the others.
    """

    def __call__(self, seen: Observation, generator: torch.Generator, limits: Limits | None = None) -> Reconstruction:
        limits = limits or Limits()
        if isinstance(seen.spec, ImageSpec):
            found = picture_of(seen, seen.spec, generator, limits)
        elif isinstance(seen.spec, TextSpec):
            found = text_of(seen, seen.spec, generator, limits)
        else:
            raise UnsupportedError(f"{NAME} needs an ImageSpec or a TextSpec; the observation has none.")
        if seen.training.mode == "train" and any(isinstance(part, nn.Dropout) and part.p > 0 for part in seen.model.modules()):
            if found.outcome is Outcome.INCONSISTENT:
                found = replace(found, outcome=Outcome.CONVERGED)
            words = (
                "The client's dropout is not known, so the update cannot be recomputed; the closed form does not depend on it."
            )
            found = replace(found, stats=replace(found.stats, notes=(*found.stats.notes, words)))
        return found


def text_of(seen: Observation, spec: TextSpec, generator: torch.Generator, limits: Limits) -> Reconstruction:
    """`April` on a text.

    Raises:
        UnsupportedError: with every reason why neither set of equations can be used.
    """
    if not has_signal(seen):
        empty = Settled(*padded([], spec.length, spec.padding), None, float("nan"), False)
        return _result(empty, Outcome.NO_GRADIENT_SIGNAL, False, (), limits)
    network = read_network(seen, torch.float64, limits.device)
    reasons = []
    if seen.num_examples != 1:
        reasons.append(f"it reads one example, and the batch has {seen.num_examples}")
    gradients = gradients_of(seen, NAME)
    if network.positions is None or network.positions not in gradients:
        reasons.append("it needs the gradient of a learnable position embedding")
    if reasons:
        raise UnsupportedError(f"{NAME} cannot treat this update: {'; '.join(reasons)}. Use span-check.")
    with torch.no_grad():
        if network.tokens in gradients and rows_hold(network, generator):
            told = order_of(network, gradients, spec.vocabulary, UNIT[arithmetic_of(seen)])
            if told is not None:
                settled = _settled(seen, network, gradients, told.tokens, limits)
                words = (
                    f"{len(told.tokens)} tokens from the rows of {network.tokens!r} and {network.positions!r}; the worst row is "
                    f"off by {told.worst:.1e} of its size."
                )
                sure = told.worst <= FITS
                return _result(settled, _outcome(settled, sure), sure and told.apart > CLEAR, (words,), limits)
            reasons.append("the token embedding is tied to the head, whose part of its gradient leaves no room for the input's")
        return _by_identity(seen, spec, network, gradients, generator, limits, reasons)


def _by_identity(
    seen: Observation,
    spec: TextSpec,
    network: TextNetwork,
    gradients: Mapping[str, Tensor],
    generator: torch.Generator,
    limits: Limits,
    reasons: list[str],
) -> Reconstruction:
    if not reasons:
        missing = "was not trained or not shared" if network.tokens not in gradients else "is not simply added to the positions"
        reasons.append(f"the token embedding {network.tokens!r} {missing}")
    held = len(reasons)
    if not seen.training.is_one_gradient:
        reasons.append("the identity of the first attention layer needs one gradient, and the client took several local steps")
    elif not network.attention or any(name not in gradients for name in network.attention[0].names):
        reasons.append("the gradients of the first attention layer's query, key and value weights are not there")
    elif not identity_holds(network, generator):
        reasons.append("a residual connection or a norm lets the position embedding's gradient pass by the first attention layer")
    if len(reasons) > held:
        raise UnsupportedError(f"{NAME} cannot treat this update: {'; '.join(reasons)}. Use span-check.")
    inputs, off = solved(network, gradients)
    tokens, apart = nearest(network, inputs, spec.vocabulary)
    settled = _settled(seen, network, gradients, tokens, limits)
    words = (
        f"{len(tokens)} tokens; relative residual of the closed form {off:.1e}; the second nearest embedding is at least "
        f"{apart:.3g} times as far as the nearest."
    )
    return _result(settled, _outcome(settled, True), apart > CLEAR, (words,), limits)


def _settled(seen: Observation, network: TextNetwork, gradients: Mapping[str, Tensor], tokens: Tensor, limits: Limits) -> Settled:
    """The text with its labels and, for a causal model, its last token; the update recomputed where that can be done."""
    assert isinstance(seen.spec, TextSpec)
    if seen.spec.task != "masked":
        return Settling(seen, network, gradients, limits).tried([tokens], 1)
    ids, mask = padded([tokens], seen.spec.length, seen.spec.padding)
    labels = seen.labels if seen.labels is not None else masked_labels(network, gradients, ids, mask)
    if labels is None:
        return Settled(ids, mask, None, float("nan"), False)
    residual = explained(seen, text_target(seen, limits), ids, mask, labels)
    fits = agrees(residual, seen, "float32" if seen.training.dtype != "float64" else "float64")
    return Settled(ids, mask, labels, residual, fits, (), 1)


def _outcome(settled: Settled, sure: bool) -> Outcome:
    if settled.explains:
        return Outcome.DETERMINED
    return Outcome.CONVERGED if settled.labels is None and sure else Outcome.INCONSISTENT


def _result(settled: Settled, outcome: Outcome, unique: bool, words: tuple[str, ...], limits: Limits) -> Reconstruction:
    certified = unverified(len(settled.ids))
    certified[:] = settled.explains and unique
    return Reconstruction(
        inputs=settled.ids,
        labels=settled.labels,
        outcome=outcome,
        explains=settled.explains,
        certified=certified,
        confidence=torch.full((len(settled.ids),), 1.0 if settled.explains else 0.5),
        stats=Stats(evaluations=settled.attempts, residual=settled.residual, notes=(*words, *settled.notes)),
        seconds=limits.seconds,
        attack=NAME,
    )


@described(
    needs="one text or picture; the gradient of a learnable position embedding, and of the token or patch embedding",
    source="Lu et al. 2022 (APRIL); Phong et al. 2017",
)
def april() -> April:
    """Closed form for one text or picture: a position embedding's gradient is the loss's gradient by each token."""
    return April()
