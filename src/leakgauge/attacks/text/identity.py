"""The identity of Lu et al. 2022: the inputs of a first attention layer that alone reads the embeddings."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from leakgauge.attacks.text.network import TextNetwork
from leakgauge.attacks.text.rehearsal import rehearsed

HOLDS = 1e-6  # relative residual of the identity on a public text, in float64, where it holds (rounding leaves 1e-12)


def solved(network: TextNetwork, gradients: Mapping[str, Tensor]) -> tuple[Tensor, float]:
    """Inputs (L, D) of the first attention layer and the relative residual of the equations that give them.

    L is the number of rows of the position embedding's gradient that are not zero, counted to the last of them.
    """
    assert network.positions is not None
    rows = gradients[network.positions][network.offset :].double().to(network.device)
    used = (rows.abs().amax(1) > 0).nonzero().flatten()
    rows = rows[: int(used.max()) + 1] if len(used) else rows[:0]
    weights = {name: network.parameter(name) for name in network.attention[0].names}
    parts = zip(network.attention[0].split(gradients), network.attention[0].split(weights), strict=True)
    joint = sum((change.double().to(network.device) @ weight.T for change, weight in parts), torch.zeros(()).double())
    if not len(rows):
        return rows, float("nan")
    inputs = (joint @ torch.linalg.pinv(rows)).T
    return inputs, float((inputs.T @ rows - joint).norm() / joint.norm())


def nearest(network: TextNetwork, inputs: Tensor, vocabulary: int) -> tuple[Tensor, float]:
    """Token ids (L,) whose embedding is nearest to what is left of the inputs without position and type.

    Returns also how many times farther the second nearest is, at the least clear position.
    """
    zero = torch.zeros(len(inputs), dtype=torch.int64, device=inputs.device)
    places = network.embedded(zero, torch.arange(len(inputs), device=inputs.device))
    table = network.parameter(network.tokens)
    distances = torch.cdist(inputs - places + table[0], table[:vocabulary])
    two, tokens = distances.topk(2, dim=1, largest=False)
    return tokens[:, 0], float((two[:, 1] / two[:, 0].clamp(min=1e-300)).min())


def identity_holds(network: TextNetwork, generator: torch.Generator) -> bool:
    """Whether the closed form gives a public random text's own inputs."""
    ids = torch.randint(network.vocabulary, (1, 5), generator=generator).to(network.device)
    names = {network.positions or "", *network.attention[0].names}
    found = rehearsed(network, ids, names, generator)
    gradients = {name: found.get(name, torch.zeros_like(network.module.get_parameter(name))) for name in names}
    inputs, _ = solved(network, gradients)
    true = network.block_inputs(0, ids)[0]
    return len(inputs) == len(true) and float((inputs - true).norm() / true.norm()) < HOLDS
