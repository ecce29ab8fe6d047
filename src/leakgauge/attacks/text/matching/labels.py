"""Labels of a text batch: granted, or read off the last layer's bias gradient and then placed by least squares."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from leakgauge.attacks.labels.counts import to_whole
from leakgauge.attacks.labels.recover import last_linear, recover_labels, unit_displacement
from leakgauge.attacks.text.matching.head import head_of
from leakgauge.attacks.text.network import TextNetwork
from leakgauge.core.observation import Observation
from leakgauge.core.text_spec import IGNORED, TextSpec
from leakgauge.errors import UnsupportedError

PROBES = 16  # random public texts that the mean prediction is estimated on
WHOLE = 0.2  # counts this near to whole numbers settle how many tokens were predicted
SMALLEST = 1e-4  # singular values below this share of the largest are rounding


@dataclass(frozen=True)
class TextLabels:
    """What is known about labels before any token is.

    Args:
        labels: (N,) classes or (N, L) with -100, or None where only the multiset is known, or labels are the tokens.
        multiset: (M,) labels in no order, where they are to be placed; else None.
        note: what they rest on.
    """

    labels: Tensor | None
    multiset: Tensor | None
    note: str


def labels_of(seen: Observation, network: TextNetwork, generator: torch.Generator) -> TextLabels:
    """Labels as far as they are known without the tokens.

    Masked: the bias of the prediction head has the gradient mean_t p_tc - n_c / M over the M predicted tokens, so that
    n_c = M (p_c - db_c); M is the smallest number for which these are whole and add up to M, and not below the rank of the
    gradients of the layers before the head, which see predicted tokens only. Classification: iDLG's sign for
    one text, the same counts for several. Causal: labels are the tokens.

    Raises:
        UnsupportedError: where the head has no bias gradient, or a loss that is not cross-entropy.
    """
    spec = seen.spec
    assert isinstance(spec, TextSpec)
    if spec.task == "causal":
        return TextLabels(None, None, "Labels are the tokens themselves (causal language model).")
    if seen.labels is not None:
        return TextLabels(seen.labels, None, "Labels were granted by the threat model.")
    if spec.task == "classification" and seen.num_examples == 1:
        found = recover_labels(seen)
        return TextLabels(found.labels, None, f"Labels were recovered by the rule {found.rule!r}: {found.conditions}")
    name, bias = _head_bias(seen, spec)
    ids = torch.randint(network.vocabulary, (PROBES, spec.length), generator=generator).to(network.device)
    with torch.no_grad():
        output = network.module(**network.arguments(ids))
    logits = output.logits if hasattr(output, "logits") else output
    usual = logits.softmax(-1).reshape(-1, logits.shape[-1]).mean(0).double().cpu()
    if spec.task == "classification":
        counts = to_whole(seen.num_examples * (usual - bias), seen.num_examples)
        labels = torch.repeat_interleave(torch.arange(len(counts)), counts)
        note = f"Labels were counted from the gradient of {name!r} and the mean prediction on random texts."
        return TextLabels(labels, None, note)
    counts, miss = _predicted(bias, usual, seen, _at_least(seen, name))
    multiset = torch.repeat_interleave(torch.arange(len(counts)), counts)
    note = (
        f"{len(multiset)} masked label(s) were read off the gradient of {name!r} (distance of their counts from whole numbers "
        f"{miss:.3f}) and placed by least squares on the head's gradient; neither they nor the masked positions were granted."
    )
    return TextLabels(None, multiset, note)


def _head_bias(seen: Observation, spec: TextSpec) -> tuple[str, Tensor]:
    """Name and gradient (K,) of the last layer's bias, as one gradient of the client's loss."""
    if seen.loss not in ("cross_entropy",):
        raise UnsupportedError(f"Labels of a text can be recovered for cross-entropy only; the loss is {seen.loss!r}.")
    listed = {id(parameter): name for name, parameter in seen.model.named_parameters()}
    if spec.task == "classification":
        layer = last_linear(seen).module
    else:
        heads = [part for part in seen.model.modules() if isinstance(part, nn.Linear) and part.out_features == spec.vocabulary]
        if not heads:
            raise UnsupportedError("Masked labels cannot be recovered: no linear layer has one output per token id.")
        layer = heads[-1]
    name = "" if layer.bias is None else listed[id(layer.bias)]
    if name not in seen.tensors:
        raise UnsupportedError(
            "The labels cannot be recovered: the last layer's bias gradient was not shared. Grant Knowledge.LABELS, or share it."
        )
    if seen.training.optimiser != "sgd":
        raise UnsupportedError(f"Label counts need the size of the gradient, which {seen.training.optimiser} takes away.")
    factor = unit_displacement(replace(seen.training, reduction="mean"), seen.num_examples)
    return name, seen.tensors[name].double().cpu() / factor


def _at_least(seen: Observation, head: str) -> int:
    """The rank of the gradients of the two linear layers before the head: they see predicted tokens only."""
    layers = [name for name, part in seen.model.named_modules() if isinstance(part, nn.Linear) and f"{name}.bias" != head]
    ranks = []
    for name in layers[-2:]:
        gradient = seen.tensors.get(f"{name}.weight")
        if gradient is not None and bool((gradient != 0).any()):
            values = torch.linalg.svdvals(gradient.double().cpu())
            ranks.append(int((values > SMALLEST * values[0]).sum()))
    return min(ranks, default=1)


def _predicted(bias: Tensor, usual: Tensor, seen: Observation, least: int) -> tuple[Tensor, float]:
    """(V,) counts of masked labels, and how far they were from whole numbers; `least` predicted tokens or more."""
    assert isinstance(seen.spec, TextSpec)
    if seen.training.reduction == "sum":
        total = int((-bias).clamp(min=0).round().sum())
        raw = total * usual - bias
        return raw.round().clamp(min=0).long(), float((raw - raw.round()).abs().max())
    best: tuple[Tensor, float] | None = None
    most = seen.num_examples * seen.spec.length
    for total in range(min(least, most), most + 1):
        raw = total * (usual - bias)
        counts = raw.round().clamp(min=0).long()
        miss = float((raw - counts).abs().max()) + abs(int(counts.sum()) - total)
        if best is None or miss < best[1]:
            best = counts, miss
        if miss < WHOLE:
            break
    assert best is not None
    return best


@torch.no_grad()
def place_labels(
    network: TextNetwork, arguments: dict[str, Tensor], mask: Tensor, multiset: Tensor, observed: dict[str, Tensor]
) -> Tensor:
    """(N, L) labels: each of the multiset at the position where the head's gradient then comes nearest to the observed one.

    The gradient of the mean loss is a sum over predicted tokens, (1/M) sum_k g(t_k, c_k), so that the places are a least
    squares problem over whole numbers: greedy, then one at a time until none moves.

    Args:
        network: the network.
        arguments: its keyword arguments for the candidate.
        mask: (N, L).
        multiset: (M,).
        observed: gradients of parameters after the last attention block, by name.
    """
    labels = torch.full(mask.shape, IGNORED, device=mask.device)
    slots = mask.flatten().nonzero().flatten()
    chosen = torch.unique(multiset)
    head = head_of(network, arguments, observed)
    if head is None:
        return _anywhere(labels, slots, multiset)
    rows = []
    for slot in slots.tolist():
        usual = head.logits.detach().flatten(0, 1)[slot].softmax(0) @ head.weight
        for label in chosen.tolist():
            cotangent = torch.zeros_like(head.hidden)  # of -log softmax in the head's input
            cotangent.flatten(0, 1)[slot] = usual - head.weight[label]
            rows.append(head.gradient(head.hidden, cotangent))
    gradients = torch.stack(rows) / len(multiset)
    goal = torch.cat([tensor.flatten().to(gradients) for tensor in observed.values()])
    gram, along = gradients @ gradients.T, gradients @ goal
    column = {int(label): index for index, label in enumerate(chosen)}
    picks = _fit(gram, along, [column[int(label)] for label in multiset], len(slots), len(chosen))
    for label, slot in zip(multiset.tolist(), picks, strict=True):
        labels.view(-1)[slots[slot]] = label
    return labels


def _anywhere(labels: Tensor, slots: Tensor, multiset: Tensor) -> Tensor:
    """Labels at the first slots, where nothing was shared that could place them."""
    count = min(len(slots), len(multiset))
    labels.view(-1)[slots[:count]] = multiset[:count]
    return labels


def _fit(gram: Tensor, along: Tensor, columns: list[int], places: int, kinds: int) -> list[int]:
    """For each label the place that minimises ||sum of chosen gradients - goal||^2; no place is taken twice."""
    picks: list[int | None] = [None] * len(columns)
    for _ in range(2 + len(columns)):
        moved = False
        for index, column in enumerate(columns):
            others = [place * kinds + columns[other] for other, place in enumerate(picks) if other != index and place is not None]
            taken = {place for other, place in enumerate(picks) if other != index and place is not None}
            own = torch.arange(places, device=gram.device) * kinds + column
            cost = gram[own, own] - 2 * along[own]
            if others:
                cost = cost + 2 * gram[own][:, others].sum(1)
            cost[list(taken)] = float("inf")
            place = int(cost.argmin())
            moved = moved or place != picks[index]
            picks[index] = place
        if not moved:
            break
    return [place for place in picks if place is not None]
