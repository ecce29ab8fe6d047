"""A rehearsal: gradients of a public text, on which a closed form is tried before it is believed."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from leakgauge.attacks.text.network import TextNetwork


def rehearsed(network: TextNetwork, ids: Tensor, names: Iterable[str], generator: torch.Generator) -> dict[str, Tensor]:
    """Gradients of parameters for one public text and a random pull on the logits; those that have none are left out.

    Args:
        network: the network.
        ids: (1, L).
        names: of parameters.
        generator: of the pull.
    """
    wanted = {name: network.module.get_parameter(name) for name in names}
    for parameter in wanted.values():
        parameter.requires_grad_(True)
    try:
        with torch.enable_grad():
            output = network.module(**network.arguments(ids))
            logits = output.logits if hasattr(output, "logits") else output
            pull = torch.randn(logits.shape, generator=generator, dtype=logits.dtype).to(logits.device)
            found = torch.autograd.grad((logits * pull).sum(), list(wanted.values()), allow_unused=True)
    finally:
        for parameter in wanted.values():
            parameter.requires_grad_(False)
    return {name: part for name, part in zip(wanted, found, strict=True) if part is not None}
