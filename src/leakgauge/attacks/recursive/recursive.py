"""Recursive (R-GAP): closed-form recovery of one example, layer by layer from the loss to the input."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from leakgauge.attacks.base import Attack, Limits, Progress
from leakgauge.attacks.recursive.candidate import Candidate, candidates
from leakgauge.attacks.recursive.joint import JointSettings
from leakgauge.attacks.recursive.problem import Problem, problem_of
from leakgauge.attacks.recursive.sweep import grey_input
from leakgauge.attacks.recursive.together import Joined, solve_together
from leakgauge.attacks.recursive.verdict import conclude
from leakgauge.attacks.verify import has_signal, no_signal
from leakgauge.core.observation import Observation
from leakgauge.core.reconstruction import Reconstruction
from leakgauge.registry import described

PRODUCTS = (12_000, 40_000, 160_000)  # of the joint step, each about a gradient evaluation


@dataclass(frozen=True)
class Recursive(Attack):
    """One example's input by linear systems, from the last layer to the first (Zhu & Blaschko 2021, R-GAP).

    Each layer's input solves K x = g (its weight gradient) and W x = z - b (its output, known from the layer after it).
    Gradient equations alone are used where they suffice. A layer whose own equations leave directions open is completed by
    the layer before it, if that one maps fewer numbers to more (virtual constraints), or else by all layers from the input
    on together. float64 throughout, samples of the rounding error are carried along.

    Args:
        joint: solve layers together where one alone does not suffice.
        grid: round pixels to the 8-bit grid where all lie on it within their expected error and the update agrees better.
        iterations: linearisations of the joint step.
    """

    joint: bool = True
    grid: bool = True
    iterations: int = 60

    def __call__(self, seen: Observation, generator: torch.Generator, limits: Limits | None = None) -> Reconstruction:
        limits = limits or Limits()
        problem = problem_of(seen, "recursive", limits)
        if not has_signal(seen):
            return no_signal(seen, "recursive", limits.seconds)
        options = dataclasses.asdict(self)
        found = candidates(problem, generator, virtual=self.joint)
        joined = None
        if found and found[0].value is None and self.joint and not limits.expired:
            found, joined = self._together(problem, found, generator, limits)
        return conclude(seen, problem, found, joined, limits, "recursive", options, grid=self.grid)

    def _together(
        self, problem: Problem, found: list[Candidate], generator: torch.Generator, limits: Limits
    ) -> tuple[list[Candidate], Joined | None]:
        first = found[0]
        stop = first.sweep.stop
        if stop is None or stop.index < 0:
            return found, None
        links = problem.chain.links[: stop.index]
        if not any(link.kind in ("conv", "linear", "block") for link in links):
            return found, None  # the first layer itself: nothing before it could help

        def watch(count: int, point: Tensor, residual: float) -> None:  # noqa: ARG001
            limits.progress(Progress(count, self.iterations, residual, limits.seconds))

        settings = JointSettings(iterations=self.iterations, total=limits.evaluations(*PRODUCTS))
        starts = [grey_input(problem)]
        joined = solve_together(problem, stop, starts, generator, settings, watch)
        value = dataclasses.replace(first, value=joined.value, errors=joined.errors)
        return [value, *found[1:]], joined


@described(
    needs="one example, one gradient, a linear last layer; invertible activations, no max-pooling; exact where the rank suffices",
    source="Zhu & Blaschko 2021 (R-GAP)",
)
def recursive(joint: bool = True, grid: bool = True, iterations: int = 60) -> Recursive:
    """Closed form, layer by layer (R-GAP); layers that lack equations are solved together with those before them."""
    return Recursive(joint=joint, grid=grid, iterations=iterations)
