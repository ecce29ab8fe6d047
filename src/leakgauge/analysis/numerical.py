"""Numerical rank of one layer's equations, for its own weights and given output gradients."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from leakgauge.chain.geometry import ConvGeometry
from leakgauge.chain.link import Chain
from leakgauge.chain.rank_instance import TOLERANCE, null_space, pixels_seen
from leakgauge.core.training import LocalTraining
from leakgauge.errors import ModelError, ShapeError
from leakgauge.local.losses import loss_value
from leakgauge.randomness import rng

LARGEST = 6000  # unknowns of a layer whose dense matrix is still decomposed
BLOCK = 20_000_000  # numbers of it that are formed at a time


@dataclass(frozen=True)
class Seen:
    """What one example does to the layers: dL/dz, and where later layers see z.

    Args:
        gradients: output gradients by layer name, (1, *output), float64.
        active: by layer name, where the activation after it lets the value through, (*output) bool; absent where everywhere.
    """

    gradients: dict[str, Tensor]
    active: dict[str, Tensor]


def numerical_rank(geometry: ConvGeometry, weight: Tensor, k: Tensor, active: Tensor | None = None) -> int:
    """Rank of [W; K] in float64, counting singular values above 1e-10 of the largest.

    With N a basis of the null space of the gradient block K0, rank [W; K] = C rank K0 + rank W (I x N) for each group, so that
    the scale of the output gradients, often tiny beside that of the weights, does not matter.

    Args:
        geometry: of the convolution.
        weight: (out_channels, in_channels / groups, *kernel).
        k: output gradients, (out_channels, *output_size).
        active: outputs that are known, same shape; all by default.

    Source: Chen & Campbell 2022 (released code), there in float32 with an absolute tolerance of 1e-10.
    """
    filters, channels = geometry.out_channels // geometry.groups, geometry.in_channels // geometry.groups
    sees, total = pixels_seen(geometry), 0
    for group in range(geometry.groups):
        own = slice(group * filters, (group + 1) * filters)
        block = k[own].double().reshape(filters, -1)
        if not bool(block.any()):
            rank, basis = 0, torch.eye(prod(geometry.size), dtype=torch.float64)
        else:
            rank, basis = null_space(block, sees, prod(geometry.size))
        padded = torch.cat([basis, basis.new_zeros(1, basis.shape[1])])[sees]  # (T, P, e)
        kernel = weight[own].double().reshape(filters, channels, -1)
        known = None if active is None else active[own].reshape(filters, -1)
        total += channels * rank + _rank(_triangle(kernel, padded, known))
    return total


def random_gradients(geometry: ConvGeometry, name: str) -> Tensor:
    """Output gradients from a fixed seed, (out_channels, *output_size), float64."""
    return torch.randn(
        geometry.out_channels, *geometry.output_size, generator=rng(0, "output gradients", name), dtype=torch.float64
    )


def seen_at(model: nn.Module, chain: Chain, probe: tuple[Tensor, int]) -> Seen:
    """Output gradients of one example in eval mode and float64, and the active outputs before a ReLU.

    The loss is cross-entropy; for one output, logistic.

    Args:
        model: the network of the chain.
        chain: as `trace` returns it.
        probe: inputs as the model takes them, (1, *shape), and the label.

    Raises:
        ShapeError: if the inputs do not fit, or the label is no class.
        ModelError: if the network returns no (1, K) tensor.
    """
    inputs, label = probe
    if tuple(inputs.shape) != (1, *chain.input_shape):
        raise ShapeError(f"The probe has shape {tuple(inputs.shape)}; expected one example, {(1, *chain.input_shape)}.")
    network = copy.deepcopy(model).eval().cpu().double()
    outputs: dict[str, Tensor] = {}
    names = {link.name for link in chain.walk() if link.kind in ("conv", "linear")}
    for name, module in network.named_modules():
        if name in names:
            module.register_forward_hook(lambda _module, _inputs, output, name=name: _keep(outputs, name, output))
    result = network(inputs.detach().cpu().double())
    logits = result.logits if hasattr(result, "logits") else result
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        raise ModelError("The network returns no (1, K) tensor, which a probe with a label needs.")
    classes = logits.shape[1]
    if not 0 <= label < max(classes, 2):
        raise ShapeError(f"The probe's label is {label}; the network has classes 0 to {max(classes, 2) - 1}.")
    loss = loss_value("cross_entropy" if classes > 1 else "binary_cross_entropy", logits, torch.tensor([label]), LocalTraining())
    gradients = torch.autograd.grad(loss, list(outputs.values()), allow_unused=True)
    kept = {name: torch.zeros_like(z) if k is None else k for (name, z), k in zip(outputs.items(), gradients, strict=True)}
    return Seen(kept, _active(chain, network, inputs.detach().cpu().double()))


def _keep(outputs: dict[str, Tensor], name: str, output: Tensor) -> Tensor:
    outputs[name] = output
    return output.clone()  # an activation in place must not write over what is kept


def _active(chain: Chain, network: nn.Module, inputs: Tensor) -> dict[str, Tensor]:
    """For each convolution of the chain itself that a ReLU follows, where that is positive."""
    state = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    found: dict[str, Tensor] = {}
    waiting = ""
    with torch.no_grad():
        for link in chain.links:
            inputs = link.function(inputs, state)
            if link.kind == "conv":
                waiting = link.name
            elif link.activation is not None and link.activation.partial and waiting:
                found[waiting] = link.activation.known(inputs)[0]
                waiting = ""
            elif link.kind not in ("affine", "identity"):
                waiting = ""
    return found


def _triangle(kernel: Tensor, padded: Tensor, known: Tensor | None) -> Tensor:
    """W (I x N) for kernel (F, C, T) and N as each tap sees it (T, P, e), or a triangular factor of it where it is tall."""
    columns = kernel.shape[1] * padded.shape[2]
    found = kernel.new_zeros(0, columns)
    if columns == 0:
        return found
    step = max(1, BLOCK // (padded.shape[1] * columns))
    for start in range(0, len(kernel), step):
        rows = torch.einsum("fcu,upe->fpce", kernel[start : start + step], padded).reshape(-1, columns)
        if known is not None:
            rows = rows[known[start : start + step].reshape(-1)]
        found = torch.cat([found, rows])
        if len(found) > columns:
            found = torch.linalg.qr(found, mode="r").R
    return found


def _rank(rows: Tensor) -> int:
    if 0 in rows.shape:
        return 0
    values = torch.linalg.svdvals(rows)
    return int((values > TOLERANCE * values[0]).sum()) if float(values[0]) > 0 else 0
