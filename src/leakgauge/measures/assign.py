"""Which reconstruction belongs to which private example: an update does not tell the order of a batch."""

from __future__ import annotations

import torch
from torch import Tensor

from leakgauge.errors import ShapeError


def assign(truth: Tensor, guess: Tensor) -> Tensor:
    """The reconstruction assigned to each private example, one to one, so that the summed MSE is least.

    A reconstruction that is not finite is assigned last.

    Args:
        truth: (N, *shape).
        guess: (M, *shape); M may be smaller or larger than N, also 0.

    Returns:
        (N,) int64 tensor of indices into `guess`; -1 where no reconstruction is left.

    Raises:
        ShapeError: if examples differ in shape.

    Source: scipy.optimize.linear_sum_assignment (Hungarian method).
    """
    from scipy.optimize import linear_sum_assignment

    if truth.shape[1:] != guess.shape[1:]:
        raise ShapeError(
            f"Truth has examples of shape {tuple(truth.shape[1:])} and guess of {tuple(guess.shape[1:])}; expected the same."
        )
    order = torch.full((len(truth),), -1, dtype=torch.int64)
    if len(truth) == 0 or len(guess) == 0:
        return order
    wanted, found = (tensor.detach().to("cpu", torch.float64).flatten(1) for tensor in (truth, guess))
    cost = torch.stack([(example - found).square().mean(1) for example in wanted])
    known = torch.isfinite(cost)
    worst = float(cost[known].max()) if bool(known.any()) else 0.0
    cost = torch.where(known, cost, torch.tensor(len(truth) * worst + 1.0, dtype=torch.float64))
    rows, columns = linear_sum_assignment(cost.numpy())
    order[torch.from_numpy(rows)] = torch.from_numpy(columns)
    return order
