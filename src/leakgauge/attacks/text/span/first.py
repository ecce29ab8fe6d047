"""Which tokens may stand at which position: the first layer's input lies in the span of its gradient."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from leakgauge.attacks.text.network import TextNetwork
from leakgauge.attacks.text.span.subspace import Subspace
from leakgauge.attacks.text.tracing import Site

CHUNK = 4096  # tokens of the vocabulary that are looked at together
DECOYS = 512


def decoys(network: TextNetwork, site: Site, length: int, generator: torch.Generator) -> Tensor:
    """What a site sees for texts of random tokens: (n, D)."""
    rows = max(DECOYS // length, 8)
    ids = torch.randint(network.vocabulary, (rows, length), generator=generator).to(network.device)
    return network.inputs_of(site, ids).flatten(0, 1)


def invented(network: TextNetwork, site: Site, length: int, generator: torch.Generator) -> Tensor:
    """What the first site sees for invented tokens, each coordinate of whose embedding comes from another token: (n, D)."""
    if network.norm is None or site.width != network.hidden or site.order != 0:
        return decoys(network, site, length, generator)
    table = network.parameter(network.tokens)
    picked = torch.randint(len(table), (DECOYS, table.shape[1]), generator=generator).to(network.device)
    where = torch.arange(DECOYS, device=network.device) % length
    zero = torch.zeros_like(where)
    mixed = table.gather(0, picked) - table[zero]
    return network.normed(network.embedded(zero, where) + mixed)


def candidates(
    network: TextNetwork, site: Site, space: Subspace, length: int, allowed: Tensor, expired: Callable[[], bool] = lambda: False
) -> list[Tensor]:
    """For each position the token ids whose first-layer input lies in the span, ascending.

    Args:
        network: the network.
        site: a site of kind 'token' with a shared gradient.
        space: its subspace, with a threshold.
        length: positions to look at.
        allowed: (V,) bool, tokens that may occur.
        expired: polled between chunks; True ends the search with what was found.
    """
    tokens = allowed.nonzero().flatten().to(network.device)
    norm = network.module.get_submodule(network.norm) if network.norm is not None else None
    quick = isinstance(norm, nn.LayerNorm) and site.order == 0 and site.width == network.hidden
    found: list[list[Tensor]] = [[] for _ in range(length)]
    forms = _Forms(network, norm, space, length) if quick and isinstance(norm, nn.LayerNorm) else None
    for chunk in torch.split(tokens, CHUNK):
        if expired():
            break
        if forms is not None:
            rows, columns = forms.survivors(chunk)
        else:
            grid = torch.ones(len(chunk), length, dtype=torch.bool, device=network.device)
            rows, columns = grid.nonzero(as_tuple=True)
        for part in torch.split(torch.arange(len(rows), device=network.device), 16384):
            row, column = rows[part], columns[part]
            if forms is not None:
                inputs = network.first_inputs(chunk[row], column)
            else:
                several = torch.unique(row)
                whole = network.inputs_of(site, chunk[several][:, None].expand(-1, length).contiguous())
                inputs = whole[torch.searchsorted(several, row), column]
            kept = space.members(inputs)
            for token, position in zip(chunk[row[kept]].tolist(), column[kept].tolist(), strict=True):
                found[position].append(torch.tensor(token, device=network.device))
    empty = torch.zeros(0, dtype=torch.int64, device=network.device)
    return [torch.stack(each).sort().values if each else empty for each in found]


class _Forms:
    """Both quadratic forms of the ratio for all pairs of token and position, without a vector for each pair.

    x = g (s - mean s) / sigma + b for s = e + p, sigma^2 = var(s) + eps. With C the centring and M either Q Q^T or U S^-2 U^T,
    x^T M x = (e + p)^T A (e + p) / sigma^2 + 2 (e + p)^T a / sigma + b^T M b, where A = C g M g C and a = C g M b: products of
    (V, D) with (D, T) instead of V T vectors of D numbers.
    """

    def __init__(self, network: TextNetwork, norm: nn.LayerNorm, space: Subspace, length: int) -> None:
        width = network.hidden
        gain = norm.weight.detach() if norm.weight is not None else torch.ones(width, device=network.device, dtype=network.dtype)
        shift = norm.bias.detach() if norm.bias is not None else torch.zeros_like(gain)
        outside = space.basis[:, space.rank :]
        inside = space.basis[:, : space.rank] / space.values[: space.rank]
        self.network, self.space, self.eps = network, space, norm.eps
        where = torch.arange(length, device=network.device)
        zero = torch.zeros_like(where)
        self.places = network.embedded(zero, where) - network.parameter(network.tokens)[0]  # (T, D)
        self.forms = []
        for root in (outside, inside):
            lifted = root * gain[:, None]
            lifted = lifted - lifted.mean(0)  # C g R, with M = R R^T
            plain = shift @ root
            self.forms.append((lifted, lifted @ plain, float(plain.square().sum())))
        centred = self.places - self.places.mean(1, keepdim=True)
        self.centred = centred

    def survivors(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Rows (into `tokens`) and positions of the pairs whose ratio is near the threshold or below it."""
        table = self.network.parameter(self.network.tokens)[tokens]  # (n, D)
        width = table.shape[1]
        flat = table - table.mean(1, keepdim=True)
        variance = flat.square().sum(1)[:, None] + 2 * flat @ self.centred.T + self.centred.square().sum(1)
        deviation = (variance.clamp(min=0) / width + self.eps).sqrt()  # (n, T)
        away, weight = (self._form(table, deviation, *form) for form in self.forms)
        size = variance.clamp(min=0) / deviation.square() + self.forms[0][2] + self.forms[1][2]
        limit = self.space.threshold**2 * self.space.expected(weight.clamp(min=0), size)
        near = away <= 1.1 * limit + 1e-13 * (1 + variance.clamp(min=0) / deviation.square())
        rows, columns = near.nonzero(as_tuple=True)
        return rows, columns

    def _form(self, table: Tensor, deviation: Tensor, lifted: Tensor, linear: Tensor, constant: float) -> Tensor:
        ahead, place = table @ lifted, self.places @ lifted
        square = ahead.square().sum(1)[:, None] + 2 * ahead @ place.T + place.square().sum(1)
        slope = (table @ linear)[:, None] + self.places @ linear
        return square / deviation.square() + 2 * slope / deviation + constant
