"""How many examples of each class a batch held, from the gradient of the last layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from leakgauge.core.observation import Observation
from leakgauge.errors import UnsupportedError

if TYPE_CHECKING:
    from leakgauge.attacks.labels.recover import LastLayer

PROBES = 64


def counts_from_gradient(seen: Observation, layer: LastLayer) -> tuple[Tensor, str]:
    """(K,) counts that sum to N, and the conditions they rest on.

    The bias gradient of the mean loss is db_c = mean_i p_c(x_i) - n_c / N, so n_c = N (p_c - db_c). The mean probability p is
    unknown. Estimate 1: the model's mean output on public noise inputs. Estimate 2: the rows of classes that are (by estimate
    1) absent give the weighted feature mean dW_c / db_c, whose softmax is p. The estimate whose counts are nearest to whole
    numbers is taken, then rounded to N in all by largest remainders.
    """
    if layer.bias is None:
        raise UnsupportedError("Label counts need the bias gradient of the last layer, which has none or did not share it.")
    count = seen.num_examples
    smoothing = seen.training.label_smoothing
    estimates = [probed(seen)]
    refined = _from_rows(layer, estimates[0], count)
    if refined is not None:
        estimates.append(refined)
    best, miss = None, float("inf")
    for probabilities in estimates:
        raw = count * (probabilities - layer.bias)
        raw = (raw - count * smoothing / len(raw)) / (1 - smoothing)
        distance = float((raw - raw.round()).abs().mean() + (-raw).clamp(min=0).mean())
        if distance < miss:
            best, miss = raw, distance
    assert best is not None
    conditions = (
        "cross-entropy with a bias in the last layer, one local step, and class probabilities that hardly differ between "
        f"inputs (an untrained network); mean distance of the raw counts from whole numbers: {miss:.3f}."
    )
    return to_whole(best, count), conditions


def probed(seen: Observation) -> Tensor:
    """(K,) mean class probabilities of the model on public inputs: smooth and rough noise over the whole range."""
    if seen.spec is None:
        raise UnsupportedError("Label counts need the input's spec to probe the model.")
    generator = torch.Generator().manual_seed(0)  # fixed public probes: part of the method, not of the result's seed
    channels, height, width = seen.spec.shape
    like = next(seen.model.parameters())
    pictures = []
    for index in range(PROBES):
        cells = (1, 2, 4, 8)[index % 4]
        coarse = torch.rand(1, channels, min(cells, height), min(cells, width), generator=generator)
        pictures.append(torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear", align_corners=False))
    inputs = seen.spec.normalise(torch.cat(pictures)).to(like)
    with torch.no_grad():
        output = seen.model(inputs)
    logits = output.logits if hasattr(output, "logits") else output
    mean: Tensor = logits.double().softmax(1).mean(0).cpu()
    return mean


def _from_rows(layer: LastLayer, probabilities: Tensor, count: int) -> Tensor | None:
    """p from the features that absent classes reveal; None where no class looks absent or the weight was withheld."""
    if layer.weight is None or layer.bias is None:
        return None
    absent = (count * (probabilities - layer.bias)).round() <= 0
    absent &= layer.bias > 0
    if not bool(absent.any()):
        return None
    features = layer.weight[absent].sum(0) / layer.bias[absent].sum()
    weight = layer.module.weight.detach().double().cpu()
    bias = layer.module.bias.detach().double().cpu()
    return (weight @ features + bias).softmax(0)


def to_whole(raw: Tensor, total: int) -> Tensor:
    """Non-negative whole numbers nearest to `raw` that sum to `total`, by largest remainders."""
    clipped = raw.clamp(min=0)
    floor = clipped.floor()
    counts = floor.long()
    rest = total - int(counts.sum())
    remainder = clipped - floor
    while rest > 0:
        chosen = remainder.argsort(descending=True)[:rest]
        counts[chosen] += 1
        remainder[chosen] -= 1
        rest = total - int(counts.sum())
    while rest < 0:
        held = counts > 0
        order = torch.where(held, remainder, torch.full_like(remainder, float("inf"))).argsort()[:-rest]
        order = order[held[order]]
        counts[order] -= 1
        remainder[order] += 1
        rest = total - int(counts.sum())
    return counts
