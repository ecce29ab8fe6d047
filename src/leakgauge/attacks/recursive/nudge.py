"""Moves a solution within its error so that the replayed network agrees with what the equations said.

Two things jump under the rounding of an input: the side of a kink on which a value near zero lies, and a logit that is a
small difference of large numbers. The recursion knows both; the smallest move that restores them is a small linear system.
"""

from __future__ import annotations

import torch
from torch import Tensor

from leakgauge.attacks.recursive.candidate import Candidate
from leakgauge.attacks.recursive.problem import Problem
from leakgauge.attacks.recursive.start import last_linear

LOGITS = 32  # outputs of the last layer up to which they are restored
SIDES = 48  # values on the wrong side up to which they are moved
LEVELS = 255
FINE = 0.02  # expected error, in levels, up to which pixels are recognised as 8-bit values
NEAR = 12.0  # expected errors that a pixel may lie off the grid
BEYOND = 0.1  # how far beyond the kink, relative to the distance before it


def nudge(problem: Problem, best: Candidate, inputs: Tensor) -> Tensor | None:
    """(1, *shape) inputs moved as little as possible; None where nothing is to be done, or too much."""
    index = last_linear(problem)
    weight = problem.state[str(problem.chain.links[index].weight)]
    leaf = inputs.detach().requires_grad_()
    wrong: list[tuple[Tensor, float]] = []  # a value of the network, and by how much it must change
    with torch.enable_grad():
        values = leaf
        for position, link in enumerate(problem.chain.links[:index]):
            side = best.sweep.sides.get(position)
            if side is not None:
                flat = values.flatten()
                apart = ((flat.detach() > 0) != side.flatten()).nonzero()[:, 0].tolist()
                wrong += [(flat[one], -(1 + BEYOND) * float(flat[one].detach())) for one in apart]
            values = link.function(values, problem.state)
        outputs = values[0] @ weight.T
        if len(wrong) > SIDES:
            return None
        if len(weight) <= LOGITS:  # a bias is the same on both sides
            missing = (best.start.known.value @ weight.T - outputs.detach()).tolist()
            wrong += list(zip(outputs, missing, strict=True))
        if not wrong:
            return None
        rows = [torch.autograd.grad(value, leaf, retain_graph=True)[0].flatten() for value, _ in wrong]
    derivative = torch.stack(rows)  # (M, n)
    lengths = derivative.norm(dim=1, keepdim=True).clamp(min=1e-300)
    derivative = derivative / lengths
    change = torch.tensor([change for _, change in wrong], dtype=derivative.dtype).to(derivative)[:, None] / lengths
    gram = derivative @ derivative.T
    gram.diagonal().add_(1e-12)
    move: Tensor = derivative.T @ torch.linalg.solve(gram, change)
    return inputs + move.reshape(inputs.shape)


def on_grid(problem: Problem, best: Candidate, inputs: Tensor) -> Tensor | None:
    """(1, *shape) inputs rounded to the grid of 8-bit pixels, if all of them lie on it within their expected error."""
    if best.errors is None:
        return None
    pixels = problem.spec.denormalise(inputs)
    rounded = (pixels * LEVELS).round().clamp(0, LEVELS) / LEVELS
    low, high = problem.spec.bounds(best.errors[:1])
    expected = float((best.errors / (high - low)).square().mean().sqrt())
    if expected > FINE / LEVELS or float((rounded - pixels).abs().max()) > NEAR * max(expected, 1e-15):
        return None
    return problem.spec.normalise(rounded)
