"""`replay`: the pure, differentiable function that repeats a client's local training. Clients and attacks share it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor

from leakgauge.core.callables import Loss
from leakgauge.core.training import LocalTraining
from leakgauge.errors import OptionError, ShapeError
from leakgauge.local.losses import loss_value
from leakgauge.local.network import Inputs, Network, Tensors
from leakgauge.local.optimisers import Optimiser, clipped, optimiser_for
from leakgauge.local.private import GradientNoise, clipped_sum, refuse_mixing

Graph = Literal["autograd", "func", "none"]
Order = Sequence[Sequence[Tensor]]  # per optimiser step, per accumulated mini-batch: indices of examples


@dataclass(frozen=True)
class Replayed:
    """What local training leaves behind.

    Args:
        tensors: parameter name -> gradient, or weights after minus before.
        buffers: buffer name -> tensor after the last forward pass.
        losses: mean loss of each optimiser step, (steps,).
    """

    tensors: Tensors
    buffers: Tensors
    losses: Tensor


def draw_order(training: LocalTraining, num_examples: int, generator: torch.Generator | None = None) -> list[list[Tensor]]:
    """Which examples each mini-batch of each optimiser step holds.

    Args:
        training: the protocol; its `shuffle` decides whether `generator` is used.
        num_examples: size of the client's data, >= 1.
        generator: source of the permutations; None keeps the order of the batch.

    Raises:
        ShapeError: if `drop_last` leaves no mini-batch at all.
    """
    size = min(training.batch_size or num_examples, num_examples)
    if training.drop_last and training.batch_size is not None and training.batch_size > num_examples:
        raise ShapeError(
            f"A client with {num_examples} example(s) has no full mini-batch of {training.batch_size}, and drop_last is set."
        )

    def epoch() -> list[Tensor]:
        shuffled = training.shuffle and generator is not None
        order = torch.randperm(num_examples, generator=generator) if shuffled else torch.arange(num_examples)
        batches = list(torch.split(order, size))
        return batches[:-1] if training.drop_last and len(batches[-1]) < size else batches

    wanted = training.steps_for(num_examples)
    if training.epochs is not None:
        queue = [batch for _ in range(training.epochs) for batch in epoch()]
        return [queue[i : i + training.accumulation] for i in range(0, len(queue), training.accumulation)]
    queue = []
    while len(queue) < wanted * training.accumulation:
        queue += epoch()
    return [queue[i * training.accumulation : (i + 1) * training.accumulation] for i in range(wanted)]


def replay(
    network: Network,
    inputs: Inputs,
    targets: Tensor,
    *,
    loss: Loss,
    training: LocalTraining,
    order: Order | None = None,
    parameters: Mapping[str, Tensor] | None = None,
    buffers: Mapping[str, Tensor] | None = None,
    trainable: Sequence[str] | None = None,
    graph: Graph = "autograd",
    example_clip: float | None = None,
    noise: GradientNoise | None = None,
    optimiser: Optimiser | None = None,
) -> Replayed:
    """Repeats local training from the received model; differentiable in `inputs`, `targets` and `parameters`.

    With `training.lr` None it is one gradient (averaged over mini-batches where there are several); otherwise the weight
    change of `torch.optim`'s rule over all steps.

    Args:
        network: the pure view of the model.
        inputs: (N, *shape) tensor, or a dict of tensors with N rows.
        targets: labels, N rows.
        loss: name or callable.
        training: the protocol.
        order: indices per step and mini-batch (`draw_order`); None keeps the order of the batch.
        parameters: parameters at the start; the network's own by default.
        buffers: buffers at the start; the network's own by default.
        trainable: names of the parameters that are trained; those that require a gradient by default.
        graph: 'autograd' keeps the graph for a derivative of the result; 'func' does so under torch.func transforms (vmap);
            'none' is cheaper and detached.
        example_clip: largest 2-norm of one example's gradient (DP-SGD), or None. The clipped gradients are added up and, for
            reduction 'mean', divided by the nominal mini-batch size, also where the last mini-batch is short.
        noise: what DP-SGD adds to that sum, once for each optimiser step; a client's own, no attack has it.
        optimiser: a fresh update rule instead of the protocol's.

    Raises:
        OptionError: for noise without a clip, or a clip that is not positive.
        UnsupportedError: for a clip where BatchNorm normalises by the batch, which mixes examples.
    """
    if example_clip is not None:
        if not example_clip > 0:
            raise OptionError(f"replay's example_clip is {example_clip!r}; expected a number > 0, or None.")
        refuse_mixing(network)
    elif noise is not None:
        raise OptionError("replay was given noise without example_clip; DP-SGD's noise belongs to clipped gradients.")
    nominal = min(training.batch_size or len(targets), len(targets))
    start = dict(network.parameters() if parameters is None else parameters)
    state = dict(network.buffers() if buffers is None else buffers)
    order = draw_order(training, len(targets)) if order is None else order
    trainable = network.trainable() if trainable is None else trainable
    optimiser = optimiser_for(training) if optimiser is None else optimiser
    weights, losses = dict(start), []
    for index, batches in enumerate(order):
        total: Tensors = {}
        values = []
        for batch in batches:
            rows, wanted = _pick(inputs, batch), cast(Tensor, _pick(targets, batch))
            if example_clip is None:
                part, state, value = gradient(
                    network, weights, state, rows, wanted, loss=loss, training=training, trainable=trainable, graph=graph
                )
            else:
                part, value = clipped_sum(
                    network, weights, state, rows, wanted, clip=example_clip, loss=loss, training=training,
                    trainable=trainable, graph=graph,
                )  # fmt: skip
            total = {name: total[name] + part[name] for name in part} if total else part
            values.append(value)
        if noise is not None:
            total = noise.added(total)
        share = len(batches) * (1 if example_clip is None else nominal)
        if training.reduction == "mean" and share > 1:
            total = {name: tensor / share for name, tensor in total.items()}
        losses.append(torch.stack(values).mean())
        if training.proximal:
            total = {name: tensor + training.proximal * (weights[name] - start[name]) for name, tensor in total.items()}
        if training.clip_norm is not None:
            total = clipped(total, training.clip_norm)
        if training.lr is None:
            return Replayed(total, state, torch.stack(losses))
        factor = 1.0 if training.schedule is None else training.schedule[min(index, len(training.schedule) - 1)]
        stepped = optimiser.step({name: weights[name] for name in total}, total, training.lr * factor)
        weights = {**weights, **stepped}
        if graph == "none":
            weights = {name: tensor.detach() for name, tensor in weights.items()}
    return Replayed({name: weights[name] - start[name] for name in trainable}, state, torch.stack(losses))


def gradient(
    network: Network,
    parameters: Mapping[str, Tensor],
    buffers: Mapping[str, Tensor],
    inputs: Inputs,
    targets: Tensor,
    *,
    loss: Loss,
    training: LocalTraining,
    trainable: Sequence[str],
    graph: Graph = "autograd",
) -> tuple[Tensors, Tensors, Tensor]:
    """One gradient of the loss in the trainable parameters; returns (gradient, buffers after, loss)."""

    def value(chosen: Tensors) -> tuple[Tensor, Tensors]:
        device = targets.device.type
        low = torch.bfloat16 if device == "cpu" else torch.float16
        with torch.autocast(device, enabled=training.amp, dtype=low):
            output, after = network({**parameters, **chosen}, buffers, inputs)
            return loss_value(loss, output, targets, training), after

    chosen = {name: parameters[name] for name in trainable}
    if graph == "func":
        derivative, (result, after) = torch.func.grad_and_value(value, has_aux=True)(chosen)
        return derivative, after, result
    keep = graph == "autograd"
    leaves = {
        name: tensor if keep and tensor.requires_grad else tensor.detach().requires_grad_() for name, tensor in chosen.items()
    }
    with torch.enable_grad():
        network.held = keep and not training.amp and not any(tensor.requires_grad for tensor in chosen.values())
        try:
            result, after = value(leaves)
        finally:
            network.held = False
    parts = torch.autograd.grad(result, list(leaves.values()), create_graph=keep, allow_unused=True)
    found = {
        name: torch.zeros_like(leaf) if part is None else part for (name, leaf), part in zip(leaves.items(), parts, strict=True)
    }
    if not keep:
        after, result = {name: tensor.detach() for name, tensor in after.items()}, result.detach()
    return found, after, result


def _pick(rows: Inputs, batch: Tensor) -> Inputs:
    """The rows of one mini-batch; the tensors themselves where the batch is everything in order."""
    if isinstance(rows, dict):
        return {name: _pick(tensor, batch) for name, tensor in rows.items()}  # type: ignore[misc]
    if len(batch) == len(rows) and bool((batch == torch.arange(len(batch))).all()):
        return rows
    return rows[batch.to(rows.device)]
