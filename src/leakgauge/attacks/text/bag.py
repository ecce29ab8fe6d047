"""`bag-of-tokens`: the set of tokens of a batch from the token embedding's gradient, with lengths where they can be known."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from leakgauge.attacks.base import Attack, Limits
from leakgauge.attacks.text.check import gradients_of
from leakgauge.attacks.text.network import TextNetwork, read_network
from leakgauge.attacks.text.rows import head_span
from leakgauge.attacks.text.span.first import candidates
from leakgauge.attacks.text.span.sites import checked_sites, usable
from leakgauge.attacks.text.span.subspace import UNIT
from leakgauge.core.observation import Observation
from leakgauge.core.reconstruction import Outcome, Reconstruction, Stats, unverified
from leakgauge.core.text_spec import TextSpec
from leakgauge.errors import UnsupportedError
from leakgauge.registry import described

NAME = "bag-of-tokens"


@dataclass(frozen=True)
class Bag:
    """Which tokens a batch held.

    Args:
        tokens: (T,) token ids, ascending; padding is none of them.
        longest: tokens of the longest text, or None where the position embedding was not trained or not shared.
        consistent: whether no more tokens were found than the batch can hold.
        conditions: what the set rests on.
    """

    tokens: Tensor
    longest: int | None
    consistent: bool
    conditions: str


def bag_of(seen: Observation, network: TextNetwork, generator: torch.Generator) -> Bag | None:
    """The tokens of a batch from the rows of the token embedding's gradient.

    Embedding apart from the head: a row is zero unless its token was read (in a causal model the last token of a text is not
    read; where the head was shared, its rows of labels are the ones that oppose the mean row). Embedding tied to the head: row
    v is the input's part plus sum_m c_mv h_m over all predictions, and no row is zero; the tokens that were read are then those
    whose first-layer input lies in the span of that layer's gradient, as in span-check.

    Args:
        seen: the observation.
        network: its network.
        generator: source of public random inputs.

    Returns:
        None where the token embedding was not trained or not shared.

    Source: the zero rows as in Melis et al. 2019, section 4.1, and Gupta et al. 2022 (FILM), section 3.2; the tied case by
    Petrov et al. 2024 (DAGER), section 4.2.
    """
    gradient = seen.tensors.get(network.tokens)
    if gradient is None or not isinstance(seen.spec, TextSpec):
        return None
    spec, rows = seen.spec, gradient[: seen.spec.vocabulary].double().to(network.device)
    sizes = rows.abs().amax(1)
    causal = spec.task == "causal"
    if network.tied:
        read, words = _tied(seen, network, rows, generator)
    elif seen.training.weight_decay or seen.training.proximal:
        read = sizes > _usual(sizes)
        words = "Weight decay or FedProx moves every row; rows of unusual size are taken."
    else:
        read = sizes > 0
        words = "A row of the embedding's gradient is zero unless its token was read: the set is exact without noise or pruning."
        if causal:
            label = _labels_of_head(seen, network)
            words += " The last token of each text is not read; " + (
                "labels were added from the head." if label is not None else "the head that knows it was not shared."
            )
            read = read | label.to(read.device) if label is not None else read
    if spec.padding is not None:
        read[spec.padding] = False
    tokens = read.nonzero().flatten().cpu()
    fits = len(tokens) <= seen.num_examples * spec.length
    return Bag(tokens, _longest(seen, network, causal), fits, words)


def _tied(seen: Observation, network: TextNetwork, rows: Tensor, generator: torch.Generator) -> tuple[Tensor, str]:
    assert isinstance(seen.spec, TextSpec)
    dtype = "bfloat16" if seen.training.amp else seen.training.dtype
    norms = rows.norm(dim=1)
    loud = norms > _usual(norms)
    try:
        found = usable(checked_sites(network, gradients_of(seen, NAME), "token", seen.spec.length, dtype, generator))
    except UnsupportedError:
        found = []
    if not found:
        outside = _outside(rows, norms, UNIT[dtype])
        if outside is not None:
            return outside, (
                "The embedding is tied to the head: rows that stick out of the span of the head's part were read; large ones "
                "within it were predicted. Texts without a predicted token cause no gradient: their tokens are not in the set."
            )
        return loud, (
            "The embedding is tied to the head and the first layer's gradient tells no tokens apart (too many tokens for its "
            "width, noise, or not shared): rows of unusual size are taken, tokens that were only "
            "predicted among them; this holds for a network that predicts evenly, as untrained ones do."
        )
    allowed = torch.ones(len(rows), dtype=torch.bool)
    read = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
    for tokens in candidates(network, found[0].site, found[0].space, seen.spec.length, allowed):
        read[tokens] = True
    words = "The embedding is tied to the head: tokens whose input lies in the span of the first layer's gradient were read."
    if seen.spec.task != "causal":
        return read, words
    return read | loud, words + (
        " Rows of unusual size were added for last tokens, which are predicted and never read; this "
        "holds for a network that predicts evenly."
    )


def _outside(rows: Tensor, norms: Tensor, unit: float) -> Tensor | None:
    """Rows (V, D) of a tied embedding's gradient of tokens that were read or predicted; None where their span leaves no room.

    The head's part of every row is a sum over the M hidden states that predicted. The quiet half of the rows, which are those
    of absent tokens, shows that span but for rounding: with n the noise of one number, row g is carried out of it by
    sqrt(D - r) n (|g|^2 + sum_m (g b_m)^2 / s_m^2)^(1/2), where b_m and s_m are its directions and singular values. The widest
    gap in the ratio to that lies below the tokens that were read. Rows of predicted tokens lie in the span, are large and
    oppose the quiet ones.
    """
    span = head_span(rows, unit)
    if span is None:
        return norms > 0
    width, shown, quiet = rows.shape[1], span.rank, span.rows
    if shown >= width - 1:
        return None
    noise = max(float(span.values[shown:].square().mean().sqrt()) / len(quiet) ** 0.5, 1e-3 * unit)
    inside = rows @ span.basis[:shown].T / span.values[:shown]
    away = (rows @ span.basis[shown:].T).norm(dim=1)
    expected = noise * (width - shown) ** 0.5 * (norms.square() + inside.square().sum(1)).sqrt()
    ratio = away / expected.clamp(min=1e-300)
    predicted = (norms > _usual(norms)) & (rows @ rows[quiet].mean(0) < 0)
    bar = max(float(ratio[quiet].median()), 1e-300)
    above = torch.cat([ratio.new_tensor([bar]), ratio[~predicted & (ratio > bar)].sort().values])
    place = int((above[1:] / above[:-1]).argmax()) if len(above) > 1 else 0
    gap = float((above[place] * above[min(place + 1, len(above) - 1)]).sqrt())
    read: Tensor = (ratio > gap) | predicted
    return read


def _labels_of_head(seen: Observation, network: TextNetwork) -> Tensor | None:
    """(V,) bool: rows of an untied head's gradient that oppose the mean row, as those of labels do."""
    if network.head is None or network.head not in seen.tensors:
        return None
    rows = seen.tensors[network.head].double()
    sizes = rows.norm(dim=1)
    return (rows @ rows.mean(0) < 0) | (sizes > _usual(sizes)) if bool((sizes > 0).any()) else None


