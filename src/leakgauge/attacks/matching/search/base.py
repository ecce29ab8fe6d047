"""A search as a conversation: it proposes points for all running restarts, and is told values and slopes."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class SearchState(ABC):
    """R independent searches over vectors of length D, advanced together.

    The driver (`leakgauge.attacks.matching.driver`) owns budgets, best-so-far and non-finite checks; a search only decides
    where to look next.

    Args:
        start: (R, D) starting points.
    """

    def __init__(self, start: Tensor) -> None:
        self.point = start.clone()  # (R, D) last accepted points
        self.running = torch.ones(len(start), dtype=torch.bool)

    @property
    def active(self) -> Tensor:
        """(A,) indices of the restarts still running."""
        return self.running.nonzero().squeeze(1)

    def drop(self, rows: Tensor) -> None:
        """Ends the searches with these indices."""
        self.running[rows.cpu()] = False

    @abstractmethod
    def ask(self) -> Tensor:
        """(A, D) points to evaluate, one for each active restart, in the order of `active`."""

    @abstractmethod
    def tell(self, values: Tensor, slopes: Tensor) -> None:
        """Objective (A,) and gradient (A, D) at the points asked for."""


class Search(ABC):
    """Configuration of a search; a frozen dataclass in each subclass."""

    @abstractmethod
    def begin(self, start: Tensor, lower: Tensor | None, upper: Tensor | None, evaluations: int) -> SearchState:
        """A fresh state.

        Args:
            start: (R, D).
            lower, upper: (D,) bounds, -inf or inf where there is none; None without a box.
            evaluations: planned gradient evaluations per restart, for schedules.
        """
