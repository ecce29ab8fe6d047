"""DP-SGD's gradient: each example's is clipped, they are added up, and noise comes on the sum. Pure and differentiable.

Source: Abadi et al. 2016, Deep Learning with Differential Privacy, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from leakgauge.core.callables import Loss
from leakgauge.core.training import LocalTraining
from leakgauge.errors import UnsupportedError
from leakgauge.local.losses import loss_value
from leakgauge.local.network import Inputs, Network, Tensors

NUMBERS = 1 << 26  # numbers of examples' gradients held at once
TINY = 1e-6  # beside the norm, as torch.nn.utils.clip_grad_norm_ and Opacus have it


@dataclass(frozen=True)
class GradientNoise:
    """Gaussian noise on the sum of clipped gradients, drawn once for each optimiser step.

    Args:
        std: standard deviation on every number of the sum, >= 0; sigma C in DP-SGD.
        generator: its source.
    """

    std: float
    generator: torch.Generator

    def added(self, total: Mapping[str, Tensor]) -> Tensors:
        """The sum with fresh noise; the same tensors where `std` is 0."""
        if self.std == 0:
            return dict(total)
        noise = {name: torch.randn(part.shape, generator=self.generator, dtype=torch.float64) for name, part in total.items()}
        return {name: part + (self.std * noise[name]).to(part) for name, part in total.items()}


def refuse_mixing(network: Network) -> None:
    """Raises UnsupportedError where BatchNorm makes one example's gradient depend on the others."""
    mixing = mixing_layers(network.module, network.mode)
    if mixing:
        shown = ", ".join(repr(name) for name in mixing[:3]) + (f" and {len(mixing) - 3} more" if len(mixing) > 3 else "")
        raise UnsupportedError(
            f"Clipping each example's gradient (DP-SGD) needs examples that do not mix, but the BatchNorm layer(s) {shown} "
            "normalise by the batch: use GroupNorm instead, or mode='eval' with running statistics."
        )


def mixing_layers(module: torch.nn.Module, mode: str) -> list[str]:
    """Names of the BatchNorm layers that normalise by the batch in this mode."""
    return [
        name
        for name, layer in module.named_modules()
        if isinstance(layer, _BatchNorm) and (mode == "train" or layer.running_mean is None)
    ]


def clipped_sum(
    network: Network,
    parameters: Mapping[str, Tensor],
    buffers: Mapping[str, Tensor],
    inputs: Inputs,
    targets: Tensor,
    *,
    clip: float,
    loss: Loss,
    training: LocalTraining,
    trainable: Sequence[str],
    graph: str = "autograd",
) -> tuple[Tensors, Tensor]:
    """Sum over examples of g_i min(1, clip / ||g_i||), with g_i example i's own gradient; and the loss.

    The norm is over all trained parameters together. Examples are taken in chunks, so that memory does not grow with their
    number. With class weights, g_i is weighted but the sum is not divided by the weights, which would mix examples.

    Args:
        network: the pure view; no layer may mix examples (`refuse_mixing`).
        parameters, buffers: the state.
        inputs: (N, *shape), or a dict of tensors with N rows.
        targets: N rows.
        clip: C > 0.
        loss, training: as the client's.
        trainable: names of the trained parameters.
        graph: as in `replay`; 'none' detaches.
    """

    def value(chosen: Tensors, one: Any, target: Tensor) -> Tensor:
        rows = {name: tensor.unsqueeze(0) for name, tensor in one.items()} if isinstance(one, dict) else one.unsqueeze(0)
        device = targets.device.type
        low = torch.bfloat16 if device == "cpu" else torch.float16
        with torch.autocast(device, enabled=training.amp, dtype=low):
            output, _ = network({**parameters, **chosen}, buffers, rows)
            return _example_loss(loss, output, target.unsqueeze(0), training)

    chosen = {name: parameters[name] for name in trainable}
    if len(targets) == 0:  # a Poisson sample may be empty
        return {name: torch.zeros_like(tensor) for name, tensor in chosen.items()}, next(iter(chosen.values())).new_zeros(())
    each = torch.func.vmap(torch.func.grad_and_value(value), in_dims=(None, 0, 0), randomness="different")
    chunk = max(1, NUMBERS // max(1, sum(tensor.numel() for tensor in chosen.values())))
    total: Tensors = {}
    values = []
    for first in range(0, len(targets), chunk):
        gradients, losses = each(chosen, _rows(inputs, first, first + chunk), targets[first : first + chunk])
        squares = torch.stack([part.flatten(1).square().sum(1) for part in gradients.values()]).sum(0)
        factors = (clip / (squares.clamp(min=1e-30).sqrt() + TINY)).clamp(max=1.0)  # (chunk,)
        for name, part in gradients.items():
            clipped = torch.tensordot(factors, part, dims=1)
            total[name] = total[name] + clipped if name in total else clipped
        values.append(losses)
    together = torch.cat(values)
    mean = together.sum() if training.reduction == "sum" else together.mean()
    if graph == "none":
        return {name: tensor.detach() for name, tensor in total.items()}, mean.detach()
    return total, mean


def _rows(inputs: Inputs, first: int, last: int) -> Inputs:
    if isinstance(inputs, dict):
        return {name: cast(Tensor, _rows(tensor, first, last)) for name, tensor in inputs.items()}
    return inputs[first:last]


def _example_loss(loss: Loss, output: Any, target: Tensor, training: LocalTraining) -> Tensor:
    """The loss of one example; class weights count, although a mean over one example would cancel them."""
    if training.class_weights is None or training.reduction == "sum" or target.is_floating_point() or loss != "cross_entropy":
        return loss_value(loss, output, target, training)
    logits = output.logits if hasattr(output, "logits") else output
    weights = torch.tensor(training.class_weights, dtype=logits.dtype, device=logits.device)
    smoothing = training.label_smoothing
    summed = torch.nn.functional.cross_entropy(logits, target, weight=weights, reduction="sum", label_smoothing=smoothing)
    return summed / target.numel()
