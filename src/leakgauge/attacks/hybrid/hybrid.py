"""Hybrid (Chen & Campbell): linear systems layer by layer, then matching of the whole network, a prior for what is left open."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import torch
from torch import Tensor

from leakgauge.attacks.base import Attack, Limits, Progress
from leakgauge.attacks.hybrid.completion import Completion, complete
from leakgauge.attacks.hybrid.image_prior import PicturePrior
from leakgauge.attacks.hybrid.published import published
from leakgauge.attacks.recursive.candidate import candidates
from leakgauge.attacks.recursive.problem import problem_of
from leakgauge.attacks.recursive.verdict import conclude, concluded_with
from leakgauge.attacks.verify import has_signal, no_signal
from leakgauge.core.observation import Observation
from leakgauge.core.reconstruction import Reconstruction
from leakgauge.errors import OptionError
from leakgauge.registry import described

VARIANTS = ("default", "published")
METHOD = "hybrid"


@dataclass(frozen=True)
class Hybrid(Attack):
    """Linear systems where they determine the input, matching and a prior where they do not (Chen & Campbell 2022).

    The default sweeps like `Recursive`, stops there if the result is exact, and otherwise solves the equations of all layers
    that are left on the picture itself, in float64; directions that no equation fixes are filled by a prior for natural
    pictures, within the null space only. `variant="published"` corrects every layer by matching the gradients of the layers
    after it instead, as in the paper.

    Args:
        variant: 'default' or 'published'.
        grid: as in `Recursive`, for the default variant.
        iterations: linearisations of the joint step.
        prior: of the null space.
    """

    variant: str = "default"
    grid: bool = True
    iterations: int = 60
    prior: PicturePrior = field(default_factory=PicturePrior)

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise OptionError(f"hybrid has no variant {self.variant!r}; expected one of {', '.join(VARIANTS)}.")

    def __call__(self, seen: Observation, generator: torch.Generator, limits: Limits | None = None) -> Reconstruction:
        limits = limits or Limits()
        problem = problem_of(seen, METHOD, limits)
        if not has_signal(seen):
            return no_signal(seen, METHOD, limits.seconds)
        options = {"variant": self.variant, "grid": self.grid, "iterations": self.iterations, **dataclasses.asdict(self.prior)}
        if self.variant == "published":
            stated = published(problem, generator, limits)
            full = all(report.rank_deficiency == 0 for report in stated.reports)
            ended = Completion(stated.value, None, full, True, stated.reports, stated.evaluations, stated.notes)
            return concluded_with(seen, problem, stated.label, ended, limits, METHOD, options)
        found = candidates(problem, generator, virtual=True)
        if not found or (found[0].value is not None and found[0].plausible):
            return conclude(seen, problem, found, None, limits, METHOD, options, grid=self.grid)

        def watch(count: int, point: Tensor, residual: float) -> None:  # noqa: ARG001
            limits.progress(Progress(count, self.iterations, residual, limits.seconds))

        result = complete(problem, found[0], self.prior, self.iterations, generator, limits, watch)
        return concluded_with(seen, problem, found[0].start.label, result, limits, METHOD, options)


@described(
    needs="as recursive; a prior fills what the equations leave open",
    source="Chen & Campbell 2022",
)
def hybrid(variant: str = "default", grid: bool = True, iterations: int = 60, colour: float = 4.0) -> Hybrid:
    """Linear systems layer by layer, whole-network matching where they fall short, a prior in the null space alone."""
    return Hybrid(variant=variant, grid=grid, iterations=iterations, prior=PicturePrior(colour=colour))
