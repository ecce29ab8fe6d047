"""How many examples of each class a batch held, from the gradient of the last layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from leakgauge.core.observation import Observation
from leakgauge.errors import UnsupportedError

if TYPE_CHECKING:
    from leakgauge.attacks.labels.recover import LastLayer

PROBES = 64
ROUNDS = 4  # of features from the rows of present classes; later ones hardly move the counts
FEWEST = 5  # classes whose rows must be usable before their features are trusted


def counts_from_gradient(seen: Observation, layer: LastLayer) -> tuple[Tensor, str]:
    """(K,) counts that sum to N, and the conditions they rest on.

    The bias gradient of the mean loss is db_c = mean_i p_c(x_i) - n_c / N, so n_c = N (p_c - db_c), where the batch's mean
    probabilities p are unknown. Estimates of p:

    1. the model's mean output on public noise inputs;
    2. the softmax at the mean feature of the batch, which the rows of absent classes are (dW_c / db_c, weighted by p_c);
    3. the mean softmax at features of the batch itself: the row of a class that is present and improbable is its own mean
       feature, a_c = (mean_i p_c a - dW_c) N / n_c. Where n_c pictures were averaged, the deviation of a_c from the mean of
       all is stretched by the square root of n_c, which restores the spread that averaging took (exact in the second
       moment where classes do not differ in their features, as in an untrained network); a few rounds, since counts and
       features need each other.

    The estimate whose counts are nearest to whole numbers is taken, then rounded to N in all by largest remainders.
    Label smoothing and class weights are accounted for.

    Raises:
        UnsupportedError: without a bias gradient, for Adam, which hides the size of each number, or for label smoothing
            together with class weights.

    Source: the first two as in Geng et al. 2021 and Ma et al. 2023 (iLRG); the third is derived here.
    """
    if layer.bias is None:
        raise UnsupportedError("Label counts need the bias gradient of the last layer, which has none or did not share it.")
    if seen.training.optimiser != "sgd":
        raise UnsupportedError(f"Label counts need the size of the gradient, which {seen.training.optimiser} takes away.")
    if seen.training.label_smoothing and seen.training.class_weights is not None:
        raise UnsupportedError("Label counts are not worked out for label smoothing together with class weights.")
    equation = _Equation.of(seen, layer.bias)
    features = _features(seen, layer)
    first = _mean_softmax(layer, features, torch.full((len(features),), 1.0 / len(features), dtype=torch.float64))
    estimates = [first]
    if layer.weight is not None:
        estimates += _from_absent(layer, equation, first)
        estimates += _from_present(layer, layer.weight, equation, first, features.mean(0))
    raws = [equation.raw(probabilities) for probabilities in estimates]
    misses = [float((raw - raw.round()).abs().mean() + (-raw).clamp(min=0).mean()) for raw in raws]
    best = min(range(len(raws)), key=lambda index: misses[index])
    conditions = (
        "cross-entropy with a bias in the last layer, one local step, and class probabilities that differ little between "
        f"inputs (an untrained network); mean distance of the raw counts from whole numbers: {misses[best]:.3f}."
    )
    if seen.training.clip_norm is not None:
        conditions += " The client clips its gradient; where that happened the counts are off."
    return to_whole(raws[best], equation.total), conditions


@dataclass(frozen=True)
class _Equation:
    """What ties counts to mean probabilities: db_c = s (p_c - (1 - e) w_c n_c / W - e / K).

    W = sum_c w_c n_c with class weights w, e the label smoothing; s = 1 for the mean loss, W / N for the sum (divided by N).

    Args:
        bias: (K,) db.
        total: N.
        smoothing: e.
        weights: (K,) w.
        summed: whether the loss is a sum.
    """

    bias: Tensor
    total: int
    smoothing: float
    weights: Tensor
    summed: bool

    @staticmethod
    def of(seen: Observation, bias: Tensor) -> _Equation:
        given = seen.training.class_weights
        weights = torch.ones_like(bias) if given is None else torch.tensor(given, dtype=torch.float64)
        summed = given is not None and seen.training.reduction == "sum"
        return _Equation(bias, seen.num_examples, seen.training.label_smoothing, weights, summed)

    def scale(self, probabilities: Tensor) -> float:
        """s, from the sum of all counts."""
        if not self.summed:
            return 1.0
        return float((1.0 + (self.bias / self.weights).sum()) / (probabilities / self.weights).sum())

    def raw(self, probabilities: Tensor) -> Tensor:
        """(K,) counts before rounding; their sum is N."""
        share = probabilities - self.bias / self.scale(probabilities)
        share = (share - self.smoothing / len(share)) / (1 - self.smoothing) / self.weights
        total = float(share.sum())
        return self.total * share / (total if total > 0 else 1.0)


def _mean_softmax(layer: LastLayer, features: Tensor, share: Tensor) -> Tensor:
    return share @ _softmax(layer, features)


def _softmax(layer: LastLayer, features: Tensor) -> Tensor:
    """(M, K) class probabilities at features (M, D)."""
    weight = layer.module.weight.detach().double().cpu()
    return (features @ weight.T + layer.module.bias.detach().double().cpu()).softmax(1)


def _features(seen: Observation, layer: LastLayer) -> Tensor:
    """(M, D) what the last layer sees of public inputs: smooth and rough noise over the whole range."""
    if seen.pictures is None:
        raise UnsupportedError("Label counts need the input's spec to probe the model.")
    generator = torch.Generator().manual_seed(0)  # fixed public probes: part of the method, not of the result's seed
    channels, height, width = seen.pictures.shape
    like = next(seen.model.parameters())
    pictures = []
    for index in range(PROBES):
        cells = (1, 2, 4, 8)[index % 4]
        coarse = torch.rand(1, channels, min(cells, height), min(cells, width), generator=generator)
        pictures.append(torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear", align_corners=False))
    inputs = seen.pictures.normalise(torch.cat(pictures)).to(like)
    caught: list[Tensor] = []
    handle = layer.module.register_forward_pre_hook(lambda _, arguments: caught.append(arguments[0].detach().double().cpu()))
    try:
        with torch.no_grad():
            seen.model(inputs)
    finally:
        handle.remove()
    if len(caught) != 1 or caught[0].ndim != 2:
        raise UnsupportedError(f"Label counts need a last linear layer {layer.name!r} that sees one vector for each input.")
    return caught[0]


def _from_absent(layer: LastLayer, equation: _Equation, probabilities: Tensor) -> list[Tensor]:
    """p at the mean feature that the rows of absent classes reveal; nothing where no class looks absent."""
    assert layer.weight is not None
    assert layer.bias is not None
    absent = (equation.raw(probabilities).round() <= 0) & (layer.bias > 0)
    if equation.smoothing or not bool(absent.any()):
        return []
    features = layer.weight[absent].sum(0) / layer.bias[absent].sum()
    return [_softmax(layer, features.unsqueeze(0))[0]]


def _from_present(layer: LastLayer, rows: Tensor, equation: _Equation, probabilities: Tensor, mean: Tensor) -> list[Tensor]:
    """p at the features that the rows of present, improbable classes reveal, one estimate for each round."""
    found = []
    weighted = probabilities[:, None] * mean  # (K, D) mean of p_c a
    for _ in range(ROUNDS):
        counts = to_whole(equation.raw(probabilities), equation.total).double()
        share = equation.weights * counts
        share = (1 - equation.smoothing) * share / share.sum()
        usable = (counts > 0) & (probabilities <= 0.5 * share)
        if int(usable.sum()) < FEWEST:
            break
        slopes = rows[usable] / equation.scale(probabilities)
        smoothed = equation.smoothing / len(counts) * mean
        features = (weighted[usable] - slopes - smoothed) / share[usable, None]
        mass = share[usable] / share[usable].sum()
        mean = mass @ features
        features = mean + (features - mean) * counts[usable, None].sqrt()
        each = _softmax(layer, features)
        probabilities = mass @ each
        weighted = (mass[:, None] * each).T @ features
        found.append(probabilities)
    return found


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
