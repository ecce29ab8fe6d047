"""How well an assignment of tokens to places agrees with the rows, and the changes that improve it."""

from __future__ import annotations

import torch
from torch import Tensor


class Fit:
    """An assignment with its misfit r^T (A S A^T + E)^-1 r, summed over the D coordinates.

    Each place is an edge between its token's row and its position's row. What stands there is predicted with an error whose
    variance S is in proportion to its size; the rows are sums of it, exact but for E. r (V + T, D) is what the predicted sums
    leave of the rows. Changing one place changes one edge, so that all changes are tried by Woodbury's identity.

    Args:
        table: (V, S, D) predicted derivative of token v at place s.
        rows: (V + T, D) rows of tokens, then of positions.
        spots: (S,) position of each place.
        chosen: (S,) index into the bag for each place.
        variance: (S,).
        floor: (V + T,) diagonal of E.
    """

    def __init__(self, table: Tensor, rows: Tensor, spots: Tensor, chosen: Tensor, variance: Tensor, floor: Tensor) -> None:
        self.table, self.rows, self.spots = table, rows, spots + len(table)
        self.chosen, self.variance, self.floor = chosen.clone(), variance, floor
        self.refresh()

    def left(self, parts: Tensor) -> Tensor:
        """(V + T, D): the rows less the sums of parts (S, D)."""
        rest = self.rows.clone()
        rest.index_add_(0, self.chosen, -parts)
        return rest.index_add_(0, self.spots, -parts)

    def refresh(self) -> None:
        """Computes everything anew."""
        places = torch.arange(len(self.chosen))
        rest = self.left(self.table[self.chosen, places]).double()
        matrix = torch.diag(self.floor)
        for one in (self.chosen, self.spots):
            for other in (self.chosen, self.spots):
                matrix.index_put_((one, other), self.variance, accumulate=True)
        self.inverse = torch.linalg.inv(matrix)
        self.solved = self.inverse @ rest
        self.misfit = float((rest * self.solved).sum())

    def changes(self, places: Tensor, tokens: Tensor) -> Tensor:
        """(n,): how the misfit changes if places (n, k) take tokens (n, k)."""
        count = places.shape[1]
        ends = torch.cat([self.chosen[places], tokens], dim=1)
        spots, twice = self.spots[torch.cat([places, places], dim=1)], torch.cat([places, places], dim=1)
        moved = self.table[ends, twice].double()
        moved[:, count:] *= -1
        sign = torch.cat([-1 / self.variance[places], 1 / self.variance[places]], dim=1)
        part = self.solved[ends] + self.solved[spots]
        gram = sum(
            (self.inverse[one[:, :, None], other[:, None]] for one in (ends, spots) for other in (ends, spots)),
            torch.zeros(1, dtype=torch.float64),
        )
        pushed = gram @ moved
        whole = part + pushed
        drop = whole * torch.linalg.solve(gram + torch.diag_embed(sign), whole)
        by: Tensor = 2 * (moved * part).sum((1, 2)) + (moved * pushed).sum((1, 2)) - drop.sum((1, 2))
        return by

    def sweep(self, generator: torch.Generator) -> int:
        """At each place once the best change, one token or an exchange with another place; gives the number of changes."""
        changed, every = 0, torch.arange(len(self.table))
        for place in torch.randperm(len(self.chosen), generator=generator).tolist():
            here = self.chosen[place].clone()
            others = (self.chosen != here).nonzero().flatten()
            if not len(others):
                continue
            tokens = every[every != here]
            single = self.changes(torch.full((len(tokens), 1), place), tokens[:, None])
            pairs = torch.stack([torch.full_like(others, place), others], dim=1)
            swap = self.changes(pairs, torch.stack([self.chosen[others], here.expand(len(others))], dim=1))
            if min(float(single.min()), float(swap.min())) >= -1e-7 * self.misfit:
                continue
            changed += 1
            if float(single.min()) < float(swap.min()):
                self.chosen[place] = tokens[int(single.argmin())]
            else:
                other = int(others[int(swap.argmin())])
                self.chosen[place], self.chosen[other] = self.chosen[other].clone(), here
            self.refresh()
        return changed
