"""The last layer: its input and the output gradient, from a bias, or from the one unknown scale of a rank-one gradient.

Without a bias the weight gradient is k x^T = sigma u v^T, so that x = alpha v and k = u sigma / alpha with one unknown alpha,
which the loss fixes: alpha <u, dl/dz(alpha W v, y)> = sigma. For one logit and the logistic loss that equation has two
roots where the example is classified correctly ("twins"). Source: Zhu & Blaschko 2021, section 3.1, generalised here to any loss.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.optimize import brentq
from torch import Tensor

from leakgauge.attacks.recursive.known import SAMPLES, Known
from leakgauge.attacks.recursive.problem import INSTEAD, Problem
from leakgauge.chain.link import Link
from leakgauge.errors import UnsupportedError
from leakgauge.local.losses import loss_value

DECADES = (-9.0, 3.5)  # of the largest logit, where the scale is looked for
PER_DECADE = 16
LABELS = 256  # classes tried at most where the loss does not name the label


@dataclass(frozen=True)
class Start:
    """What the last layer gives.

    Args:
        known: at the input of the last layer.
        label: class index.
        scale: the root alpha, or None where a bias made the search needless.
        residual: relative residual of the last layer's gradient.
    """

    known: Known
    label: int
    scale: float | None
    residual: float


def last_linear(problem: Problem) -> int:
    """Index of the last link with weights, which must be a linear layer.

    Raises:
        UnsupportedError: if the network ends otherwise, or the layer's gradient was withheld.
    """
    weighted = [index for index, link in enumerate(problem.chain.links) if link.kind in ("conv", "linear", "block")]
    if not weighted or problem.chain.links[weighted[-1]].kind != "linear":
        raise UnsupportedError(
            f"recursive needs a linear layer at the end of the network, which gives the first values. {INSTEAD}"
        )
    link = problem.chain.links[weighted[-1]]
    if link.weight not in problem.gradients:
        raise UnsupportedError(
            f"recursive needs the weight gradient of the last layer {link.name!r}, which was withheld. {INSTEAD}"
        )
    return weighted[-1]


def starts(problem: Problem, index: int, generator: torch.Generator) -> list[Start]:
    """Every pair of input and output gradient of the last layer that agrees with its gradient and the loss."""
    link = problem.chain.links[index]
    assert link.weight is not None
    gradient = problem.gradients[link.weight]
    if link.bias is not None and link.bias in problem.gradients:
        cotangent = problem.gradients[link.bias]
        if not bool((cotangent != 0).any()):
            return []
        value = gradient.T @ cotangent / (cotangent @ cotangent)
        return [_start(problem, link, value, cotangent, _label(problem, index, value, cotangent), None, generator)]
    left, sizes, right = torch.linalg.svd(gradient, full_matrices=False)
    if float(sizes[0]) == 0:
        return []
    found = []
    for label, scale in _scales(problem, index, left[:, 0], float(sizes[0]), right[0]):
        value, cotangent = scale * right[0], left[:, 0] * float(sizes[0]) / scale
        found.append(_start(problem, link, value, cotangent, label, scale, generator))
    return found


def _start(
    problem: Problem,
    link: Link,
    value: Tensor,
    cotangent: Tensor,
    label: int,
    scale: float | None,
    generator: torch.Generator,
) -> Start:
    assert link.weight is not None
    gradient, weight = problem.gradients[link.weight], problem.state[link.weight]
    off = gradient - cotangent[:, None] * value
    residual = float(off.norm() / gradient.norm())
    noise = max(problem.noise(link.weight), float(off.square().mean().sqrt()))
    sigma = noise / float(cotangent.norm())
    errors = sigma * torch.randn(SAMPLES, len(value), generator=generator, dtype=torch.float64).to(value)
    spread = problem.noise(link.bias) if scale is None and link.bias is not None else noise / float(value.norm())
    drift = spread * torch.randn(SAMPLES, len(cotangent), generator=generator, dtype=torch.float64).to(value)
    errors = errors - (drift @ cotangent)[:, None] / (cotangent @ cotangent) * value
    known = Known(
        value=value,
        mask=torch.ones_like(value, dtype=torch.bool),
        sigma=torch.full_like(value, float(errors.square().mean().sqrt())),
        errors=errors,
        cotangent=cotangent @ weight,
        cotangent_errors=drift @ weight,
        cotangent_sigma=spread * weight.norm(dim=0),
    )
    return Start(known, label, scale, residual)


def slopes(problem: Problem, index: int, logits: Tensor, labels: Tensor) -> Tensor:
    """Gradient of the loss in the last layer's output, (M, K), for M outputs (M, K) with labels (M,)."""

    def one(row: Tensor, label: Tensor) -> Tensor:
        output = problem.chain.run(row[None], problem.state, index + 1)
        return loss_value(problem.loss, output, label[None], problem.training)

    try:
        batched: Tensor = torch.func.vmap(torch.func.grad(one))(logits, labels)
        return batched
    except RuntimeError:  # a loss that cannot be batched, such as one that makes one-hot rows
        rows = [_slope(problem, index, row, int(label)) for row, label in zip(logits, labels, strict=True)]
        return torch.stack(rows)


