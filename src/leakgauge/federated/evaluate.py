"""Accuracy and loss of a model on a validation batch."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from leakgauge.core.callables import Loss
from leakgauge.core.training import LocalTraining
from leakgauge.local.losses import loss_value
from leakgauge.local.network import cast
from leakgauge.truth.batch import Batch

ROWS = 256  # examples per forward pass


def evaluate(model: nn.Module, batch: Batch, loss: Loss) -> tuple[float, float]:
    """Accuracy and mean loss in eval mode, without gradients.

    Args:
        model: any module; it is put into eval mode.
        batch: the validation examples.
        loss: name or callable (taken for a mean over its rows).

    Returns:
        The share of right classes in [0, 1] (an output that is not finite counts as wrong; NaN where labels are no
        classes), and the mean loss (NaN where it is not finite).
    """
    model.eval()
    like = next(model.parameters())
    right: float = 0.0
    total: float = 0.0
    with torch.no_grad():
        for start in range(0, len(batch), ROWS):
            rows = slice(start, start + ROWS)
            labels = batch.labels[rows].to(like.device)
            if isinstance(batch.inputs, Tensor):
                inputs = batch.inputs[rows].to(like.device)
                output = model(inputs.to(like.dtype) if inputs.is_floating_point() else inputs)
            else:
                parts = {name: tensor[rows].to(like.device) for name, tensor in batch.inputs.items()}
                output = model(**cast(parts, like.dtype))
            total += float(loss_value(loss, output, labels, LocalTraining())) * len(labels)
            right += _right(getattr(output, "logits", output), labels, loss)
    mean = total / len(batch)
    return right / len(batch), mean if math.isfinite(mean) else float("nan")


def _right(output: Tensor, labels: Tensor, loss: Loss) -> float:
    """Number of rows whose class is right; NaN where labels are no classes."""
    if loss == "binary_cross_entropy" or (output.numel() == len(labels) and not labels.is_floating_point()):
        scores = output.reshape(len(labels), -1)
        agree = ((scores > 0).long() == labels.reshape(len(labels), -1).long()).all(1)
    elif output.ndim == 2 and labels.ndim == 2 and labels.shape == output.shape:
        scores, agree = output, output.argmax(1) == labels.argmax(1)
    elif output.ndim == 2 and labels.ndim == 1 and not labels.is_floating_point():
        scores, agree = output, output.argmax(1) == labels
    else:
        return float("nan")
    return float((agree & torch.isfinite(scores).all(1)).sum())
