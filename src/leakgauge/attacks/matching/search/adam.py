"""Adam and signed Adam with a step schedule, for many restarts at once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from leakgauge.attacks.matching.search.base import Search, SearchState
from leakgauge.errors import OptionError

SCHEDULES = ("constant", "steps", "cosine")


@dataclass(frozen=True)
class Adam(Search):
    """Adam (Kingma & Ba 2015) on one flattened vector per restart.

    Args:
        lr: step size > 0, in model space.
        signed: use only the sign of the objective's gradient (Geiping et al. 2020, section 4).
        schedule: 'constant', 'steps' (x0.1 at 3/8, 5/8 and 7/8 of the budget) or 'cosine'.
        betas: decay rates.
    """

    lr: float = 0.1
    signed: bool = False
    schedule: str = "steps"
    betas: tuple[float, float] = (0.9, 0.999)

    def __post_init__(self) -> None:
        if not self.lr > 0:
            raise OptionError(f"Adam.lr is {self.lr!r}; expected a number > 0.")
        if self.schedule not in SCHEDULES:
            raise OptionError(f"Adam.schedule is {self.schedule!r}; expected one of {', '.join(SCHEDULES)}.")

    def begin(self, start: Tensor, lower: Tensor | None, upper: Tensor | None, evaluations: int) -> AdamState:
        return AdamState(self, start, lower, upper, evaluations)

    def factor(self, step: int, total: int) -> float:
        """The schedule's factor on the step size."""
        done = step / max(total, 1)
        if self.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
        if self.schedule == "steps":
            return float(0.1 ** sum(done >= mark for mark in (3 / 8, 5 / 8, 7 / 8)))
        return 1.0


class AdamState(SearchState):
    """R independent Adam searches."""

    def __init__(self, search: Adam, start: Tensor, lower: Tensor | None, upper: Tensor | None, evaluations: int) -> None:
        super().__init__(start)
        self.search, self.lower, self.upper, self.total = search, lower, upper, evaluations
        self.first, self.second = torch.zeros_like(start), torch.zeros_like(start)
        self.count = 0

    def ask(self) -> Tensor:
        return self.point[self.active]

    def tell(self, values: Tensor, slopes: Tensor) -> None:
        rows = self.active.to(slopes.device)
        bad = ~(torch.isfinite(values) & torch.isfinite(slopes).all(1))
        if bool(bad.any()):
            self.drop(rows[bad])
            rows, slopes = rows[~bad], slopes[~bad]
        if self.search.signed:
            slopes = slopes.sign()
        beta1, beta2 = self.search.betas
        lr = self.search.lr * self.search.factor(self.count, self.total)
        self.count += 1
        self.first[rows] = beta1 * self.first[rows] + (1 - beta1) * slopes
        self.second[rows] = beta2 * self.second[rows] + (1 - beta2) * slopes.square()
        root = (self.second[rows] / (1 - beta2**self.count)).sqrt() + 1e-8
        moved = self.point[rows] - lr / (1 - beta1**self.count) * self.first[rows] / root
        if self.lower is not None and self.upper is not None:
            moved = torch.maximum(torch.minimum(moved, self.upper), self.lower)
        self.point[rows] = moved