def _slope(problem: Problem, index: int, logits: Tensor, label: int) -> Tensor:
    """The same for one output (K,)."""
    leaf = logits.detach().requires_grad_()
    output = problem.chain.run(leaf[None], problem.state, index + 1)
    value = loss_value(problem.loss, output, torch.tensor([label], device=logits.device), problem.training)
    found: Tensor = torch.autograd.grad(value, leaf)[0]
    return found


def _outputs(problem: Problem, index: int, values: Tensor) -> Tensor:
    """(M, D) inputs of the last layer -> (M, K)."""
    link = problem.chain.links[index]
    assert link.weight is not None
    outputs = values @ problem.state[link.weight].T
    return outputs if link.bias is None else outputs + problem.state[link.bias]


def _classes(problem: Problem, outputs: int) -> Tensor:
    if problem.labels is not None:
        return problem.labels[:1]
    return torch.arange(min(max(outputs, 2), LABELS))


def _label(problem: Problem, index: int, value: Tensor, cotangent: Tensor) -> int:
    """The class whose loss gradient is nearest to the observed one."""
    if problem.labels is not None:
        return int(problem.labels[0])
    if problem.loss == "cross_entropy" and index == len(problem.chain) - 1:
        return int(cotangent.argmin())
    labels = _classes(problem, len(cotangent)).to(value.device)
    outputs = _outputs(problem, index, value[None]).expand(len(labels), -1)
    return int(labels[(slopes(problem, index, outputs, labels) - cotangent).norm(dim=1).argmin()])


def _scales(problem: Problem, index: int, left: Tensor, size: float, right: Tensor) -> list[tuple[int, float]]:
    """(label, alpha) of every root, each polished by bracketing, whose whole loss gradient agrees; best agreement first."""
    constant = _outputs(problem, index, torch.zeros_like(right)[None])[0]
    direction = _outputs(problem, index, right[None])[0] - constant
    reach = float(direction.abs().max())
    if reach == 0:
        return []
    grid = torch.logspace(*DECADES, int((DECADES[1] - DECADES[0]) * PER_DECADE), dtype=torch.float64).to(right) / reach
    found = []
    for sign in (1.0, -1.0):
        for label in _candidates(problem, index, left * sign):
            names = torch.full((len(grid),), label, device=right.device)
            scales = sign * grid
            slope = slopes(problem, index, scales[:, None] * direction + constant, names)
            values = scales * (slope @ left) - size

            def off(exponent: float, sign: float = sign, label: int = label) -> float:
                scale = sign * 10.0**exponent
                return float(scale * float(_slope(problem, index, scale * direction + constant, label) @ left) - size)

            crossings = ((values[1:] > 0) != (values[:-1] > 0)).nonzero()[:, 0].tolist()
            for at in crossings:
                low, high = float(grid[at].log10()), float(grid[at + 1].log10())
                scale = sign * 10.0 ** float(brentq(off, low, high, xtol=1e-15, rtol=1e-15, maxiter=200))
                row = _slope(problem, index, scale * direction + constant, label)
                wanted = left * size / scale
                apart = float((row - wanted).norm() / wanted.norm())
                found.append((apart, label, scale))
    found.sort(key=lambda one: one[0])
    if not found:
        return []
    limit = max(1e-5, 100 * problem.rounding, 3 * found[0][0])
    return [(label, scale) for apart, label, scale in found if apart <= limit]


def _candidates(problem: Problem, index: int, cotangent: Tensor) -> list[int]:
    """Labels worth trying for an output gradient known up to a positive factor."""
    if problem.loss == "cross_entropy" and index == len(problem.chain) - 1 and problem.labels is None:
        return [int(cotangent.argmin())] if len(cotangent) > 1 else []
    return [int(label) for label in _classes(problem, len(cotangent))]
