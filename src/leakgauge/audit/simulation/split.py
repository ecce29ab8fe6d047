"""Sharing out a pool of pictures: no picture stands in two places."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from leakgauge.audit.simulation.pictures import Pool, pool_of
from leakgauge.audit.simulation.plan import SimulationPlan
from leakgauge.errors import DataError
from leakgauge.randomness import rng
from leakgauge.truth import Batch


@dataclass(frozen=True)
class Pictures:
    """The plan's pictures, shared out.

    Args:
        pool: all pictures.
        clients: name -> positions in the pool.
        validation, public, decoys: positions in the pool.
    """

    pool: Pool
    clients: dict[str, tuple[int, ...]]
    validation: tuple[int, ...]
    public: tuple[int, ...]
    decoys: tuple[int, ...]

    def batch(self, places: tuple[int, ...]) -> Batch:
        """Those pictures as a batch in model space; labels as the loss wants them."""
        chosen = list(places)
        inputs = self.pool.spec.normalise(self.pool.pixels[chosen])
        return Batch(inputs, self.pool.labels[chosen], self.pool.spec, tuple(self.pool.names[index] for index in chosen))

    def of_members(self, members: tuple[str, ...]) -> tuple[int, ...]:
        """Positions of the pictures of several clients, in the order of the names."""
        return tuple(index for name in members for index in self.clients[name])

    @property
    def public_pixels(self) -> Tensor:
        """(M, C, H, W) in [0, 1]: what the attacker may know."""
        return self.pool.pixels[list(self.public)]

    def public_mean(self, label: int | None = None) -> Tensor | None:
        """Mean of the public pictures of a class (of all, where it has none or label is None); None without public pictures."""
        if not self.public:
            return None
        labels, pixels = self.pool.labels[list(self.public)], self.public_pixels
        same = labels == label if label is not None else torch.zeros(len(labels), dtype=torch.bool)
        return pixels[same].mean(0) if bool(same.any()) else pixels.mean(0)

    def left_out_mean(self, place: int) -> Tensor:
        """Mean of all other pictures of the class, never of the picture itself; of all others where the class has none."""
        others = self.pool.labels == self.pool.labels[place]
        others[place] = False
        if not bool(others.any()):
            others = torch.ones(len(others), dtype=torch.bool)
            others[place] = False
        if not bool(others.any()):
            return torch.full(self.pool.spec.shape, 0.5)
        return self.pool.pixels[others].mean(0)

    def line_up(self, place: int) -> Tensor:
        """Decoys of the picture's class, (M, C, H, W)."""
        chosen = [index for index in self.decoys if int(self.pool.labels[index]) == int(self.pool.labels[place])]
        return self.pool.pixels[chosen]


def share_out(plan: SimulationPlan, beside: Path | None = None) -> Pictures:
    """Reads the pictures and shares them out by the plan's seed, classes in turn, without overlap.

    Raises:
        DataError: if there are too few, with the numbers.
    """
    members = plan.members
    wanted = [(name, client.examples) for name, client in members]
    held = plan.data.validation + plan.data.public + plan.data.decoys
    needed = sum(count for _, count in wanted) + held
    pool = pool_of(plan, needed, beside)
    if needed > len(pool.labels):
        raise DataError(
            f"The plan needs {needed} pictures ({needed - held} for clients, {plan.data.validation} validation, "
            f"{plan.data.public} public, {plan.data.decoys} decoys); {pool.source} has {len(pool.labels)}."
        )
    order = torch.randperm(len(pool.labels), generator=rng(plan.seed, "simulation", "split")).tolist()
    queues: dict[int, list[int]] = {}
    for index in order:
        queues.setdefault(int(pool.labels[index]), []).append(index)
    turn = _Turn([queues[label] for label in sorted(queues)])
    clients = {name: turn.take(count) for name, count in wanted}
    validation, public, decoys = (turn.take(count) for count in (plan.data.validation, plan.data.public, plan.data.decoys))
    return Pictures(pool, clients, validation, public, decoys)


class _Turn:
    """Takes from queues in turn, passing over empty ones."""

    def __init__(self, queues: list[list[int]]) -> None:
        self.queues, self.at = queues, 0

    def take(self, count: int) -> tuple[int, ...]:
        taken: list[int] = []
        while len(taken) < count:
            queue = self.queues[self.at % len(self.queues)]
            self.at += 1
            if queue:
                taken.append(queue.pop())
        return tuple(taken)
