r"""The layer that causes the missing information.

Let someone know the output of layer i exactly, beside the (noisy) gradients of layers 0..i. Everything that comes after,
forwards and backwards, is a function of that output and the label, so each further layer can only take knowledge away: the
posterior error $E_i$ of that reader never falls with i, from that of the first layer alone to E of the whole update. The
bottleneck is the first layer at which $E_i$ reaches half of E: before it most of the picture could still be had.

For the first layer it is the error of its own equations, whose null space nothing later can see. A deeper layer that is
deficient by itself is not blamed where the gradients before it complete it. In a network with skip connections one output is
not all that passes, and the layer named is an indication.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from leakgauge.analysis.image_prior import ImagePrior
from leakgauge.analysis.jacobian import UpdateJacobian, dense, rows_of
from leakgauge.analysis.posterior import conditional_error

NEGLIGIBLE = 0.01  # share of the prior's error below which nothing is missing
KNOWN = 1e-3  # an output that is known: its relative noise as a share of the gradient's


def bottleneck(jacobian: UpdateJacobian, matrix: Tensor, prior: ImagePrior, std: float, error: float) -> str | None:
    """Name of the layer at which half of the posterior error has appeared; None where (almost) nothing is missing.

    Args:
        jacobian: of the update at one picture.
        matrix: the same, stored, (m, n).
        prior: of the n values.
        std: standard deviation of the noise on one gradient entry.
        error: E, the posterior error of the whole update.
    """
    if error < NEGLIGIBLE * prior.error:
        return None
    order = call_order(jacobian)
    if not order:
        return None
    root = prior.root(torch.eye(jacobian.unknowns, dtype=matrix.dtype, device=matrix.device))
    first, last = 0, len(order) - 1  # the whole update reaches E by definition
    while first < last:
        middle = (first + last) // 2
        if error_up_to(jacobian, matrix, prior, std, order, middle, root) >= error / 2:
            last = middle
        else:
            first = middle + 1
    return order[first]


def error_up_to(
    jacobian: UpdateJacobian, matrix: Tensor, prior: ImagePrior, std: float, order: list[str], index: int, root: Tensor
) -> float:
    """E_i: the error that remains to one who knows the output of layer `index` and the gradients up to it.

    Args:
        jacobian: of the update at one picture.
        matrix: the same, stored, (m, n).
        prior: of the n values.
        std: standard deviation of the noise on one gradient entry.
        order: names of the layers, see `call_order`.
        index: i, into `order`.
        root: Sigma^(1/2), (n, n).
    """
    later = set(order[index + 1 :])
    names = [name for name in jacobian.names if name.rpartition(".")[0] not in later]
    rows = prior.root(matrix[rows_of(jacobian.blocks, names)]) / std
    activations = dense(lambda point: output_of(jacobian, order[index], point), jacobian.point, jacobian.entries)
    with torch.no_grad():
        size = float(output_of(jacobian, order[index], jacobian.point).square().mean().sqrt())
    if size > 0:
        noise = std * math.sqrt(jacobian.entries) / jacobian.norm
        rows = torch.cat([rows, prior.root(activations) / (KNOWN * noise * size)])
    return conditional_error(rows, root)[0]


def call_order(jacobian: UpdateJacobian) -> list[str]:
    """Names of the innermost modules that are called once with a tensor for a result, in the order of their calls."""
    calls: list[str] = []
    odd: set[str] = set()

    def note(name: str, result: object) -> None:
        calls.append(name)
        if not (isinstance(result, Tensor) and result.is_floating_point()):
            odd.add(name)

    with _watched(jacobian, [name for name, part in jacobian.network.module.named_modules() if _is_leaf(part)], note):
        _forward(jacobian, jacobian.point)
    return [name for name in dict.fromkeys(calls) if calls.count(name) == 1 and name not in odd]


def output_of(jacobian: UpdateJacobian, name: str, point: Tensor) -> Tensor:
    """The output of one module for a picture (n,), as a vector."""
    found: list[Tensor] = []

    def note(_: str, result: object) -> None:
        assert isinstance(result, Tensor)
        found.append(result)

    with _watched(jacobian, [name], note):
        _forward(jacobian, point)
    return found[0].reshape(-1)


def _forward(jacobian: UpdateJacobian, point: Tensor) -> None:
    jacobian.network(jacobian.parameters, jacobian.buffers, jacobian.inputs(point))


def _is_leaf(part: nn.Module) -> bool:
    return not any(True for _ in part.children())


@contextmanager
def _watched(jacobian: UpdateJacobian, names: list[str], note: object) -> Iterator[None]:
    modules = dict(jacobian.network.module.named_modules())
    handles = [
        modules[name].register_forward_hook(lambda _module, _inputs, result, name=name: note(name, result))  # type: ignore[operator]
        for name in names
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
