"""The losses by name, written once for clients and attacks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from leakgauge.core.callables import Loss
from leakgauge.core.training import LocalTraining


def _by_token(output: Any, logits: Tensor, target: Tensor) -> bool:
    """Whether logits (N, L, V) hold one prediction per token; torch's own layout for sequences is (N, V, L)."""
    if logits.ndim != 3 or target.ndim < 2 or logits.shape[:2] != target.shape[:2]:
        return False
    return hasattr(output, "logits") or target.ndim == 3 or logits.shape[2] != target.shape[1]


def loss_value(loss: Loss, output: Any, target: Tensor, training: LocalTraining) -> Tensor:
    """The scalar loss of one mini-batch.

    Args:
        loss: 'cross_entropy' (target (N,) classes or (N, K) probabilities; for logits (N, L, V) of a text (N, L) token ids, or
            (N, L, V) probabilities, with -100 where nothing is predicted), 'causal_cross_entropy' (the same, logits at t
            against the target at t + 1), 'binary_cross_entropy' (one logit per example, target (N,) of 0 or 1), 'mse' (target
            like the output, or (N,) classes, turned into one-hot rows), or a callable (output, target) -> scalar.
        output: what the model returned; an object with `logits` is opened.
        target: labels.
        training: reduction, label smoothing and class weights.
    """
    if callable(loss):
        return torch.as_tensor(loss(output, target))
    logits: Tensor = output.logits if hasattr(output, "logits") else output
    if loss in ("cross_entropy", "causal_cross_entropy"):
        weights = None
        if loss == "causal_cross_entropy":
            logits, target = logits[:, :-1], target[:, 1:]
        if _by_token(output, logits, target):
            logits, target = logits.flatten(0, 1), target.flatten(0, 1)
        if training.class_weights is not None:
            weights = torch.tensor(training.class_weights, dtype=logits.dtype, device=logits.device)
        if target.is_floating_point():
            target = target.to(logits.dtype)
        return functional.cross_entropy(
            logits, target, weight=weights, reduction=training.reduction, label_smoothing=training.label_smoothing
        )
    if loss == "binary_cross_entropy":
        return functional.binary_cross_entropy_with_logits(
            logits.reshape(-1), target.reshape(-1).to(logits.dtype), reduction=training.reduction
        )
    if target.ndim < logits.ndim and not target.is_floating_point():
        target = functional.one_hot(target, logits.shape[-1])
    return functional.mse_loss(logits, target.to(logits.dtype).reshape(logits.shape), reduction=training.reduction)
