"""GradientMatching: distance + priors + search + start, and what can be said about the result without the truth."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from leakgauge.attacks.base import Attack, Limits, Progress
from leakgauge.attacks.matching.distance import Distance, SquaredL2, dictated_by
from leakgauge.attacks.matching.driver import Trail, drive
from leakgauge.attacks.matching.forward import forward_of
from leakgauge.attacks.matching.labelling import LABEL_MODES, Labelling, settle_labels
from leakgauge.attacks.matching.priors import Context, GroupConsistency, Prior
from leakgauge.attacks.matching.problem import Problem
from leakgauge.attacks.matching.refine import refine
from leakgauge.attacks.matching.search.base import Search
from leakgauge.attacks.matching.search.gauss_newton import GaussNewton
from leakgauge.attacks.matching.search.lbfgs import LBFGS
from leakgauge.attacks.matching.search.matrix_free import MatrixFree, descend
from leakgauge.attacks.matching.starts import Grey, Mixed, Start, Uniform
from leakgauge.attacks.matching.statistics import statistics_of
from leakgauge.attacks.matching.target import target_of
from leakgauge.attacks.matching.verdict import conclude
from leakgauge.attacks.matching.warm import WarmStart, warm_start
from leakgauge.attacks.verify import agrees, has_signal, no_pictures, no_signal, relative_residual
from leakgauge.core.observation import Observation
from leakgauge.core.reconstruction import Outcome, Reconstruction
from leakgauge.core.spec import ImageSpec
from leakgauge.errors import OptionError
from leakgauge.local.derivatives import lacks_derivative

MULTISTEP = ("replay", "surrogate")
SETTLED = 1e-5  # squared relative distance of last layer and statistics at which the warm start leaves nothing to search for
NEAR = 0.3  # relative distance from which Gauss-Newton steps on the whole update are worth their cost
FREE_COST = 4.0  # gradient evaluations that one matrix-free product pair with the update's derivative counts for


@dataclass(frozen=True)
class GradientMatching(Attack):
    """Looks for inputs whose update equals the observed one (Zhu et al. 2019).

    Args:
        distance: between updates; None takes what a known defence dictates, else the usual one.
        usual: the distance where no defence is known, or `adaptive` is off.
        priors: penalties on the inputs.
        group: pull between restarts, or None.
        search: how the minimum is sought.
        start: where restarts begin.
        warm: a start by first derivatives alone, where the last layer's gradient allows it; None leaves it out.
        refine: Levenberg-Marquardt after the search, where distance and size allow it; None leaves it out.
        polish: matrix-free Gauss-Newton on update and statistics at the end; None leaves it out.
        gradient: weight of the distance between updates; 0 leaves it out.
        statistics: weight of the client's BatchNorm statistics where they are known; 0 leaves them out.
        multistep: 'replay' repeats the client's local steps, 'surrogate' replaces them by one gradient at a point on the way.
        adaptive: fit distance and replay to a known defence; False attacks as if there were none.
        labels: 'auto' (known if granted, else recovered), 'known', 'recovered', 'joint' (soft labels optimised with the
            pixels, in linear form), or 'softmax' (the same in DLG's form).
        restarts: independent searches, run in batches.
        evaluations: gradient evaluations over all restarts for the budgets 'fast', 'paper' and 'max'.
        search_share: share of the budget for the search where a refinement follows.
        tolerance: objective at which the search stops.
        mode: 'eval', 'train', or 'observed' for the protocol's own.
        grid: at the end, round pixels to the 8-bit grid where the recomputed update then comes nearer.
        box: keep candidates within the possible range by projection (searches that support it).
        chunk: restarts evaluated in one batch.
        dtype: 'float32' or 'float64'.
        name: of the preset, for the result.
    """

    distance: Distance | None = None
    usual: Distance = SquaredL2()  # noqa: RUF009 - frozen
    priors: tuple[Prior, ...] = ()
    group: GroupConsistency | None = None
    search: Search = field(default_factory=LBFGS)
    start: Start = field(default_factory=lambda: Mixed((Grey(), Uniform())))
    warm: WarmStart | None = None
    refine: GaussNewton | None = field(default_factory=GaussNewton)
    polish: MatrixFree | None = None
    gradient: float = 1.0
    statistics: float = 0.0
    multistep: str = "replay"
    adaptive: bool = True
    labels: str = "auto"
    restarts: int = 2
    evaluations: tuple[int, int, int] = (16_000, 48_000, 160_000)
    search_share: float = 0.02
    tolerance: float = 1e-12
    mode: str = "eval"
    grid: bool = False
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
        if self.multistep not in MULTISTEP:
            raise OptionError(f"GradientMatching.multistep is {self.multistep!r}; expected replay or surrogate.")
        for name in ("gradient", "statistics"):
            weight = getattr(self, name)
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
                raise OptionError(f"GradientMatching.{name} is {weight!r}; expected a weight >= 0.")

    def __call__(self, seen: Observation, generator: torch.Generator, limits: Limits | None = None) -> Reconstruction:
        limits = limits or Limits()
        if seen.pictures is None:
            raise no_pictures(seen, "Gradient matching of pixels")
        if not has_signal(seen):
            return no_signal(seen, self.name, limits.seconds)
        declared, spec = seen, seen.pictures
        if not self.adaptive:
            seen = replace(seen, defences=())
        labelling = settle_labels(seen, self.labels)
        problem = self._problem(seen, labelling, limits)
        start = self._starting_points(problem, seen, generator, limits)
        total = limits.evaluations(*self.evaluations)
        settings = self._refinement(problem, limits)
        low = high = None
        if self.box:
            low, high = _bounds(problem, seen, start)
        notes = [labelling.note]
        start, spent, settled, why = self._warmed(problem, seen, start, limits, total)
        notes += [why] if why else []
        share = max(int(total * self.search_share), min(total, 20 * self.restarts)) if settings else max(1, int(total - spent))
        trail = Trail.begun(start)
        trail.evaluations = spent
        if settled:
            share = len(start)  # one evaluation of each start: there is nothing to search for
        state = self.search.begin(start, low, high, max(1, share // self.restarts))
        drive(problem, state, trail, limits, share, self.tolerance)
        if settled:
            row = int(trail.values.argmin())
            if not bool(torch.isfinite(trail.values[row])):  # the clock ran out before the one evaluation
                trail.values[row] = float(problem.value(trail.best[row], "none").detach())
            trail.outcomes[row] = Outcome.CONVERGED
            notes.append(
                "The start from the last layer's gradient and the statistics fitted both; there was nothing to search for."
            )
        if settings is not None:
            notes += refine(problem, trail, settings, limits, total, self.tolerance)
        if self.polish is not None:
            self._polished(problem, trail, limits, total)
        if self.grid:
            notes += rounded(problem, trail, spec)
        if not problem.target.exact_order:
            notes.append("The client shuffles its mini-batches; the attack replays them in the order of its candidate.")
        if self.mode not in ("observed", seen.training.mode):
            notes.append(f"The attack assumes a client in {self.mode} mode; the protocol says {seen.training.mode} mode.")
        return conclude(self, declared, problem, trail, start, limits, tuple(note for note in notes if note))

    def _problem(self, seen: Observation, labelling: Labelling, limits: Limits) -> Problem:
        assert seen.pictures is not None
        surrogate = self.multistep == "surrogate"
        target = target_of(
            seen, self.mode, getattr(torch, self.dtype), limits.device, surrogate=surrogate, adaptive=self.adaptive
        )
        labels = labelling.labels
        dictated = dictated_by(seen.defences, self.usual) if self.adaptive and self.gradient > 0 else None
        distance = self.distance or dictated or self.usual
        like = next(iter(target.parameters.values()))
        known = statistics_of(seen, self.statistics, like, self.adaptive) if target.network.mode == "train" else None
        return Problem(
            target=target,
            loss=seen.loss,
            distance=distance.fitted(target.tensors),
            priors=self.priors,
            group=self.group,
            context=Context(target.network, seen.pictures, seen.batch_norm),
            shape=(seen.num_examples, *seen.pictures.shape),
            labels=None if labels is None else labels.to(limits.device),
            classes=labelling.classes,
            label_form=labelling.form,
            chunk=self.chunk,
            gradient=self.gradient,
            statistics=known,
            exact=not seen.defences,
        )

    def _starting_points(self, problem: Problem, seen: Observation, generator: torch.Generator, limits: Limits) -> Tensor:
        inputs = self.start.draw((self.restarts, *problem.shape), seen.pictures, generator).flatten(1)
        if problem.labels is None:
            count = self.restarts, problem.label_numbers
            open_labels = torch.randn(count, generator=generator) if problem.label_form == "softmax" else torch.zeros(count)
            inputs = torch.cat([inputs, open_labels], 1)
        inputs = torch.cat([inputs, torch.zeros(self.restarts, problem.size - inputs.shape[1])], 1)
        return inputs.to(device=limits.device, dtype=getattr(torch, self.dtype))

    def _warmed(
        self, problem: Problem, seen: Observation, start: Tensor, limits: Limits, total: int
    ) -> tuple[Tensor, float, bool, str]:
        """The starts after the forward stage, what it cost, whether a search has nothing left to do, and why there was none."""
        if self.warm is None or seen.pictures is None:
            return start, 0.0, False, ""
        weight = self.warm.importance if problem.statistics is not None else 0.0
        half, why = forward_of(seen, problem.target, problem.labels, weight, self.gradient > 0, self.adaptive)
        if half is None:
            return start, 0.0, False, f"No start from the last layer's features: {why}."
        rows, spent, lowest, note = [], 0.0, math.inf, ""
        for row in start:
            share = total * self.warm.share / len(start)
            warmed = warm_start(half, self.warm, row[: problem.pixels], seen.pictures, limits, share)
            ends = [torch.cat([point.to(row), row[problem.pixels :]]) for point in (warmed.point, warmed.smooth)]
            values = [float(problem.value(end, "none").detach()) for end in ends]
            rows.append(ends[0] if values[0] <= values[1] else ends[1])
            spent, lowest, note = spent + warmed.evaluations, min(lowest, warmed.value), warmed.note
        points = torch.stack(rows)
        off = min(relative_residual(problem.update(point, "none"), problem.target.tensors) for point in points)
        settled = agrees(off, seen, self.dtype) or (problem.statistics is not None and lowest <= SETTLED and off <= NEAR)
        return points, spent, settled, note

    def _polished(self, problem: Problem, trail: Trail, limits: Limits, total: int) -> None:
        """Gauss-Newton on update and statistics from the best point, kept where the recomputed update comes nearer."""
        bare = problem.bare()
        residual = bare.residual()
        if residual is None or self.polish is None or limits.expired or self.gradient <= 0:
            return
        row = int(trail.values.argmin())
        before = relative_residual(problem.update(trail.best[row], "none"), problem.target.tensors)
        if not before < NEAR:
            return
        budget = max(0.0, (total - trail.evaluations) / FREE_COST)
        try:
            end = descend(
                residual, trail.best[row].clone(), self.polish, expired=lambda: limits.expired, budget=budget, goal=1e-14
            )
        except (NotImplementedError, RuntimeError) as error:
            if not lacks_derivative(error):
                raise
            return  # the start before it has said so, or there is nothing to add to the search's own result
        trail.evaluations += FREE_COST * end.products
        after = relative_residual(problem.update(end.point, "none"), problem.target.tensors)
        if after < before:
            value = float(problem.value(end.point, "none").detach())
            trail.best[row], trail.values[row] = end.point, min(value, float(trail.values[row]))
            trail.mark()
            trail.shoot()
            limits.progress(Progress(int(trail.evaluations), total, value, limits.seconds))

    def _refinement(self, problem: Problem, limits: Limits) -> GaussNewton | None:
        if self.refine is None or problem.residual() is None:
            return None
        growth = {"fast": 1, "paper": 3, "max": 4}.get(str(limits.budget), 1)
        settings = replace(self.refine, unknowns=self.refine.unknowns * growth)
        equations = sum(tensor.numel() for tensor in problem.target.tensors.values())
        return settings if settings.applies(problem.size, equations) else None


def rounded(problem: Problem, trail: Trail, spec: ImageSpec) -> list[str]:
    """Moves the best point to the nearest 8-bit picture where that brings the recomputed update nearer; says so."""
    if problem.gradient <= 0:
        return []
    row = int(trail.values.argmin())
    point = trail.best[row].clone()
    pixels = spec.denormalise(point[: problem.pixels].reshape(problem.shape)).clamp(0, 1)
    point[: problem.pixels] = spec.normalise((pixels * 255).round() / 255).reshape(-1)
    before, after = (relative_residual(problem.update(at, "none"), problem.target.tensors) for at in (trail.best[row], point))
    if not after < before:
        return []
    trail.best[row] = point
    trail.values[row] = min(float(problem.value(point, "none").detach()), float(trail.values[row]))
    return ["Pixels were rounded to the 8-bit grid: the recomputed update came nearer by it."]


def _bounds(problem: Problem, seen: Observation, like: Tensor) -> tuple[Tensor, Tensor]:
    """(D,) box in model space; label numbers are free."""
    assert seen.pictures is not None
    ends = []
    for bound, free in zip(seen.pictures.bounds(like), (-float("inf"), float("inf")), strict=True):
        pixels = bound.expand(problem.shape).reshape(-1)
        ends.append(torch.cat([pixels, pixels.new_full((problem.size - problem.pixels,), free)]))
    return ends[0], ends[1]
