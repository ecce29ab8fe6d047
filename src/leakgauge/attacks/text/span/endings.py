"""The last token of a causal model's texts: it is predicted but never read, so only the output layer's gradient knows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from leakgauge.attacks.text.check import padded
from leakgauge.attacks.text.network import TextNetwork
from leakgauge.attacks.text.tracing import input_weights

SHORT = 32  # tokens whose gradient is compared in full
STEP = 1e-4  # relative step of the derivative along the observed direction


@dataclass(frozen=True)
class Endings:
    """What is known before the last tokens.

    Args:
        tokens: (N,) last token of each text.
        fit: (N,) how well each fits, 1 at best.
        source: parameter that told them.
    """

    tokens: Tensor
    fit: Tensor
    source: str


def endings(network: TextNetwork, gradients: Mapping[str, Tensor], stems: list[Tensor], vocabulary: int) -> Endings | None:
    """Finds the last token of each text whose other tokens are known.

    The gradient of all predictions but the last ones is computed and taken off. What remains is linear in the last tokens:
    in the head, row y_i holds -h_i / M, with h_i the known last hidden state and M the number of predictions; in the last
    layer below it with input a_i it is sum_i a_i d_i^T, where d_i is minus the derivative of the score of y_i by that layer's
    output.

    Args:
        network: a causal network.
        gradients: parameter name -> shared gradient of the mean loss.
        stems: token ids (t_i,) of each text without its last token.
        vocabulary: V.

    Returns:
        None where neither the head nor a layer after the last attention was shared.
    """
    ids, mask = padded(stems, max(len(stem) for stem in stems), None)
    ids, mask = ids.to(network.device), mask.to(network.device)
    last = mask.sum(1) - 1
    if network.head is not None and network.head in gradients:
        return _from_head(network, network.head, gradients, ids, mask, last)
    layer = _last_layer(network, gradients)
    return None if layer is None else _from_layer(network, layer, gradients, ids, mask, last, vocabulary)


def _remainder(network: TextNetwork, name: str, gradients: Mapping[str, Tensor], ids: Tensor, mask: Tensor) -> Tensor:
    """The gradient of one parameter without the predictions whose token is known, times their number M."""
    weight = network.module.get_parameter(name)
    weight.requires_grad_(True)
    try:
        with torch.enable_grad():
            logits = network.module(**network.arguments(ids, mask)).logits
            with torch.no_grad():
                pull = logits.softmax(2)
                known = mask[:, 1:].bool()
                rows, columns = known.nonzero(as_tuple=True)
                pull[rows, columns, ids[rows, columns + 1]] -= 1.0
                pull *= mask[..., None]
            found = torch.autograd.grad(logits, weight, pull)[0]
    finally:
        weight.requires_grad_(False)
    return gradients[name].to(network.device) * int(mask.sum()) - found


def _from_head(
    network: TextNetwork, head: str, gradients: Mapping[str, Tensor], ids: Tensor, mask: Tensor, last: Tensor
) -> Endings:
    rest = _remainder(network, head, gradients, ids, mask)  # (V, D)
    layer = next(site for site in reversed(network.sites) if site.width == rest.shape[1])
    states = network.inputs_of(layer, ids, mask)[torch.arange(len(ids)), last]  # (N, D)
    parts = -torch.linalg.pinv(states).T @ rest.T  # (N, V): 1 where the text ends with that token
    fit, tokens = parts.max(1)
    return Endings(tokens, fit, head)


def _last_layer(network: TextNetwork, gradients: Mapping[str, Tensor]) -> tuple[str, str, bool] | None:
    """The last linear layer below the head that was shared: (layer, parameter, whether rows belong to the input)."""
    parts = dict(network.module.named_modules())
    for site in reversed(network.sites):
        for layer in site.names:
            weight = getattr(parts[layer], "weight", None)
            if isinstance(weight, nn.Parameter) and weight.shape[0] == network.vocabulary:
                continue
            name, rows_in = input_weights(layer, parts[layer])[0]
            return (layer, name, rows_in) if name in gradients else None
    return None


def _from_layer(
    network: TextNetwork,
    layer: tuple[str, str, bool],
    gradients: Mapping[str, Tensor],
    ids: Tensor,
    mask: Tensor,
    last: Tensor,
    vocabulary: int,
) -> Endings:
    name, parameter, rows_in = layer
    rest = _remainder(network, parameter, gradients, ids, mask)
    rest = rest if rows_in else rest.T  # (D_in, D_out)
    rows = torch.arange(len(ids), device=ids.device)
    inputs = network.inputs_of(network.site_of(name), ids, mask)[rows, last]  # (N, D_in)
    wanted = -(torch.linalg.pinv(inputs).T @ rest)  # (N, D_out)
    module = network.module.get_submodule(name)
    shift: list[Tensor] = []

    def moved(_: nn.Module, __: object, output: Tensor) -> Tensor:
        change = torch.zeros_like(output).reshape(*ids.shape, -1)
        change[rows, last] = shift[0].to(output.dtype)
        return output + change.reshape(output.shape)

    def scores(change: Tensor) -> Tensor:
        shift[:] = [change]
        logits: Tensor = network.module(**network.arguments(ids, mask)).logits
        return logits[rows, last, :vocabulary]

    hook = module.register_forward_hook(moved)
    try:
        with torch.no_grad():
            step = STEP / wanted.norm(dim=1, keepdim=True).clamp(min=1e-300)
            slope = (scores(step * wanted) - scores(-step * wanted)) / 2
        short = slope.topk(min(SHORT, vocabulary), dim=1).indices  # (N, k)
        change = torch.zeros_like(wanted).requires_grad_()
        with torch.enable_grad():
            values = scores(change)
            fits = []
            for column in short.T:
                part = torch.autograd.grad(values[rows, column].sum(), change, retain_graph=True)[0]
                off = (part - wanted).norm(dim=1) / wanted.norm(dim=1)
                fits.append(1.0 - off)
    finally:
        hook.remove()
    fit, best = torch.stack(fits, dim=1).max(1)
    return Endings(short[rows, best], fit, parameter)
