"""A start by first derivatives alone: candidates whose last features and BatchNorm statistics are those of the update."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from leakgauge.attacks.base import Limits, Progress
from leakgauge.attacks.matching.forward import Forward
from leakgauge.attacks.matching.priors import total_variation
from leakgauge.attacks.matching.search.adam import Adam
from leakgauge.attacks.matching.search.matrix_free import MatrixFree, descend
from leakgauge.core.spec import ImageSpec
from leakgauge.local.derivatives import lacks_derivative

STEP_COST = 0.25  # of a gradient evaluation of the whole matching problem: one forward and one backward pass
UNSETTLED = "Gauss-Newton steps were left out: the network has an operation without forward-mode derivatives."
PRODUCT_COST = 0.75  # one product with the derivative of the forward pass and one with its transpose


@dataclass(frozen=True)
class Warmed:
    """Where the stage ended.

    Args:
        point: (D,) pixels in model space.
        smooth: (D,) the point before the Gauss-Newton steps, which fit noise too where there is any.
        value: squared length of the forward residual at `point`, relative to the observed gradient of the last layer.
        evaluations: what it cost.
        note: why a part of it was left out, or ''.
    """

    point: Tensor
    smooth: Tensor
    value: float
    evaluations: float
    note: str = ""


@dataclass(frozen=True)
class WarmStart:
    """Signed Adam with total variation on the forward problem, then Gauss-Newton without it.

    Args:
        share: of the attack's budget that this stage may spend.
        iterations: Adam's steps at most.
        lr: its step size in pixels of [0, 1].
        smooth: weight of total variation (in pixels) beside the relative squared distance.
        importance: weight of the recovered statistics beside it.
        settle: the Gauss-Newton iteration that follows.
    """

    share: float = 0.6
    iterations: int = 600
    lr: float = 0.05
    smooth: float = 1e-2
    importance: float = 1.0
    settle: MatrixFree = field(default_factory=MatrixFree)


def warm_start(problem: Forward, settings: WarmStart, point: Tensor, spec: ImageSpec, limits: Limits, budget: float) -> Warmed:
    """A better start from a point (D,) of pixels in model space.

    Args:
        problem: what is matched.
        settings: see `WarmStart`.
        point: flat pixels.
        spec: range of the pixels.
        limits: clock and progress.
        budget: evaluations at most.
    """
    shape, spread = problem.shape, float(torch.as_tensor(spec.std).float().mean())
    low, high = (bound.expand(shape).reshape(-1).to(point) for bound in spec.bounds(point))

    def value(candidate: Tensor) -> Tensor:
        off = problem.residual(candidate).square().sum()
        return off + settings.smooth * total_variation(spec.denormalise(candidate.reshape(shape)))

    steps = max(1, min(settings.iterations, int(budget * 0.5 / STEP_COST)))
    state = Adam(lr=settings.lr / spread, signed=True, schedule="cosine").begin(point[None], low, high, steps)
    best, lowest, spent = point, float("inf"), 0.0
    for _ in range(steps):
        if limits.expired or len(state.active) == 0:
            break
        leaf = state.ask()[0].detach().requires_grad_()
        with torch.enable_grad():
            found = value(leaf)
            (slope,) = torch.autograd.grad(found, leaf)
        found = found.detach()
        if float(found) < lowest:
            best, lowest = leaf.detach(), float(found)
        state.tell(found[None], slope[None])
        spent += STEP_COST
        if int(spent) % 25 == 0:
            limits.progress(Progress(int(spent), int(budget), lowest, limits.seconds))
    with torch.no_grad():
        if not bool(torch.isfinite(problem.residual(best)).all()):
            return Warmed(point, point, float("inf"), spent)
    products = max(0.0, (budget - spent) / PRODUCT_COST)
    try:
        end = descend(problem.residual, best, settings.settle, expired=lambda: limits.expired, budget=products, goal=1e-14)
    except (NotImplementedError, RuntimeError) as error:
        if not lacks_derivative(error):
            raise
        return Warmed(best, best, float("inf"), spent, UNSETTLED)
    return Warmed(end.point, best, end.value, spent + PRODUCT_COST * end.products)
