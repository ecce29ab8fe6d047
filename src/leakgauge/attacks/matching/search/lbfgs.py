"""L-BFGS with a sufficient-decrease line search, for many restarts at once.

Directions come from the compact representation of the inverse Hessian approximation (Byrd, Nocedal & Schnabel 1994,
theorem 2.2), so that one direction costs a few batched products instead of a Python loop over the history.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from leakgauge.attacks.matching.search.base import Search, SearchState
from leakgauge.errors import OptionError


@dataclass(frozen=True)
class LBFGS(Search):
    """Limited-memory BFGS on one flattened vector per restart.

    Args:
        history: correction pairs kept, >= 1.
        decrease: Armijo's constant c1 in (0, 0.5).
        shrinks: rejected trial steps in a row before the history is thrown away, and then before the search ends.
    """

    history: int = 30
    decrease: float = 1e-4
    shrinks: int = 12

    def __post_init__(self) -> None:
        if self.history < 1:
            raise OptionError(f"LBFGS.history is {self.history}; expected at least 1.")

    def begin(self, start: Tensor, lower: Tensor | None, upper: Tensor | None, evaluations: int) -> LBFGSState:  # noqa: ARG002
        return LBFGSState(self, start)


class LBFGSState(SearchState):
    """R independent L-BFGS searches; every round evaluates one trial point of each.

    The history of a restart is a ring of `history` slots: moves s in the first half of its rows of `basis`, turns y in the
    second. Unused slots are zero in `basis` and `gram` and have a one on the diagonal of `cross`, which makes them neutral.
    """

    def __init__(self, search: LBFGS, start: Tensor) -> None:
        super().__init__(start)
        restarts, size = start.shape
        kept, place = search.history, start.device
        self.search = search
        self.value = torch.full((restarts,), float("inf"), dtype=torch.float64, device=place)
        self.slope = torch.zeros_like(start)
        self.direction = torch.zeros_like(start)
        self.step = torch.zeros(restarts, dtype=torch.float64, device=place)
        self.begun = torch.zeros(restarts, dtype=torch.bool, device=place)
        self.tries = torch.zeros(restarts, dtype=torch.long, device=place)
        self.pairs = torch.zeros(restarts, dtype=torch.long, device=place)  # stored since the last reset
        self.basis = start.new_zeros(restarts, 2 * kept, size)
        self.cross = torch.eye(kept, dtype=torch.float64, device=place).repeat(restarts, 1, 1)  # s_i . y_j
        self.gram = torch.zeros(restarts, kept, kept, dtype=torch.float64, device=place)  # y_i . y_j

    def ask(self) -> Tensor:
        rows = self.active
        return self.point[rows] + (self.step[rows, None] * self.direction[rows]).to(self.point)

    def tell(self, values: Tensor, slopes: Tensor) -> None:
        rows = self.active.to(values.device)
        values = values.double()
        fall = _inner(self.slope[rows], self.direction[rows])
        good = torch.isfinite(values) & torch.isfinite(slopes).all(1)
        enough = good & (values <= self.value[rows] + self.search.decrease * self.step[rows] * fall)
        accepted = enough | (~self.begun[rows] & good)
        if bool(accepted.any()):
            self._accept(rows[accepted], values[accepted], slopes[accepted])
        refused = ~accepted
        if bool(refused.any()):
            self._refuse(rows[refused], values[refused], fall[refused])

    def _accept(self, rows: Tensor, values: Tensor, slopes: Tensor) -> None:
        move = (self.step[rows, None] * self.direction[rows]).to(self.point)
        turn = slopes - self.slope[rows]
        self.point[rows] += move
        useful = self.begun[rows] & (_inner(move, turn) > 1e-10 * _inner(turn, turn))
        self.value[rows], self.slope[rows] = values, slopes
        self.begun[rows], self.tries[rows] = True, 0
        kept, slots = rows[useful], self.pairs[rows[useful]] % self.search.history
        self.basis[kept, slots] = move[useful]
        self.basis[kept, slots + self.search.history] = turn[useful]
        self.pairs[kept] += 1
        probe = torch.zeros(len(rows), move.shape[1], 3, dtype=move.dtype, device=move.device)
        probe[:, :, 0], probe[:, :, 1], probe[:, :, 2] = slopes, move, turn
        found = self._products(rows, probe)
        self._remember(kept, slots, found[useful])
        self._aim(rows, found[:, :, 0])

    def _products(self, rows: Tensor, probe: Tensor) -> Tensor:
        """(A, 2 M, P) inner products of each restart's basis with its P probes (A, D, P), in one pass over the history."""
        if len(rows) == len(self.basis):
            return torch.bmm(self.basis, probe).double()
        return torch.stack([self.basis[row] @ one for row, one in zip(rows.tolist(), probe, strict=True)]).double()

    def _remember(self, rows: Tensor, slots: Tensor, found: Tensor) -> None:
        """Writes the newest pair's inner products with all others into the tables."""
        kept = self.search.history
        self.cross[rows, :, slots] = found[:, :kept, 2]
        self.cross[rows, slots, :] = found[:, kept:, 1]
        self.gram[rows, :, slots] = found[:, kept:, 2]
        self.gram[rows, slots, :] = found[:, kept:, 2]

    def _aim(self, rows: Tensor, along: Tensor) -> None:
        """New directions -H g, and the first trial step along them; `along` holds the products of basis and slope."""
        slope = self.slope[rows]
        newton = self._inverse_hessian(rows, slope, along)
        fall, norm = _inner(newton, slope), _inner(slope, slope).sqrt()
        downhill = (self.pairs[rows] > 0) & torch.isfinite(fall) & (fall > 1e-14 * norm * _inner(newton, newton).sqrt())
        lost = rows[~downhill & (self.pairs[rows] > 0)]
        if len(lost) > 0:
            self._forget(lost)
        self.direction[rows] = -torch.where(downhill[:, None], newton, slope)
        gentle = 1.0 / slope.double().abs().sum(1).clamp(min=1.0)
        self.step[rows] = torch.where(downhill, torch.ones_like(gentle), gentle)
        still = norm == 0
        if bool(still.any()):
            self.drop(rows[still])

    def _inverse_hessian(self, rows: Tensor, slope: Tensor, along: Tensor) -> Tensor:
        """H g = gamma g + S a + gamma Y b, with a and b from two triangular solves (theorem 2.2)."""
        kept = self.search.history
        order = (self.pairs[rows, None] + torch.arange(kept, device=slope.device)) % kept  # (A, M) slots, oldest first
        cross, gram = _reorder(self.cross[rows], order), _reorder(self.gram[rows], order)
        lengths, curvature = gram.diagonal(dim1=1, dim2=2), cross.diagonal(dim1=1, dim2=2)
        used = lengths > 0
        gamma = torch.where(used[:, -1], curvature[:, -1] / lengths[:, -1].clamp(min=1e-300), torch.ones_like(lengths[:, -1]))
        with_moves = along[:, :kept].gather(1, order)  # S^T g
        with_turns = along[:, kept:].gather(1, order)  # Y^T g
        upper = cross.triu()
        inner = torch.linalg.solve_triangular(upper, with_moves.unsqueeze(2), upper=True).squeeze(2)  # R^-1 S^T g
        scaled = curvature * used * inner + gamma[:, None] * ((gram @ inner.unsqueeze(2)).squeeze(2) - with_turns)
        outer = torch.linalg.solve_triangular(upper.mT, scaled.unsqueeze(2), upper=False).squeeze(2)
        weights = torch.zeros_like(along)
        weights[:, :kept] = torch.zeros_like(with_moves).scatter(1, order, outer * used)
        weights[:, kept:] = torch.zeros_like(with_turns).scatter(1, order, -gamma[:, None] * inner * used)
        flat = weights.to(slope).unsqueeze(1)
        if len(rows) == len(self.basis):
            combined = torch.bmm(flat, self.basis).squeeze(1)
        else:
            combined = torch.cat([one @ self.basis[row] for row, one in zip(rows.tolist(), flat, strict=True)])
        direction: Tensor = gamma[:, None].to(slope) * slope + combined
        return direction

    def _forget(self, rows: Tensor) -> None:
        self.basis[rows], self.gram[rows], self.pairs[rows] = 0, 0, 0
        self.cross[rows] = torch.eye(self.search.history, dtype=self.cross.dtype, device=self.cross.device)

    def _refuse(self, rows: Tensor, values: Tensor, fall: Tensor) -> None:
        """Shorter steps by safeguarded quadratic interpolation; after too many, steepest descent, then the end."""
        never = ~self.begun[rows]
        step = self.step[rows]
        drop = values - self.value[rows] - step * fall
        ideal = torch.where(torch.isfinite(drop) & (drop > 0), -fall * step.square() / (2 * drop), 0.1 * step)
        self.step[rows] = torch.maximum(torch.minimum(ideal, 0.5 * step), 0.1 * step)
        self.tries[rows] += 1
        stuck = self.tries[rows] >= self.search.shrinks
        again = stuck & (self.pairs[rows] > 0)
        if bool(again.any()):
            self._forget(rows[again])
            self.tries[rows[again]] = 0
            self._aim(rows[again], torch.zeros_like(self.cross[rows[again]][:, 0]).repeat(1, 2))
        ended = (stuck & ~again) | never
        if bool(ended.any()):
            self.drop(rows[ended])


def _inner(left: Tensor, right: Tensor) -> Tensor:
    """(A,) inner products of rows, in float64."""
    products: Tensor = torch.linalg.vecdot(left.double(), right.double())
    return products


def _reorder(table: Tensor, order: Tensor) -> Tensor:
    """(A, M, M) tables with rows and columns in the given order of slots."""
    kept = order.shape[1]
    rows = table.gather(1, order.unsqueeze(2).expand(-1, -1, kept))
    return rows.gather(2, order.unsqueeze(1).expand(-1, kept, -1))
