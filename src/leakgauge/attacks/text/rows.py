"""The order of one text's tokens from two embeddings: rows of their gradients are sums of the same vectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from leakgauge.attacks.text.network import TextNetwork
from leakgauge.attacks.text.rehearsal import rehearsed
from leakgauge.attacks.text.tracing import input_of
from leakgauge.core.text_spec import IGNORED

MORE = 64  # rows of a tied embedding beyond twice the length that are looked at, the largest first
EXACT = 1e-15  # relative rounding error in float64
SHOWN = 16  # rows of absent tokens that are looked at, as a multiple of the width
OWN = 0.2  # leverage from which a row counts as bringing a direction of its own
TRIMS = 6  # rounds of taking such rows out
FAINT = 0.5  # singular values above this many rounding errors count as shown
FITS = 0.01  # relative error of a token's row up to which it counts as the sum of its positions' rows


@dataclass(frozen=True)
class Ordered:
    """One text.

    Args:
        tokens: (L,) token ids.
        worst: largest relative error of a token's row against the sum of the rows of its positions.
        apart: how many times farther the second best token's row lies, at the least clear position; inf for one token.
    """

    tokens: Tensor
    worst: float
    apart: float


def order_of(network: TextNetwork, gradients: Mapping[str, Tensor], vocabulary: int, unit: float) -> Ordered | None:
    """The tokens of one text, each at its place.

    Both embeddings are added into x_t = e_v + p_t before anything else is done to them. With d_t = dL/dx_t, row t of the position
    embedding's gradient is d_t, and row v of the token embedding's gradient is the sum of d_t over the places t where v stands,
    whatever network follows. Where the token embedding is also the head, its rows hold sums of the last hidden states beside;
    those of absent tokens show their span, and everything is compared outside of it.

    Args:
        network: the network.
        gradients: parameter name -> gradient of one text; sums over steps will do.
        vocabulary: V.
        unit: relative rounding error of the gradients.

    Returns:
        None where no rows of positions differ from zero, or the head's part leaves no room.
    """
    assert network.positions is not None
    places = gradients[network.positions][network.offset :].double().to(network.device)  # (P, E)
    table = gradients[network.tokens][:vocabulary].double().to(network.device)  # (V, E)
    sizes = places.norm(dim=1)
    read = (sizes > unit * sizes.max()).nonzero().flatten()
    if not len(read):
        return None
    length = int(read.max()) + 1
    places = places[:length]
    if network.tied:
        outside = _outside_of_head(table, length, unit)
        if outside is None:
            return None
        table, places = table @ outside, places @ outside
    norms = table.norm(dim=1)
    rows = (
        norms.topk(min(len(norms), 2 * length + MORE)).indices if network.tied else (norms > unit * norms.max()).nonzero()[:, 0]
    )
    rows = rows.sort().values
    share = _shares(table[rows], places)  # (n, L): 1 where the token stands
    best = share.topk(min(2, len(rows)), dim=0)
    tokens = rows[best.indices[0]]
    summed = torch.zeros_like(table).index_add(0, tokens, places)
    scale = torch.zeros_like(norms).index_add(0, tokens, places.norm(dim=1))
    present = torch.unique(tokens)
    worst = float(((summed - table)[present].norm(dim=1) / scale[present].clamp(min=1e-300)).max())
    apart = (
        float((1 - best.values[1]).min() / (1 - best.values[0]).abs().max().clamp(min=1e-12)) if len(rows) > 1 else float("inf")
    )
    return Ordered(tokens, worst, apart)


def _shares(table: Tensor, places: Tensor) -> Tensor:
    """A (n, L) with table = A places: by least squares, after tokens of one place only were found row by row."""
    sizes = places.norm(dim=1).clamp(min=1e-300)
    level = places / sizes[:, None]
    away = torch.stack([(table - place).norm(dim=1) / size for place, size in zip(places, sizes, strict=True)], dim=1)  # (n, L)
    shares = torch.zeros_like(away)
    near, who = away.min(0)
    once = near <= FITS
    once &= torch.bincount(who[once], minlength=len(table))[who] <= 1
    columns = once.nonzero().flatten()
    shares[who[columns], columns] = 1 - near[columns]
    rest = (~once).nonzero().flatten()
    if len(rest):
        open_ = torch.ones(len(table), dtype=torch.bool, device=table.device)
        open_[who[columns]] = False
        which = open_.nonzero().flatten() if bool(open_.any()) else torch.arange(len(table), device=table.device)
        solved = torch.linalg.lstsq(level[rest].T.cpu(), table[which].T.cpu(), driver="gelsd").solution.T.to(table.device)
        shares[which[:, None], rest[None, :]] = solved / sizes[rest]
    return shares


@dataclass(frozen=True)
class HeadSpan:
    """What the rows of absent tokens show of the head's part in a tied embedding's gradient.

    Args:
        basis: (D, D) directions as rows, those of the head's part first.
        values: (D,) singular values of the rows that were looked at, each brought to norm 1.
        rank: directions of the head's part.
        rows: numbers of the rows that were looked at.
    """

    basis: Tensor
    values: Tensor
    rank: int
    rows: Tensor


def head_span(table: Tensor, unit: float) -> HeadSpan | None:
    """The span of the head's part of the rows (V, D) of a tied embedding's gradient; None where no row differs from zero.

    The quieter half of the rows are those of absent tokens, which hold the head's part only. Where the vocabulary is small, rows
    of tokens that were read come among them; each brings a direction of its own, and is taken out by its leverage.
    """
    norms = table.norm(dim=1)
    rows = norms.argsort()[: max(len(table) // 2, 1)]
    rows = rows[norms[rows] > 0]
    rows = rows[:: max(len(rows) // (SHOWN * table.shape[1]), 1)]
    for _ in range(TRIMS):
        if not len(rows):
            return None
        level = table[rows] / norms[rows, None]
        _, values, basis = torch.linalg.svd(torch.linalg.qr(level).R, full_matrices=True)
        values = torch.cat([values, values.new_zeros(table.shape[1] - len(values))])
        rank = int((values > unit * values[0]).sum())
        leverage = (level @ basis[:rank].T / values[:rank]).square().sum(1)
        common = leverage <= OWN
        if bool(common.all()) or int(common.sum()) < table.shape[1]:
            break
        rows = rows[common]
    return HeadSpan(basis, values, rank, rows)


def _outside_of_head(table: Tensor, length: int, unit: float) -> Tensor | None:
    """(D, k) directions that the head's part of a tied embedding's rows does not have; None where there are none."""
    span = head_span(table, FAINT * unit)
    if span is None:
        return torch.eye(table.shape[1], dtype=table.dtype, device=table.device)
    shown = min(span.rank, length)
    return span.basis[shown:].T if shown < table.shape[1] else None


def masked_labels(network: TextNetwork, gradients: Mapping[str, Tensor], ids: Tensor, mask: Tensor) -> Tensor | None:
    """Labels (1, L) of one text of a masked model whose tokens are known: which places were predicted, and as what.

    The head's gradient is sum_t c_t h_t^T with c_t = (softmax_t - onehot(y_t)) / M at the M predicted places, 0 elsewhere: least
    squares for c, since the last hidden states h_t are known. A tied embedding's input part is known too, and taken off.

    Returns:
        None where the head was not shared or the text has more tokens than the head's input is wide.
    """
    heads = [
        (name, part)
        for name, part in network.module.named_modules()
        if isinstance(part, nn.Linear) and part.out_features == network.vocabulary
    ]
    if not heads or network.head is None or network.head not in gradients:
        return None
    rows = gradients[network.head].double().to(network.device)
    count = int(mask.sum())
    if network.tied:
        if network.positions is None or network.positions not in gradients:
            return None
        places = gradients[network.positions][network.offset :][:count].double().to(network.device)
        rows = rows.index_add(0, ids[0, :count].to(network.device), -places)
    states = input_of(network.module, heads[-1][0], network.arguments(ids.to(network.device), mask.to(network.device)))
    states = states.reshape(-1, states.shape[-1])[:count]
    if count > states.shape[1]:
        return None
    parts = torch.linalg.pinv(states).T @ rows.T  # (L, V)
    lowest, tokens = parts.min(1)
    labels = torch.full_like(ids, IGNORED)
    predicted = lowest < 0.1 * lowest.min()
    labels[0, :count] = torch.where(predicted, tokens, IGNORED).cpu()
    return labels


def rows_hold(network: TextNetwork, generator: torch.Generator) -> bool:
    """Whether the gradients of a public random text's embeddings tell its tokens, as they do where the two are only added."""
    assert network.positions is not None
    length = min(5, network.longest or 5)
    ids = torch.randperm(network.vocabulary, generator=generator).to(network.device)
    ids = ids[~torch.isin(ids, _never_trained(network).to(ids.device))][None, :length]
    gradients = rehearsed(network, ids, (network.positions, network.tokens), generator)
    told = order_of(network, gradients, network.vocabulary, EXACT) if len(gradients) == 2 else None
    return told is not None and torch.equal(told.tokens, ids[0]) and told.worst < FITS


def _never_trained(network: TextNetwork) -> Tensor:
    """Token ids whose row of the embedding gets no gradient: its padding index."""
    table = network.module.get_parameter(network.tokens)
    parts = [part for part in network.module.modules() if isinstance(part, nn.Embedding) and part.weight is table]
    return torch.tensor([part.padding_idx for part in parts if part.padding_idx is not None], dtype=torch.int64)
