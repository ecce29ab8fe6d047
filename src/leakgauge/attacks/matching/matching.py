"""GradientMatching: distance + priors + search + start, and what can be said about the result without the truth."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from leakgauge.attacks.base import Attack, Limits
from leakgauge.attacks.matching.distance import Distance, SquaredL2, dictated_by
from leakgauge.attacks.matching.driver import Trail, drive
from leakgauge.attacks.matching.labelling import LABEL_MODES, Labelling, settle_labels
from leakgauge.attacks.matching.priors import Context, GroupConsistency, Prior
from leakgauge.attacks.matching.problem import Problem
from leakgauge.attacks.matching.refine import refine
from leakgauge.attacks.matching.search.base import Search
from leakgauge.attacks.matching.search.gauss_newton import GaussNewton
from leakgauge.attacks.matching.search.lbfgs import LBFGS
from leakgauge.attacks.matching.starts import Grey, Mixed, Start, Uniform
from leakgauge.attacks.matching.target import target_of
from leakgauge.attacks.matching.verdict import conclude
from leakgauge.attacks.verify import has_signal, no_signal
from leakgauge.core.observation import Observation
from leakgauge.core.reconstruction import Reconstruction
from leakgauge.errors import OptionError, UnsupportedError


@dataclass(frozen=True)
class GradientMatching(Attack):
    """Looks for inputs whose update equals the observed one (Zhu et al. 2019).

    Args:
        distance: between updates; None takes squared L2, or what a known defence dictates.
        priors: penalties on the inputs.
        group: pull between restarts, or None.
        search: how the minimum is sought.
        start: where restarts begin.
        refine: Levenberg-Marquardt after the search, where distance and size allow it; None leaves it out.
        labels: 'auto' (known if granted, else recovered), 'known', 'recovered', 'joint' (soft labels optimised with the
            pixels, in linear form), or 'softmax' (the same in DLG's form).
        restarts: independent searches, run in batches.
        evaluations: gradient evaluations over all restarts for the budgets 'fast', 'paper' and 'max'.
        search_share: share of the budget for the search where a refinement follows.
        tolerance: objective at which the search stops.
        mode: 'eval', 'train', or 'observed' for the protocol's own.
        box: keep candidates within the possible range by projection (searches that support it).
        chunk: restarts evaluated in one batch.
        dtype: 'float32' or 'float64'.
        name: of the preset, for the result.
    """

    distance: Distance | None = None
    priors: tuple[Prior, ...] = ()
    group: GroupConsistency | None = None
    search: Search = field(default_factory=LBFGS)
    start: Start = field(default_factory=lambda: Mixed((Grey(), Uniform())))
    refine: GaussNewton | None = field(default_factory=GaussNewton)
    labels: str = "auto"
    restarts: int = 2
    evaluations: tuple[int, int, int] = (16_000, 48_000, 160_000)
    search_share: float = 0.02
    tolerance: float = 1e-12
    mode: str = "eval"
    box: bool = False
    chunk: int = 16
    dtype: str = "float32"
    name: str = "gradient-matching"

    def __post_init__(self) -> None:
        if self.labels not in LABEL_MODES:
            raise OptionError(f"GradientMatching.labels is {self.labels!r}; expected one of {', '.join(LABEL_MODES)}.")
        if self.restarts < 1 or self.chunk < 1:
            raise OptionError("GradientMatching.restarts and .chunk must be at least 1.")
        if self.dtype not in ("float32", "float64"):
            raise OptionError(f"GradientMatching.dtype is {self.dtype!r}; expected float32 or float64.")

    def __call__(self, seen: Observation, generator: torch.Generator, limits: Limits | None = None) -> Reconstruction:
        limits = limits or Limits()
        if seen.spec is None:
            raise UnsupportedError("Gradient matching of pixels needs an ImageSpec; the observation has none.")
        if not has_signal(seen):
            return no_signal(seen, self.name, limits.seconds)
        labelling = settle_labels(seen, self.labels)
        problem = self._problem(seen, labelling, limits)
        start = self._starting_points(problem, seen, generator, limits)
        total = limits.evaluations(*self.evaluations)
        settings = self._refinement(problem, limits)
        low = high = None
        if self.box:
            low, high = _bounds(problem, seen, start)
        share = max(int(total * self.search_share), min(total, 20 * self.restarts)) if settings else total
        trail = Trail.begun(start)
        state = self.search.begin(start, low, high, share // self.restarts)
        drive(problem, state, trail, limits, share, self.tolerance)
        notes = [labelling.note]
        if settings is not None:
            notes += refine(problem, trail, settings, limits, total, self.tolerance)
        if not problem.target.exact_order:
            notes.append("The client shuffles its mini-batches; the attack replays them in the order of its candidate.")
        if self.mode not in ("observed", seen.training.mode):
            notes.append(f"The attack assumes a client in {self.mode} mode; the protocol says {seen.training.mode} mode.")
        return conclude(self, seen, problem, trail, start, limits, tuple(note for note in notes if note))

    def _problem(self, seen: Observation, labelling: Labelling, limits: Limits) -> Problem:
        assert seen.spec is not None
        target = target_of(seen, self.mode, getattr(torch, self.dtype), limits.device)
        labels = labelling.labels
        distance = self.distance or dictated_by(seen.defences) or SquaredL2()
        return Problem(
            target=target,
            loss=seen.loss,
            distance=distance.fitted(target.tensors),
            priors=self.priors,
            group=self.group,
            context=Context(target.network, seen.spec, seen.batch_norm),
            shape=(seen.num_examples, *seen.spec.shape),
            labels=None if labels is None else labels.to(limits.device),
            classes=labelling.classes,
            label_form=labelling.form,
            chunk=self.chunk,
        )

    def _starting_points(self, problem: Problem, seen: Observation, generator: torch.Generator, limits: Limits) -> Tensor:
        inputs = self.start.draw((self.restarts, *problem.shape), seen.spec, generator).flatten(1)
        if problem.labels is None:
            count = self.restarts, problem.size - problem.pixels
            open_labels = torch.randn(count, generator=generator) if problem.label_form == "softmax" else torch.zeros(count)
            inputs = torch.cat([inputs, open_labels], 1)
        return inputs.to(device=limits.device, dtype=getattr(torch, self.dtype))

    def _refinement(self, problem: Problem, limits: Limits) -> GaussNewton | None:
        if self.refine is None or problem.residual() is None:
            return None
        growth = {"fast": 1, "paper": 3, "max": 4}.get(str(limits.budget), 1)
        settings = replace(self.refine, unknowns=self.refine.unknowns * growth)
        equations = sum(tensor.numel() for tensor in problem.target.tensors.values())
        return settings if settings.applies(problem.size, equations) else None


def _bounds(problem: Problem, seen: Observation, like: Tensor) -> tuple[Tensor, Tensor]:
    """(D,) box in model space; label numbers are free."""
    assert seen.spec is not None
    ends = []
    for bound, free in zip(seen.spec.bounds(like), (-float("inf"), float("inf")), strict=True):
        pixels = bound.expand(problem.shape).reshape(-1)
        ends.append(torch.cat([pixels, pixels.new_full((problem.size - problem.pixels,), free)]))
    return ends[0], ends[1]
