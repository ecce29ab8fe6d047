"""In what form values leave: few levels, half precision, zeros, one sign only."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from leakgauge.audit.filters.calls import Reply

MOST_LEVELS = 256


def levels(reply: Reply, names: Sequence[str]) -> int:
    """Different values, besides zero, of the largest tensor's change, where they are few beside its entries; else 0."""
    samples = [reply[name].sample for name in names if name in reply]
    values = max(samples, key=len) if samples else torch.zeros(0)
    values = values[values != 0]
    count = len(torch.unique(values))
    return count if len(values) >= 64 and count <= min(MOST_LEVELS, len(values) / 4) else 0


def precision(reply: Reply, names: Sequence[str]) -> str:
    """'float16' or 'bfloat16' where every change is such a number, else ''."""
    values = torch.cat([reply[name].sample for name in names if name in reply] or [torch.zeros(0, dtype=torch.float64)])
    values = values[values != 0]
    if len(values) < 16 or len(torch.unique(values)) <= MOST_LEVELS:
        return ""
    for name, dtype in (("bfloat16", torch.bfloat16), ("float16", torch.float16)):
        if torch.equal(values, values.float().to(dtype).double()):
            return name
    return ""


def sparsity(replies: Sequence[Reply], names: Sequence[str]) -> float:
    """Share of the changed entries that leave as zero."""
    pieces = [reply[name] for reply in replies for name in names if name in reply]
    return sum(piece.zeroed for piece in pieces) / max(1, sum(piece.changed for piece in pieces))


def cosine(replies: Sequence[Reply], names: Sequence[str]) -> float:
    """Mean cosine similarity between what was planted and what leaves in one call; NaN where nothing leaves."""
    found = []
    for reply in replies:
        pieces = [reply[name] for name in names if name in reply]
        lengths = math.sqrt(sum(piece.square for piece in pieces) * sum(piece.planted_square for piece in pieces))
        if lengths:
            found.append(sum(piece.along for piece in pieces) / lengths)
    return sum(found) / len(found) if found else math.nan


def one_sided(replies: Sequence[Reply], names: Sequence[str]) -> str:
    """'negative' or 'positive' where no change of that sign leaves although as many were planted; else ''."""
    pieces = [reply[name] for reply in replies for name in names if name in reply]
    negative, positive = sum(piece.negative for piece in pieces), sum(piece.positive for piece in pieces)
    if negative + positive < 64:
        return ""
    return "negative" if negative == 0 else "positive" if positive == 0 else ""


def differs(some: Sequence[Reply], others: Sequence[Reply], names: Sequence[str]) -> bool:
    """Whether two sets of replies (R >= 2 each) differ in the mean by more than noise and rounding explain."""
    apart = scale = allowed = 0.0
    entries = 0
    for name in names:
        if name not in some[0] or name not in others[0]:
            continue
        one = torch.stack([reply[name].sample for reply in some])
        two = torch.stack([reply[name].sample for reply in others])
        apart += float((one.mean(dim=0) - two.mean(dim=0)).square().sum())
        scale += float(two.mean(dim=0).square().sum())
        allowed += float((one.var(dim=0) / len(one) + two.var(dim=0) / len(two)).sum())
        entries += one.shape[1]
    return bool(apart > (1 + 12 / max(1, entries) ** 0.5) * 2 * allowed + 1e-4 * scale)
