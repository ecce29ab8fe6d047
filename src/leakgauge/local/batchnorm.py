"""BatchNorm statistics of given inputs, differentiably, with the bookkeeping of `Network`."""

from __future__ import annotations

import torch
from torch import Tensor

from leakgauge.core.batch_statistics import BatchStatistics, batch_norm_layers, difference
from leakgauge.local.network import Inputs, Network

__all__ = ["BatchStatistics", "batch_norm_layers", "batch_statistics", "difference"]


def batch_statistics(network: Network, inputs: Inputs) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean and biased variance of each BatchNorm layer's input, (C,) each, as normalised by the running statistics.

    Taken where the layer stands: in a network in eval mode, what reaches a layer was normalised by running statistics; in
    train mode by the batch's own.

    Args:
        network: the pure view.
        inputs: (N, *shape), or a dict of tensors.
    """
    found: dict[str, tuple[Tensor, Tensor]] = {}
    handles = []
    for name, layer in batch_norm_layers(network.module).items():

        def keep(_: torch.nn.Module, arguments: tuple[Tensor, ...], name: str = name) -> None:
            values = arguments[0]
            axes = [axis for axis in range(values.ndim) if axis != 1]
            found[name] = (values.mean(axes), values.var(axes, correction=0))

        handles.append(layer.register_forward_pre_hook(keep))
    try:
        network(network.parameters(), network.buffers(), inputs)
    finally:
        for handle in handles:
            handle.remove()
    return found
