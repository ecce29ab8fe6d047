"""The hybrid as published: per layer the pseudo-inverse, then a correction by matching the gradients of the layers after it.

Notation of the source: layer i has the input x_i, the stacked system U_i x_i = v_i of weight rows (W x = z - b) and gradient
rows (K x = dL/dw), and the suffix network of the layers from i on. With U_i n = 0 the move x_i + n changes neither z_i nor
dL/dw_i, and so no gradient of the suffix: matching adds nothing in the null space, only total variation does.

Source: Chen & Campbell 2022, BMVC (arXiv 2210.13231), method and the released code's coefficients.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from leakgauge.attacks.base import Limits, Progress
from leakgauge.attacks.recursive.known import Known, NotSeparable, through
from leakgauge.attacks.recursive.layer import Equations
from leakgauge.attacks.recursive.planted import missing_columns, planted_input
from leakgauge.attacks.recursive.problem import NoiseLevel, Problem
from leakgauge.attacks.recursive.stack import Stack
from leakgauge.attacks.recursive.start import last_linear, starts
from leakgauge.attacks.recursive.sweep import equations_of
from leakgauge.chain.operators import LayerOperator
from leakgauge.core.reconstruction import LayerReport
from leakgauge.errors import UnsupportedError
from leakgauge.linalg import lsmr
from leakgauge.local.losses import loss_value

RATE = 1e-3  # of Adam
FAST = 20  # the budget 'fast' is the published number of iterations divided by this
PRODUCTS = 3000  # iterations of the pseudo-inverse
INSTEAD = "Use variant=default."


@dataclass(frozen=True)
class Correction:
    """Coefficients of one layer's correction.

    Args:
        matching: alpha, of the sum over tensors of 1 - cosine.
        variation: beta, of total variation.
        equations: gamma, of ||U x - v||^2.
        iterations: of Adam.
    """

    matching: float
    variation: float
    equations: float
    iterations: int


CORRECTIONS = (Correction(1.0, 1.0, 0.05, 10_000), Correction(1.0, 1.0, 0.1, 8_000))  # of the picture and the layer after it
DEEPER = Correction(10.0, 0.1, 1.0, 1_000)


@dataclass(frozen=True)
class Published:
    """What the published method gives; it states no error.

    Args:
        value: (*input) in model space.
        label: class index.
        reports: one row per layer, output side first.
        evaluations: iterations of Adam, and products of the pseudo-inverses.
        notes: conditions, for the result.
    """

    value: Tensor
    label: int
    reports: tuple[LayerReport, ...]
    evaluations: int
    notes: tuple[str, ...]


def published(problem: Problem, generator: torch.Generator, limits: Limits) -> Published:
    """The input of the network, layer by layer from the output side, every layer corrected, solved or not.

    The budget scales the published numbers of iterations: 'paper' takes them as they are.

    Args:
        problem: gradients and network.
        generator: draws the planted inputs of the ranks.
        limits: budget and clock; out of time, the remaining layers are not corrected.

    Raises:
        UnsupportedError: for networks that the sweep cannot separate into layers, and where the last layer gives no start.
    """
    index = last_linear(problem)
    found = starts(problem, index, generator)
    if not found:
        raise UnsupportedError(f"hybrid: no input of the last layer agrees with its gradient and the loss. {INSTEAD}")
    start = found[0]
    places = [place for place in range(index) if problem.chain.links[place].kind in ("conv", "linear")]
    table = {place: CORRECTIONS[depth] if depth < len(CORRECTIONS) else DEEPER for depth, place in enumerate(places)}
    whole = max(sum(row.iterations for row in table.values()), 1)
    planned = limits.evaluations(max(whole // FAST, 1), whole, 2 * whole)
    known, reports, spent, products = start.known, [], 0, 0

    def watch(step: int, objective: float) -> None:
        limits.progress(Progress(spent + step, planned, objective, limits.seconds))

    for place in range(index - 1, -1, -1):
        link = problem.chain.links[place]
        if link.kind not in ("conv", "linear"):
            try:
                known = through(known, link, problem.state)
            except NotSeparable as error:
                raise UnsupportedError(f"hybrid: the published variant cannot pass {link.name!r}: {error}. {INSTEAD}") from error
            continue
        equations = equations_of(problem, place, known, NoiseLevel(problem))
        value, report, count = pseudo_inverse(equations, generator)
        products += count
        steps = max(round(table[place].iterations * planned / whole), 1)
        suffix = Suffix(problem, place, start.label)
        value, taken = correct(value, suffix, equations, table[place], steps, lambda: limits.expired, watch)
        spent += taken
        reports.append(report)
        known = _below(equations, value)
    if known.view is not None:
        raise UnsupportedError(f"hybrid: the network pools its input before any weight sees it. {INSTEAD}")
    share = f"{100 * spent / whole:.0f} % of the paper's"
    notes = (
        f"published variant: {spent:,} iterations of Adam over {len(places)} layer(s), {share}",
        "every layer is corrected, also where its equations determine it: total variation blurs exact solutions",
    )
    return Published(known.value, start.label, tuple(reports), spent + products, notes)


def pseudo_inverse(equations: Equations, generator: torch.Generator) -> tuple[Tensor, LayerReport, int]:
    """mu + U^+ (v - U mu): the solution of one layer's system that is nearest to its prior mean.

    Args:
        equations: of the layer; `centre` is mu, zero if None.
        generator: of the planted input.

    Returns:
        (*input), a row of the table, and the number of products.
    """
    operator, known, gradient = equations.operator, equations.known, equations.gradient
    stack = Stack(operator, known, gradient is not None, equations.noise)
    right = stack.right(_values(equations)[None], None if gradient is None else gradient[None])
    mean = right.new_zeros(1, stack.columns) if equations.centre is None else equations.centre.reshape(1, -1)
    planted = planted_input(stack.columns, generator, right)
    system = torch.cat([right - stack.apply(mean), stack.apply(planted)])
    fit = torch.tensor([1e-14, 1e-7])
    found = lsmr(stack.apply, stack.adjoint, system, tolerance=1e-12, fit=fit, iterations=PRODUCTS)  # bare, for the least norm
    unknowns = equations.unknowns
    report = LayerReport(
        name=equations.link.name,
        method="pseudo-inverse, corrected by matching the layers after it",
        unknowns=unknowns,
        equations=int(known.mask.sum()) + (0 if gradient is None else gradient.numel()),
        rank=unknowns - missing_columns(found.solution[1:], planted),
        condition=found.condition,
        residual=float(found.residual[0] / right.norm().clamp(min=1e-300)),
        predicted_error=math.inf,
    )
    return (mean + found.solution[:1]).reshape(operator.input_shape), report, found.iterations


class Suffix:
    """The layers from one on, as a function of its input, and how far their gradients are from the observed ones.

    Args:
        problem: gradients and network.
        place: of the layer among the links.
        label: of the example.
    """

    def __init__(self, problem: Problem, place: int, label: int) -> None:
        self.problem, self.place = problem, place
        names = [name for link in problem.chain.links[place:] for name in link.parameters]
        self.names = [name for name in names if name in problem.gradients]
        self.label = torch.tensor([label], device=next(iter(problem.state.values())).device)

    def gradients(self, value: Tensor) -> dict[str, Tensor]:
        """Of the loss in the suffix's parameters at the input (*input), differentiable in it."""
        problem = self.problem
        leaves = {name: problem.state[name].detach().requires_grad_() for name in self.names}
        output = problem.chain.run(value[None], {**problem.state, **leaves}, self.place)
        loss = loss_value(problem.loss, output, self.label, problem.training)
        return dict(zip(self.names, torch.autograd.grad(loss, list(leaves.values()), create_graph=True), strict=True))

    def distance(self, value: Tensor) -> Tensor:
        """Sum over tensors of 1 - cosine."""
        parts = []
        for name, found in self.gradients(value).items():
            wanted = self.problem.gradients[name]
            parts.append(1 - (found * wanted).sum() / (found.norm() * wanted.norm()).clamp(min=1e-300))
        return torch.stack(parts).sum()


