"""What bounds the size of what leaves: the bound, over what it is taken, and whether noise comes before it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from leakgauge.audit.filters.calls import Reply
from leakgauge.audit.filters.noise import pooled
from leakgauge.audit.filters.record import EACH_ENTRY, EACH_TENSOR, NO_CLIP, UNCLEAR, WHOLE, ClipFacts

SURE = 6.0  # standard errors
SMALL_NORM = 0.1  # a gain is read off updates up to this size


def clip_facts(
    names: Sequence[str],
    by_norm: Mapping[float, Sequence[Reply]],
    large_buffers: Sequence[Reply],
) -> ClipFacts:
    """Facts on what limits the parameters' change.

    What passes along a planted change d is <sent, d> / ||d||, averaged over repeats, in which noise has mean zero.

    Args:
        names: of the parameters.
        by_norm: 2-norm of the planted change, ascending -> replies.
        large_buffers: replies to the largest change beside buffers whose change is far larger than usual.
    """
    norms = [norm for norm, replies in by_norm.items() if replies]
    names = [name for name in names if norms and name in by_norm[norms[-1]][0]]
    if not names:
        return ClipFacts(UNCLEAR, math.nan, math.nan, (), math.nan, (), None, None, False)
    whole = _unclipped(by_norm[norms[-1]], names)
    names = [name for name in names if name not in whole] or names
    passed = {norm: _passed(by_norm[norm], names) for norm in norms}
    pairs = tuple((norm, value) for norm, (value, _) in passed.items())
    small = [norm for norm in norms if norm <= SMALL_NORM and passed[norm][1] < 0.01 * norm]
    gain = passed[small[0]][0] / small[0] if small else math.nan
    top = norms[-1]
    value, error = passed[top]
    before = passed[norms[-2]][0] if len(norms) > 1 else 0.0
    if value < SURE * error:
        return ClipFacts(UNCLEAR, math.nan, error, pairs, gain, whole, None, None, False)
    if value > 0.5 * top or value > 3 * before + SURE * error:
        return ClipFacts(NO_CLIP, math.inf, 0.0, pairs, gain, (), None, None, False)
    scope, bound, error = _scope(by_norm[top], names, value, error)
    counted, scaled = _with_buffers(by_norm[top], large_buffers, names, value, error) if scope == WHOLE else (None, None)
    late = _after_noise(by_norm[top], by_norm[norms[0]], names, counted is True)
    return ClipFacts(scope, bound, error, pairs, gain, whole, counted, scaled, late)


def _unclipped(replies: Sequence[Reply], names: Sequence[str]) -> tuple[str, ...]:
    """Parameters that pass whole, on the average over replies; all of them where nothing is clipped."""
    found = []
    for name in names:
        pieces = [reply[name] for reply in replies if name in reply]
        planted = pieces[0].planted_square if pieces else 0.0
        factors = torch.tensor([piece.along / planted for piece in pieces], dtype=torch.float64) if planted else torch.zeros(0)
        if len(factors) > 1 and float(factors.mean() - SURE * factors.std() / math.sqrt(len(factors))) > 0.5:
            found.append(name)
    return tuple(found)


def _passed(replies: Sequence[Reply], names: Sequence[str]) -> tuple[float, float]:
    """2-norm that passes along the planted change, and its standard error."""
    values = []
    for reply in replies:
        pieces = [reply[name] for name in names if name in reply]
        planted = math.sqrt(sum(piece.planted_square for piece in pieces))
        values.append(sum(piece.along for piece in pieces) / planted if planted else 0.0)
    found = torch.tensor(values, dtype=torch.float64)
    own = float(found.std()) if len(values) > 1 else 0.0
    noise = pooled(replies, names)[0]
    return float(found.mean()), max(own, noise if math.isfinite(noise) else 0.0) / math.sqrt(len(values))


def _scope(replies: Sequence[Reply], names: Sequence[str], value: float, error: float) -> tuple[str, float, float]:
    """Over what the bound holds, and the bound."""
    means = [torch.stack([reply[name].sample for reply in replies]).mean(dim=0) for name in names if name in replies[0]]
    entries = torch.cat(means).abs()
    largest = float(entries.quantile(0.99)) if len(entries) < 1_000_000 else float(entries[::16].quantile(0.99))
    if error < 0.1 * largest and float((entries > 0.95 * largest).double().mean()) > 0.5:
        return EACH_ENTRY, float(entries.max()), error
    pieces = [[reply[name] for reply in replies] for name in names if name in replies[0] and replies[0][name].planted_square > 0]
    if len(pieces) == 1:
        return WHOLE, value, error
    shares = torch.tensor([math.sqrt(group[0].planted_square) for group in pieces], dtype=torch.float64)
    through = torch.tensor([sum(p.along for p in group) / len(group) for group in pieces], dtype=torch.float64) / shares
    together = shares * float((through * shares).sum() / shares.square().sum())
    alike = torch.full_like(shares, float(through.mean()))
    miss_together, miss_alike = (float((through - fit).square().sum()) for fit in (together, alike))
    if abs(miss_together - miss_alike) < SURE**2 * error**2:
        return UNCLEAR, value, error
    return (WHOLE, value, error) if miss_together < miss_alike else (EACH_TENSOR, float(through.mean()), error)


def _with_buffers(
    usual: Sequence[Reply], large: Sequence[Reply], names: Sequence[str], value: float, error: float
) -> tuple[bool | None, bool | None]:
    """Whether buffers count into the norm, and whether they are scaled."""
    buffers = [name for name in usual[0] if name not in names and usual[0][name].planted_square > 0]
    if not buffers or not large:
        return None, None
    other, other_error = _passed(large, names)
    counted: bool | None = other < 0.8 * value
    if abs(other - value) < SURE * math.hypot(error, other_error) and math.hypot(error, other_error) > 0.02 * value:
        counted = None
    through = sum(reply[name].along for reply in usual for name in buffers)
    planted = sum(reply[name].planted_square for reply in usual for name in buffers)
    return counted, through < 0.9 * planted


def _after_noise(replies: Sequence[Reply], small: Sequence[Reply], names: Sequence[str], buffers: bool) -> bool:
    """Whether all that leaves has the very same 2-norm although there is noise, and less of it than on a small update.

    Then the clip acts on the noise, too.
    """
    noise = pooled(replies, names)[0]
    if len(replies) < 5 or not 0 < noise < 0.5 * pooled(small, names)[0]:
        return False
    norms = [math.sqrt(sum(reply[name].square for name in reply if buffers or name in names)) for reply in replies]
    return float(torch.tensor(norms, dtype=torch.float64).std()) < 0.1 * noise