def _usual(sizes: Tensor) -> float:
    """The largest size that passes as usual: as far above the median as the smallest lies below it, and half as much again.

    Most tokens of a vocabulary are absent, so the median and all below it belong to absent ones. Sizes are compared by their
    logarithm, and zeros left out.
    """
    logs = sizes[sizes > 0].log()
    if not len(logs):
        return 0.0
    return float((logs.median() + 1.5 * (logs.median() - logs.min())).exp())


def _longest(seen: Observation, network: TextNetwork, causal: bool) -> int | None:
    """Tokens of the longest text from the rows of the position embedding's gradient."""
    if network.positions is None or network.positions not in seen.tensors:
        return None
    rows = seen.tensors[network.positions][network.offset :].abs().amax(1)
    found = (rows > 0).nonzero().flatten()
    if not len(found):
        return None
    longest = int(found.max()) + 1 + int(causal)
    assert isinstance(seen.spec, TextSpec)
    return longest if longest <= seen.spec.length else None


@dataclass(frozen=True)
class BagOfTokens(Attack):
    """The set of tokens of a batch, without their order.

    The result's `inputs` are filled row by row with the tokens in ascending order; rows and order mean nothing.

    Source: Melis et al. 2019, section 4.1; Gupta et al. 2022 (FILM), section 3.2.
    """

    def __call__(self, seen: Observation, generator: torch.Generator, limits: Limits | None = None) -> Reconstruction:
        limits = limits or Limits()
        network = read_network(seen, torch.float64, limits.device)
        assert isinstance(seen.spec, TextSpec)
        bag = bag_of(seen, network, generator)
        if bag is None:
            raise UnsupportedError(
                f"{NAME} needs the gradient of the token embedding {network.tokens!r}, which was not trained or not shared. "
                "Use span-check, which does without."
            )
        if not len(bag.tokens):
            outcome, cause = Outcome.NO_GRADIENT_SIGNAL, "No row of the token embedding's gradient differs from zero."
        elif not bag.consistent:
            outcome = Outcome.INCONSISTENT
            cause = f"{len(bag.tokens)} rows differ from zero, more than the batch has tokens: the update was noised."
        else:
            outcome, cause = Outcome.UNDERDETERMINED, "The set is known; which text held which token, and where, is not."
        length = seen.spec.length
        kept = bag.tokens[: seen.num_examples * length]
        count = -(-len(kept) // length)
        filling = kept[-1:] if seen.spec.padding is None else torch.tensor([seen.spec.padding])
        inputs = torch.cat([kept, filling.expand(count * length - len(kept))] if len(kept) else [kept]).reshape(count, length)
        notes = [f"{len(bag.tokens)} tokens: {_few(bag.tokens)}. Rows and order of the result mean nothing.", bag.conditions]
        if bag.longest is not None:
            notes.append(f"The longest text has {bag.longest} tokens, by the position embedding's gradient.")
        return Reconstruction(
            inputs=inputs,
            labels=None,
            outcome=outcome,
            explains=False,
            certified=unverified(count),
            confidence=torch.full((count,), 1.0 if bag.consistent else 0.0),
            stats=Stats(cause=cause, notes=tuple(notes)),
            seconds=limits.seconds,
            attack=NAME,
        )


def _few(tokens: Tensor) -> str:
    shown = ", ".join(str(token) for token in tokens[:8].tolist())
    return shown + (", ..." if len(tokens) > 8 else "")


@described(
    needs="the gradient of a trained token embedding; any number of examples",
    source="Melis et al. 2019; Gupta et al. 2022 (FILM)",
)
def bag_of_tokens() -> BagOfTokens:
    """The exact set of tokens of a batch from the token embedding's gradient, without their order."""
    return BagOfTokens()
