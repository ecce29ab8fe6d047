"""The forward half of the matching problem: the last layer's gradient and the BatchNorm statistics, without a second derivative.

The gradient of the last linear layer is (dL/dz)^T h in closed form, h its input and z the output, so that a candidate's part of
it costs one forward pass and its slope one backward pass, about a quarter of a full matching step. Where batch statistics were
recovered from the update, the client's BatchNorm layers are known affine maps: at the truth, dividing by the recovered
statistics is what the client did, and a network with fixed maps is far better conditioned than one whose maps move with the
candidate. Several local steps are taken together at the middle of the way between the two models, each mini-batch divided by its
own statistics, as in the client.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from leakgauge.attacks.labels.recover import last_linear
from leakgauge.attacks.matching.statistics import LayerTarget, layer_target, noise_on_statistics
from leakgauge.attacks.matching.target import Target, grouped_network
from leakgauge.core.batch_statistics import batch_norm_layers
from leakgauge.core.callables import Loss
from leakgauge.core.observation import Observation
from leakgauge.core.training import LocalTraining
from leakgauge.errors import UnsupportedError
from leakgauge.local.losses import loss_value
from leakgauge.local.network import Network, Tensors, cast, group_moments

PRECISE = 0.01  # noise on a layer's statistics, in its standard deviations, up to which they are taken for the client's own
UNFIT = ("clip", "sign", "dp-sgd", "svt")  # defences after which the last layer's gradient has another scale


@dataclass(frozen=True)
class Forward:
    """What a candidate's forward passes are compared with.

    Args:
        network: in the assumed mode; in eval mode with the recovered statistics where those are one step's own.
        parameters, buffers: its state.
        head: name of the last linear layer, whose output is the network's.
        rows: (K, r) orthonormal directions that hold the observed weight gradient (rank at most N).
        weight, bias: (r, F) and (K,) observed gradients; None where not shared.
        statistics: targets by BatchNorm layer, met on the way; empty where they are not used.
        importance: weight of the statistics against the relative squared distance of the gradient.
        labels: as the loss takes them.
        loss, training: of the client.
        shape: (N, C, H, W).
    """

    network: Network
    parameters: Tensors
    buffers: Tensors
    head: str
    rows: Tensor
    weight: Tensor | None
    bias: Tensor | None
    statistics: Mapping[str, LayerTarget]
    importance: float
    labels: Tensor
    loss: Loss
    training: LocalTraining
    shape: tuple[int, ...]

    def residual(self, point: Tensor) -> Tensor:
        """(m,) for a flat vector of pixels; works under torch.func transforms."""
        met: dict[str, Tensor] = {}
        handles = []
        for name in (self.head, *self.statistics):

            def keep(_: nn.Module, arguments: tuple[Tensor, ...], name: str = name) -> None:
                met[name] = arguments[0]

            handles.append(self.network.module.get_submodule(name).register_forward_pre_hook(keep))
        try:
            output, _ = self.network(self.parameters, self.buffers, point.reshape(self.shape))
        finally:
            for handle in handles:
                handle.remove()
        slope: Tensor = torch.func.grad(lambda logits: loss_value(self.loss, logits, self.labels, self.training))(output)
        if self.training.reduction == "sum":
            slope = slope / self.shape[0]  # the observed gradient is that of the mean over examples
        size = torch.stack([part.square().sum() for part in (self.weight, self.bias) if part is not None]).sum().sqrt()
        parts = []
        if self.weight is not None:
            parts.append(((self.rows.T @ slope.T @ met[self.head] - self.weight) / size).reshape(-1))
        if self.bias is not None:
            parts.append((slope.sum(0) - self.bias) / size)
        importance = (self.importance / max(len(self.statistics), 1)) ** 0.5
        layers = batch_norm_layers(self.network.module)
        for name, target in self.statistics.items():
            parts.append(importance * target.off(*group_moments(met[name], self.network.groups, layers[name].momentum)))
        return torch.cat(parts)


def forward_of(
    seen: Observation, target: Target, labels: Tensor | None, statistics: float, gradient: bool = True, adaptive: bool = True
) -> tuple[Forward | None, str]:
    """The forward problem of an observation, or None with the reason in words.

    Args:
        seen: what the attacker holds.
        target: what is matched; its mode is the assumed one.
        labels: settled labels, None where they are optimised with the pixels.
        statistics: weight of the recovered statistics; 0 leaves them out, and BatchNorm follows the assumed mode.
        gradient: False leaves the update's gradient out.
        adaptive: weigh statistics by the declared noise on them, and leave BatchNorm to the candidate where that is large.
    """
    if not gradient or labels is None:
        return None, "labels are optimised with the pixels" if gradient else "the gradient is left out"
    try:
        layer = last_linear(seen)
    except UnsupportedError as error:
        return None, str(error)
    scaled = [record.name for record in seen.defences if record.name in UNFIT]
    if scaled:
        return None, f"{scaled[0]} changes the scale of the last layer's gradient"
    if target.several and seen.training.optimiser != "sgd":
        return None, f"several steps of {seen.training.optimiser} are no sum of gradients"
    like = next(iter(target.parameters.values()))
    network, parameters, buffers, known = target.network, target.parameters, target.buffers, {}
    if target.several:
        network = grouped_network(seen, target.network.mode)
        network.module.to(like.device)
        parameters = {
            name: parameter + 0.5 * seen.tensors[name].to(parameter) if name in seen.tensors else parameter
            for name, parameter in parameters.items()
        }
    if statistics > 0 and seen.batch_norm and target.network.mode == "train":
        noise = noise_on_statistics(seen) if adaptive else {}
        spread = {name: float(met.var.clamp(min=0).mean().sqrt()) for name, met in seen.batch_norm.items()}
        precise = all(noise.get(name, 0.0) <= PRECISE * size for name, size in spread.items())
        if not target.several and precise:
            network, buffers = _fixed(seen, target, like)
        known = {name: layer_target(met.mean, met.var, like, noise.get(name, 0.0)) for name, met in seen.batch_norm.items()}
    shape = (seen.num_examples, *(seen.pictures.shape if seen.pictures else ()))
    if not _is_output(network, parameters, buffers, layer.name, torch.zeros(shape).to(like)):
        return None, f"the last linear layer {layer.name!r} is not the network's output on rows of features"
    weight = None if layer.weight is None else layer.weight.to(like)
    rows = torch.eye(layer.module.out_features).to(like)
    if weight is not None:
        most = min(seen.num_examples, *weight.shape) if not target.several else min(weight.shape)
        rows = torch.linalg.svd(weight, full_matrices=False).U[:, :most]
        weight = rows.T @ weight
    bias = None if layer.bias is None else layer.bias.to(like)
    training = target.training
    return Forward(
        network, parameters, buffers, layer.name, rows, weight, bias, known, statistics, labels, seen.loss, training, shape
    ), ""


def _fixed(seen: Observation, target: Target, like: Tensor) -> tuple[Network, Tensors]:
    """The network in eval mode whose BatchNorm layers divide by the recovered statistics."""
    network = Network(seen.model, "eval")
    network.module.to(like.device)
    buffers = cast(target.buffers, like.dtype)
    for name, layer in seen.batch_norm.items():
        prefix = f"{name}." if name else ""
        buffers[prefix + "running_mean"] = layer.mean.to(like)
        buffers[prefix + "running_var"] = layer.var.clamp(min=0).to(like)
    return network, buffers


def _is_output(network: Network, parameters: Tensors, buffers: Tensors, head: str, blank: Tensor) -> bool:
    """Whether the named layer's output is the network's, (N, K), on the blank input."""
    kept: list[Tensor] = []
    layer = network.module.get_submodule(head)
    handle = layer.register_forward_hook(lambda _module, _arguments, output: kept.append(output))
    try:
        with torch.no_grad():
            output, _ = network(parameters, buffers, blank)
    finally:
        handle.remove()
    return len(kept) == 1 and isinstance(output, Tensor) and output.ndim == 2 and bool(torch.equal(kept[0], output))
