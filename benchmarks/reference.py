"""The plain reference loop of gradient matching: autograd and torch's own L-BFGS, one restart at a time.

Written from the paper's description (Zhu et al. 2019, algorithm 1): pixels and label logits drawn from N(0, 1), squared L2
distance summed over parameters, L-BFGS with torch's defaults and a history of 100, 20 inner iterations a step.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def reference_loop(
    model: nn.Module, target: list[Tensor], shape: tuple[int, ...], classes: int, steps: int, generator: torch.Generator
) -> tuple[Tensor, int]:
    """Runs `steps` outer steps; returns the pixels and the number of gradient evaluations."""
    pixels = torch.randn(shape, generator=generator).requires_grad_()
    logits = torch.randn(shape[0], classes, generator=generator).requires_grad_()
    optimiser = torch.optim.LBFGS([pixels, logits], lr=1.0, max_iter=20, history_size=100)
    count = 0

    def closure() -> Tensor:
        nonlocal count
        count += 1
        optimiser.zero_grad()
        output = model(pixels)
        loss = -(logits.softmax(-1) * output.log_softmax(-1)).sum(-1).mean()
        found = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
        distance = torch.stack([(one - other).square().sum() for one, other in zip(found, target, strict=True)]).sum()
        distance.backward()
        return distance

    for _ in range(steps):
        optimiser.step(closure)
    return pixels.detach(), count


def training_step(model: nn.Module, inputs: Tensor, labels: Tensor, update: bool = True) -> Callable[[], None]:
    """One training step of a client: forward and backward pass, and with `update` the SGD step (at next to no rate)."""
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-12)

    def step() -> None:
        model.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(model(inputs), labels).backward()
        if update:
            optimiser.step()

    return step
