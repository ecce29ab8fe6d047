"""Labels of a batch from the gradient of its last layer: iDLG's sign, counts for batches, the minimum rule."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from leakgauge.attacks.labels.counts import counts_from_gradient
from leakgauge.core.observation import Observation
from leakgauge.core.training import LocalTraining
from leakgauge.errors import OptionError, UnsupportedError

RULES = ("auto", "sign", "counts", "minimum")


@dataclass(frozen=True)
class RecoveredLabels:
    """A multiset of labels, and what it rests on.

    Args:
        labels: (N,) class indices in ascending order; a multiset, since a sum has no order.
        counts: (K,) examples of each class.
        rule: 'sign', 'counts' or 'minimum'.
        exact: whether the rule is exact under its conditions.
        conditions: what must hold for it to be right.
    """

    labels: Tensor
    counts: Tensor
    rule: str
    exact: bool
    conditions: str


def recover_labels(seen: Observation, rule: str = "auto") -> RecoveredLabels:
    """Which labels the batch held, from the last linear layer's gradient.

    Rules: 'sign' (one example: the only class whose bias gradient p_c - 1[c = y] is negative, or whose weight row opposes
    all others), 'counts' (n_c = N (p_c - dL/db_c) with the probabilities p estimated from the update itself and from public
    inputs, rounded to N in all; duplicates too), 'minimum' (the N most negative row minima, each class once),
    'auto' (sign for one example, else counts).

    Args:
        seen: what the attacker holds; one gradient, or a single local step.
        rule: 'auto', 'sign', 'counts' or 'minimum'.

    Raises:
        OptionError: for an unknown rule.
        UnsupportedError: if there is no linear layer at the end that was shared, or the loss is not cross-entropy.

    Source: Zhao et al. 2020 (iDLG), section 3; Yin et al. 2021 (GradInversion), equation 6, for the minimum rule; the counts
    follow from the cross-entropy gradient, as in Geng et al. 2021.
    """
    if rule not in RULES:
        raise OptionError(f"There is no label rule {rule!r}; expected one of {', '.join(RULES)}.")
    if seen.loss == "binary_cross_entropy" and seen.num_examples == 1:
        return _one_logit(seen)
    if seen.loss != "cross_entropy":
        raise UnsupportedError(
            f"Labels cannot be read from this update: the rules hold for cross-entropy, and the loss is {seen.loss!r}."
        )
    layer = last_linear(seen)
    if rule == "auto":
        rule = "sign" if seen.num_examples == 1 else "counts"
    if rule == "sign":
        return _by_sign(seen, layer)
    if rule == "minimum":
        return _by_minimum(seen, layer)
    counts, conditions = counts_from_gradient(seen, layer)
    return RecoveredLabels(_expand(counts), counts, "counts", False, conditions)


@dataclass(frozen=True)
class LastLayer:
    """The last linear layer and its share of the update, as a gradient of the mean loss.

    Args:
        name: in `named_modules`.
        module: the layer.
        weight: (K, D) gradient, or None where it was withheld.
        bias: (K,) gradient, or None where there is none.
        factor: the observed update is `factor` times the gradient of the mean loss.
    """

    name: str
    module: nn.Linear
    weight: Tensor | None
    bias: Tensor | None
    factor: float


def last_linear(seen: Observation) -> LastLayer:
    """The last linear layer of the model, with its gradient in float64.

    Raises:
        UnsupportedError: if there is none, or neither its weight nor its bias was shared.
    """
    linear = [(name, module) for name, module in seen.model.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise UnsupportedError("Labels cannot be read from this update: the model has no linear layer.")
    name, module = linear[-1]
    prefix = f"{name}." if name else ""
    factor = unit_displacement(seen.training, seen.num_examples)
    weight, bias = seen.tensors.get(prefix + "weight"), seen.tensors.get(prefix + "bias")
    if weight is None and bias is None:
        raise UnsupportedError(f"Labels cannot be read from this update: the last linear layer {name!r} was not shared.")
    return LastLayer(
        name,
        module,
        None if weight is None else weight.double().cpu() / factor,
        None if bias is None else bias.double().cpu() / factor,
        factor,
    )


def unit_displacement(training: LocalTraining, num_examples: int) -> float:
    """The update that a constant mean gradient of 1 would have caused: SGD's rule, step by step."""
    examples = 1
    if training.reduction == "sum":
        examples = min(training.batch_size or num_examples, num_examples) * training.accumulation
    if training.lr is None:
        return float(examples)
    velocity, total = 0.0, 0.0
    for step in range(training.steps_for(num_examples)):
        factor = 1.0 if training.schedule is None else training.schedule[min(step, len(training.schedule) - 1)]
        velocity = training.momentum * velocity + 1.0
        direction = 1.0 + training.momentum * velocity if training.nesterov else velocity
        total -= training.lr * factor * direction * examples
    return total


def _expand(counts: Tensor) -> Tensor:
    return torch.repeat_interleave(torch.arange(len(counts)), counts)


def _found(labels: Tensor, classes: int, rule: str, exact: bool, conditions: str) -> RecoveredLabels:
    ordered = labels.sort().values
    return RecoveredLabels(ordered, torch.bincount(ordered, minlength=classes), rule, exact, conditions)


def _by_sign(seen: Observation, layer: LastLayer) -> RecoveredLabels:
    if seen.num_examples != 1:
        raise UnsupportedError(f"The sign rule reads one label; the batch has {seen.num_examples}. Use the rule 'counts'.")
    if layer.bias is not None:
        scores, why = layer.bias, "one example, cross-entropy, a bias in the last layer: the rule is exact."
    else:
        assert layer.weight is not None
        # Row c is (p_c - 1[c = y]) times the features: the true row opposes all others (most negative inner products).
        gram = layer.weight @ layer.weight.T
        scores, why = gram.sum(1) - gram.diagonal(), "one example, cross-entropy, no bias: exact for three classes or more."
    return _found(scores.argmin().reshape(1), len(scores), "sign", True, why)


def _by_minimum(seen: Observation, layer: LastLayer) -> RecoveredLabels:
    if layer.weight is None:
        raise UnsupportedError("The minimum rule needs the last layer's weight gradient, which was not shared.")
    lowest = layer.weight.amin(1)
    if seen.num_examples > len(lowest):
        raise UnsupportedError(
            "The minimum rule names each class at most once; "
            f"the batch has {seen.num_examples} examples of {len(lowest)} classes."
        )
    found = lowest.argsort()[: seen.num_examples]
    return _found(found, len(lowest), "minimum", False, "no class occurs twice, and last features are not negative.")


def _one_logit(seen: Observation) -> RecoveredLabels:
    """The sign of p - y is the sign of the bias gradient."""
    layer = last_linear(seen)
    if layer.bias is None:
        raise UnsupportedError("The label of a one-logit loss needs the last layer's bias gradient.")
    label = (layer.bias.reshape(-1)[:1] < 0).long()
    return _found(label, 2, "sign", True, "one example, one logit with a bias: the rule is exact.")
