"""How a matching attack handles labels: granted, recovered, or optimised with the pixels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from leakgauge.attacks.labels.recover import recover_labels
from leakgauge.core.observation import Observation
from leakgauge.errors import KnowledgeError, UnsupportedError

LABEL_MODES = ("auto", "known", "recovered", "joint", "softmax")


@dataclass(frozen=True)
class Labelling:
    """Settled labels.

    Args:
        labels: (N,) fixed labels, or None where they are optimised.
        classes: number of label columns, where labels are optimised.
        form: 'linear' or 'softmax'.
        source: 'known', 'recovered' or 'optimised jointly'.
        note: what the labels rest on, for the record.
    """

    labels: Tensor | None
    classes: int
    form: str
    source: str
    note: str


def settle_labels(seen: Observation, mode: str) -> Labelling:
    """Fixes the labels before a search, or leaves them to it.

    Raises:
        KnowledgeError: for mode 'known' where labels were not granted.
        UnsupportedError: where labels cannot be recovered or optimised.
    """
    if mode == "known" or (mode == "auto" and seen.labels is not None):
        if seen.labels is None:
            raise KnowledgeError("The attack was told to use known labels, but the threat model does not grant them.")
        return Labelling(seen.labels, 0, "", "known", "Labels were granted by the threat model.")
    if mode in ("joint", "softmax"):
        if seen.loss not in ("cross_entropy", "mse"):
            raise UnsupportedError("Labels can be optimised with the pixels only for the losses cross_entropy and mse.")
        form = "linear" if mode == "joint" else "softmax"
        return Labelling(
            None, classes_of(seen), form, "optimised jointly", "Soft labels were optimised together with the pixels."
        )
    found = recover_labels(seen)
    return Labelling(found.labels, 0, "", "recovered", f"Labels were recovered by the rule {found.rule!r}: {found.conditions}")


def classes_of(seen: Observation) -> int:
    """Number of outputs, from one forward pass of a blank input.

    Raises:
        UnsupportedError: if the output is not (N, K).
    """
    assert seen.pictures is not None
    like = next(seen.model.parameters())
    with torch.no_grad():
        output = seen.model(torch.zeros((1, *seen.pictures.shape), dtype=like.dtype, device=like.device))
    logits = output.logits if hasattr(output, "logits") else output
    if logits.ndim != 2:
        raise UnsupportedError(f"Labels can be optimised only for an output of shape (N, K); it is {tuple(logits.shape)}.")
    return int(logits.shape[1])
