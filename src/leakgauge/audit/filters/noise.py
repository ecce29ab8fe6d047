"""What noise a filter adds: how much on which tensor, of which distribution, whether it repeats, whether it follows the data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from scipy import stats
from torch import Tensor

from leakgauge.audit.filters.calls import Reply
from leakgauge.audit.filters.record import NoiseFacts, TensorFacts

MISS = 1e-6  # probability that an interval for a standard deviation misses it
FEW, MANY, SAMPLE = 8, 64, 20_000
CLEAR = 15.0  # difference of log-likelihoods below which noise counts as Gaussian
EPS32 = 2.0**-23


def tensor_facts(name: str, role: str, replies: Sequence[Reply]) -> TensorFacts:
    """Facts on one tensor from replies to one and the same update."""
    pieces = [reply[name] for reply in replies if name in reply]
    nan = math.nan
    if not pieces:
        return TensorFacts(name, role, 0, False, nan, nan, nan, nan, nan, nan, 0)
    values = torch.stack([piece.sample for piece in pieces])
    changed = pieces[0].planted != 0
    total = sum(piece.changed for piece in pieces)
    still = (values == values[0]).all(dim=0) & (values[0] != 0) & changed
    std, low, high = spread(values, pieces[0].planted)
    return TensorFacts(
        name=name,
        role=role,
        size=pieces[0].size,
        sent=True,
        unchanged=sum(piece.same for piece in pieces) / total if total else nan,
        zeroed=sum(piece.zeroed for piece in pieces) / total if total else nan,
        still=float(still.sum()) / int(changed.sum()) if bool(changed.any()) else nan,
        noise_std=std,
        noise_low=low,
        noise_high=high,
        distinct=len({piece.digest for piece in pieces}),
    )


def spread(values: Tensor, planted: Tensor) -> tuple[float, float, float]:
    """Standard deviation between repeats (R, M), with its interval; entries that leave as zero or as planted do not count."""
    variance, degrees = _variance(values, planted)
    if degrees < 1:
        moves = bool((values != values[0]).any())
        return (math.nan, math.nan, math.nan) if moves else (0.0, 0.0, 0.0)
    return _interval(variance, degrees)


def _variance(values: Tensor, planted: Tensor) -> tuple[float, int]:
    counted = ((values != 0) & (values != planted)).double()
    numbers = counted.sum(dim=0)
    used = numbers >= 2
    degrees = int((numbers[used] - 1).sum())
    if not degrees:
        return 0.0, 0
    means = (values * counted).sum(dim=0) / numbers.clamp(min=1)
    squares = ((values - means).square() * counted).sum(dim=0)
    return float(squares[used].sum()) / degrees, degrees


def pooled(replies: Sequence[Reply], names: Sequence[str]) -> tuple[float, float, float]:
    """Standard deviation between repeats over several tensors, with its interval; NaN where nothing can be said."""
    if len(replies) < 2:
        return math.nan, math.nan, math.nan
    parts = []
    for name in names:
        pieces = [reply[name] for reply in replies if name in reply]
        if pieces:
            parts.append(_variance(torch.stack([piece.sample for piece in pieces]), pieces[0].planted))
    degrees = sum(count for _, count in parts)
    if not degrees:
        return 0.0, 0.0, 0.0
    return _interval(sum(variance * count for variance, count in parts) / degrees, degrees)


def _interval(variance: float, degrees: int) -> tuple[float, float, float]:
    std = math.sqrt(variance)
    ends = stats.chi2.ppf([1 - MISS / 2, MISS / 2], degrees)
    return std, std * math.sqrt(degrees / ends[0]), std * math.sqrt(degrees / ends[1])


def noise_facts(
    names: Sequence[str],
    still_update: Sequence[Reply],
    typical: Sequence[Reply],
    negated: Sequence[Reply],
    by_norm: Mapping[float, Sequence[Reply]],
) -> NoiseFacts:
    """Facts on the noise over the parameters.

    Args:
        names: of the parameters.
        still_update: replies to the update of zeros; may be empty.
        typical, negated: replies to one update, and to its negative.
        by_norm: 2-norm of the planted update -> replies.
    """
    std = pooled(typical or still_update, names)[0]
    residuals = {name: found for name in names if (found := _residuals(name, still_update, typical)) is not None}
    fixed = fixed_noise(names, still_update, typical, negated)
    repeats = fixed > 0 or any(_seen_twice(name, replies) for replies in (still_update, typical) for name in names)
    sizes = [(norm, pooled(replies, names)) for norm, replies in by_norm.items() if len(replies) > 1]
    entries = sum(piece.size for name, piece in (typical or still_update or [{}])[0].items() if name in names)
    return NoiseFacts(
        std=max(std, fixed) if math.isfinite(std) else fixed,
        family=family_of(residuals) if not fixed else "",
        repeats=repeats,
        shared=_shared(residuals, still_update),
        by_size=tuple((norm, found[0]) for norm, found in sizes),
        follows_data=_follows(sizes, entries),
    )


def fixed_noise(names: Sequence[str], still_update: Sequence[Reply], typical: Sequence[Reply], negated: Sequence[Reply]) -> float:
    """Standard deviation of noise that is the same in every call; 0 where there is none.

    An update of zeros that always leaves as the same non-zero values carries such noise. Where the filter fails on zeros, the
    even part of its answer to an update and to its negative is taken.
    """
    values = []
    for name in names:
        if still_update and name in still_update[0]:
            samples = torch.stack([reply[name].sample for reply in still_update])
            constant = bool((samples == samples[0]).all())
        elif typical and negated and name in typical[0] and name in negated[0]:
            samples = torch.stack([reply[name].sample for reply in typical])
            constant = bool((samples == samples[0]).all()) and typical[0][name].negative > 0
            samples = (samples[:1] + negated[0][name].sample) / 2
        else:
            continue
        if constant:
            values.append(samples[0])
    if not values:
        return 0.0
    flat = torch.cat(values)
    size = float(flat.square().mean().sqrt())
    typical_size = max(
        (float(reply[name].sample.abs().max()) for reply in typical[:1] for name in reply if name in names), default=0
    )
    return size if size > 1e-5 * typical_size else 0.0


def _seen_twice(name: str, replies: Sequence[Reply]) -> bool:
    """Whether a tensor with noise left twice with the very same bytes."""
    pieces = [reply[name] for reply in replies if name in reply]
    digests = {piece.digest for piece in pieces}
    return 1 < len(digests) < len(pieces) and pieces[0].size >= MANY and pieces[0].zeroed == 0


def _residuals(name: str, still_update: Sequence[Reply], typical: Sequence[Reply]) -> Tensor | None:
    """Noise alone, (R, M): what leaves of an update of zeros, else what varies between repeats."""
    for replies in (still_update, typical):
        pieces = [reply[name] for reply in replies if name in reply]
        if len(pieces) < 2:
            continue
        values = torch.stack([piece.sample for piece in pieces])
        if bool((values == values[0]).all()):
            continue
        if replies is still_update:
            return values
        return (values - values.mean(dim=0)) * math.sqrt(len(values) / (len(values) - 1))
    return None


def family_of(residuals: Mapping[str, Tensor]) -> str:
    """The likeliest of three distributions for noise (R, M) by tensor; 'other' where even that is far off; '' without noise."""
    parts = []
    for values in residuals.values():
        flat = values[values != 0]
        if len(flat) >= FEW:
            parts.append(flat / flat.square().mean().sqrt())
    if not parts:
        return ""
    flat = torch.cat(parts)
    flat = flat[:: max(1, len(flat) // SAMPLE)]
    scale, top = float(flat.abs().mean()), float(flat.abs().max())
    likelihood = {
        "gaussian": -0.5 * math.log(2 * math.pi) - 0.5 * float(flat.square().mean()),
        "laplacian": -math.log(2 * scale) - 1,
        "uniform": -math.log(2 * top),
    }
    best = max(likelihood, key=lambda name: likelihood[name])
    if len(flat) * (likelihood[best] - likelihood["gaussian"]) < CLEAR:
        best = "gaussian"
    shapes: dict[str, tuple[str, tuple[float, float]]] = {
        "gaussian": ("norm", (0.0, 1.0)),
        "laplacian": ("laplace", (0.0, scale)),
        "uniform": ("uniform", (-top, 2 * top)),
    }
    distribution, arguments = shapes[best]
    test: Any = stats.kstest(flat.numpy(), distribution, args=arguments)
    return best if float(test.statistic) < 0.03 + 3 / math.sqrt(len(flat)) else "other"


def _shared(residuals: Mapping[str, Tensor], still_update: Sequence[Reply]) -> tuple[str, ...]:
    """Two tensors with the same noise, or one whose entries all get the same."""
    for name in residuals:
        pieces = [reply[name] for reply in still_update if name in reply]
        if (
            pieces
            and len(pieces[0].sample) >= FEW
            and all(bool(((p.sample == p.sample[0]) & (p.sample != 0)).all()) for p in pieces)
        ):
            return (name,)
    heads = {name: values[:3, :512] for name, values in residuals.items() if values.shape[1] >= FEW}
    names = list(heads)
    for place, first in enumerate(names):
        for second in names[place + 1 :]:
            count = min(heads[first].shape[1], heads[second].shape[1])
            one, two = heads[first][:, :count], heads[second][:, :count]
            lengths = one.norm(dim=1) * two.norm(dim=1)
            if bool((lengths > 0).all()) and bool(((one * two).sum(dim=1).abs() > 0.999 * lengths).all()):
                return (first, second)
    return ()


def _follows(sizes: Sequence[tuple[float, tuple[float, float, float]]], entries: int) -> bool:
    """Whether the noise differs between small and large updates by more than a fifth, where rounding does not hide it."""
    seen = [found for norm, found in sizes if found[0] == 0 or found[0] > 64 * EPS32 * norm / math.sqrt(max(1, entries))]
    return len(seen) >= 2 and max(low for _, low, _ in seen) > 1.2 * min(high for _, _, high in seen)