def correct(
    start: Tensor,
    suffix: Suffix,
    equations: Equations,
    weights: Correction,
    steps: int,
    expired: Callable[[], bool] = lambda: False,
    watch: Callable[[int, float], None] = lambda *_: None,
) -> tuple[Tensor, int]:
    """Minimises alpha * distance + beta * TV(x) + gamma * ||U x - v||^2 from (*input) by Adam; the best point, the steps."""
    value = start.clone().requires_grad_()
    adam = torch.optim.Adam([value], lr=RATE)
    best, lowest, taken = start, math.inf, 0
    while taken < steps and not expired():
        objective = (
            weights.matching * suffix.distance(value)
            + weights.variation * variation(value)
            + weights.equations * misfit(equations, value)
        )
        found = float(objective.detach())
        if not math.isfinite(found):
            break
        if found < lowest:
            best, lowest = value.detach().clone(), found
        (value.grad,) = torch.autograd.grad(objective, value)
        adam.step()
        taken += 1
        if taken % 50 == 0:
            watch(taken, lowest)
    return best, taken


def variation(value: Tensor) -> Tensor:
    """Sum over the spatial axes of (C, *size) of the mean absolute difference of neighbours; zero for a vector."""
    parts = [value.diff(dim=axis).abs().mean() for axis in range(1, value.ndim) if value.shape[axis] > 1]
    return torch.stack(parts).sum() if parts else value.new_zeros(())


def misfit(equations: Equations, value: Tensor) -> Tensor:
    """||U x - v||^2 over the rows as they are, of what is known of z and of the weight gradient."""
    operator, known = equations.operator, equations.known
    total = (known.seen(operator.apply(value[None]))[0] - _values(equations)).square().sum()
    if equations.gradient is not None:
        total = total + (operator.weight_gradient(value[None], known.cotangent)[0] - equations.gradient).square().sum()
    return total


def _values(equations: Equations) -> Tensor:
    """v of the weight rows: the known part of z - b."""
    known, operator = equations.known, equations.operator
    if equations.bias is None:
        return known.value
    return known.value - known.seen(equations.bias.expand(operator.output_shape)[None])[0]


def _below(equations: Equations, value: Tensor) -> Known:
    """The layer's input, taken as exact: the method states no error."""
    operator: LayerOperator = equations.operator
    cotangent = operator.adjoint(equations.known.cotangent[None])[0]
    nothing = torch.zeros_like(value)
    return Known(
        value=value,
        mask=torch.ones_like(value, dtype=torch.bool),
        sigma=nothing,
        errors=nothing[None],
        cotangent=cotangent,
        cotangent_errors=torch.zeros_like(cotangent)[None],
        cotangent_sigma=torch.zeros_like(cotangent),
    )
