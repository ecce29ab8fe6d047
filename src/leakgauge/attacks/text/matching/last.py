"""The last token of a causal text: no layer reads it, it is only predicted, so that its label is all the update holds of it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from leakgauge.attacks.text.matching.head import head_of
from leakgauge.attacks.text.network import TextNetwork

SWEEPS = 3


def complete(network: TextNetwork, ids: Tensor, mask: Tensor, observed: Mapping[str, Tensor], allowed: Tensor) -> Tensor:
    """Token ids (N, L) with each text's last token replaced by the one that explains the observed gradients best.

    With all other tokens known the gradient is linear in the head's row W_c of a label c:
    M g = sum of all other predictions + d logsumexp - d <W_c, h>, h the head's input at the place before the last. What is
    missing is a quadratic form in W_c, which is evaluated for all c at once; several texts take turns.

    Args:
        network: the network; returned unchanged without a head whose input can be seen.
        ids: (N, L).
        mask: (N, L).
        observed: gradients of the mean loss for parameters after the last attention block, by name.
        allowed: (V,) bool.
    """
    ends = mask.sum(1) - 1
    head = None if bool((ends < 1).any()) else head_of(network, network.arguments(ids, mask), observed)
    if head is None:
        return ids
    logits, hidden, weight = head.logits, head.hidden, head.weight
    scores = logits.log_softmax(-1)
    rows = torch.arange(len(ids), device=ids.device)
    inner = (torch.arange(ids.shape[1], device=ids.device) + 1 < ends[:, None])[:, :-1]
    known = -scores[:, :-1].gather(2, ids[:, 1:, None])[:, :, 0][inner].sum()
    known = known + logits[rows, ends - 1].logsumexp(-1).sum()
    total = int(ends.sum())
    goal = torch.cat([tensor.flatten() for tensor in observed.values()]).to(scores) * total - head.gradient(known)
    ids = ids.clone()
    pulls, forms = [], []
    for row in rows.tolist():
        place = hidden[row, ends[row] - 1]
        pulls.append(torch.stack([head.gradient(value) for value in place]))  # (D, P)
        forms.append((weight @ (pulls[row] @ pulls[row].T) * weight).sum(1))  # (V,)
    for _ in range(SWEEPS if len(ids) > 1 else 1):
        for row in rows.tolist():
            others = sum((weight[ids[other, ends[other]]] @ pulls[other] for other in rows.tolist() if other != row), goal * 0)
            cost = forms[row] + 2 * weight @ (pulls[row] @ (goal + others))
            cost = cost.masked_fill(~allowed.to(cost.device), float("inf"))
            ids[row, ends[row]] = int(cost.argmin())
    return ids
