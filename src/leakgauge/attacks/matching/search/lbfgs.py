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

    history: int = 50
    decrease: float = 1e-4
    shrinks: int = 12

    def __post_init__(self) -> None:
        if self.history < 1:
            raise OptionError(f"LBFGS.history is {self.history}; expected at least 1.")

    def begin(self, start: Tensor, lower: Tensor | None, upper: Tensor | None, evaluations: int) -> LBFGSState:  # noqa: ARG002
        return LBFGSState(self, start)


class LBFGSState(SearchState):
    """R independent L-BFGS searches; every round evaluates one trial point of each."""

    def __init__(self, search: LBFGS, start: Tensor) -> None:
        super().__init__(start)
        restarts, size = start.shape
        kept = search.history
        self.search = search
        self.value = start.new_full((restarts,), float("inf"), dtype=torch.float64)
        self.slope = torch.zeros_like(start)
        self.direction = torch.zeros_like(start)
        self.step = torch.zeros(restarts, dtype=torch.float64, device=start.device)
        self.begun = torch.zeros(restarts, dtype=torch.bool, device=start.device)
        self.tries = torch.zeros(restarts, dtype=torch.long, device=start.device)
        self.pairs = torch.zeros(restarts, dtype=torch.long, device=start.device)  # accepted since the last reset
        self.moves = start.new_zeros(restarts, kept, size)  # s, slot by slot
        self.turns = start.new_zeros(restarts, kept, size)  # y
        self.cross = torch.zeros(restarts, kept, kept, dtype=torch.float64, device=start.device)  # s_i . y_j
        self.gram = torch.zeros(restarts, kept, kept, dtype=torch.float64, device=start.device)  # y_i . y_j
        self.slot = 0

    def ask(self) -> Tensor:
        rows = self.active
        return self.point[rows] + (self.step[rows, None] * self.direction[rows]).to(self.point)

    def tell(self, values: Tensor, slopes: Tensor) -> None:
        rows = self.active.to(values.device)
        values = values.double()
        fall = (self.slope[rows].double() * self.direction[rows].double()).sum(1)
        good = torch.isfinite(values) & torch.isfinite(slopes).all(1)
        enough = good & (values <= self.value[rows] + self.search.decrease * self.step[rows] * fall)
        accepted = enough | (~self.begun[rows] & good)
        if bool(accepted.any()):
            self._accept(rows[accepted], values[accepted], slopes[accepted])
        refused = ~accepted
        if bool(refused.any()):
            self._refuse(rows[refused], values[refused], fall[refused])

    def _accept(self, rows: Tensor, values: Tensor, slopes: Tensor) -> None:
        first = ~self.begun[rows]
        move = (self.step[rows, None] * self.direction[rows]).to(self.point)
        turn = slopes - self.slope[rows]
        self.point[rows] += move
        curvature = (move.double() * turn.double()).sum(1)
        useful = ~first & (curvature > 1e-10 * turn.double().square().sum(1))
        self._remember(rows, move, turn, useful)
        self.value[rows], self.slope[rows] = values, slopes
        self.begun[rows], self.tries[rows] = True, 0
        self._aim(rows)

    def _remember(self, rows: Tensor, move: Tensor, turn: Tensor, useful: Tensor) -> None:
        """Stores the newest pair in the common slot; a restart whose pair is of no use stores a neutral one."""
        slot = self.slot
        self.moves[:, slot], self.turns[:, slot] = 0, 0
        for table in (self.cross, self.gram):
            table[:, slot, :], table[:, :, slot] = 0, 0
        self.cross[:, slot, slot] = 1
        if bool(useful.any()):
            kept = rows[useful]
            self.moves[kept, slot], self.turns[kept, slot] = move[useful], turn[useful]
            turns, moves = self.turns[kept], self.moves[kept]
            newest_move, newest_turn = move[useful].unsqueeze(2), turn[useful].unsqueeze(2)
            self.cross[kept, :, slot] = (moves @ newest_turn).squeeze(2).double()
            self.cross[kept, slot, :] = (turns @ newest_move).squeeze(2).double()
            with_turns = (turns @ newest_turn).squeeze(2).double()
            self.gram[kept, :, slot], self.gram[kept, slot, :] = with_turns, with_turns
            empty = (turns == 0).all(2)
            empty[:, slot] = False
            self.pairs[kept] += 1
        self.slot = (slot + 1) % self.search.history

    def _aim(self, rows: Tensor) -> None:
        """New directions -H g, and the first trial step along them."""
        slope = self.slope[rows]
        newton = self._inverse_hessian(rows, slope)
        fall = (newton.double() * slope.double()).sum(1)
        norm = slope.double().norm(dim=1)
        downhill = (self.pairs[rows] > 0) & torch.isfinite(fall) & (fall > 1e-14 * norm * newton.double().norm(dim=1))
        if bool((~downhill & (self.pairs[rows] > 0)).any()):
            self._forget(rows[~downhill])
        self.direction[rows] = -torch.where(downhill[:, None], newton, slope)
        gentle = 1.0 / slope.double().abs().sum(1).clamp(min=1.0)
        self.step[rows] = torch.where(downhill, torch.ones_like(gentle), gentle)
        still = norm == 0
        if bool(still.any()):
            self.drop(rows[still])

    def _inverse_hessian(self, rows: Tensor, slope: Tensor) -> Tensor:
        """H g = gamma g + S a + gamma Y b, with a and b from two triangular solves (theorem 2.2)."""
        order = torch.arange(self.search.history, device=slope.device)
        order = torch.cat([order[self.slot :], order[: self.slot]])  # oldest first
        moves, turns = self.moves[rows], self.turns[rows]
        cross = self.cross[rows][:, order][:, :, order]
        gram = self.gram[rows][:, order][:, :, order]
        unused = cross.diagonal(dim1=1, dim2=2) == 0
        upper = cross.triu() + torch.diag_embed(unused.double())
        newest_turn = gram[:, -1, -1]
        curvature = torch.where(newest_turn > 0, cross[:, -1, -1] / newest_turn.clamp(min=1e-300), torch.ones_like(newest_turn))
        gamma = torch.where(newest_turn > 0, curvature, self._fallback_scale(cross, gram))
        along = (moves @ slope.unsqueeze(2)).squeeze(2).double()[:, order]  # S^T g
        across = (turns @ slope.unsqueeze(2)).squeeze(2).double()[:, order]  # Y^T g
        inner = torch.linalg.solve_triangular(upper, along.unsqueeze(2), upper=True).squeeze(2)  # R^-1 S^T g
        used = (gram.diagonal(dim1=1, dim2=2) > 0).double()
        scaled = cross.diagonal(dim1=1, dim2=2) * used * inner + gamma[:, None] * (
            (gram @ inner.unsqueeze(2)).squeeze(2) - across
        )
        outer = torch.linalg.solve_triangular(upper.transpose(1, 2), scaled.unsqueeze(2), upper=False).squeeze(2)
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order), device=order.device)
        weights_s = (outer * used)[:, back].to(slope)
        weights_y = (-gamma[:, None] * inner * used)[:, back].to(slope)
        combined = (weights_s.unsqueeze(1) @ moves + weights_y.unsqueeze(1) @ turns).squeeze(1)
        direction: Tensor = gamma[:, None].to(slope) * slope + combined
        return direction

    def _fallback_scale(self, cross: Tensor, gram: Tensor) -> Tensor:
        """gamma from the newest useful pair, where the newest slot holds a neutral one."""
        diagonal, lengths = cross.diagonal(dim1=1, dim2=2), gram.diagonal(dim1=1, dim2=2)
        position = torch.arange(lengths.shape[1], device=lengths.device)
        newest = torch.where(lengths > 0, position, -torch.ones_like(position)).amax(1).clamp(min=0)
        picked = lengths.gather(1, newest[:, None]).squeeze(1)
        ratio = diagonal.gather(1, newest[:, None]).squeeze(1) / picked.clamp(min=1e-300)
        return torch.where(picked > 0, ratio, torch.ones_like(ratio))

    def _forget(self, rows: Tensor) -> None:
        self.moves[rows], self.turns[rows], self.pairs[rows] = 0, 0, 0
        self.cross[rows], self.gram[rows] = 0, 0

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
            self._aim(rows[again])
        ended = (stuck & ~again) | never
        if bool(ended.any()):
            self.drop(rows[ended])
