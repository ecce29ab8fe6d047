"""Which parameter is the position embedding, and what its gradient tells: found by trying the equations on a public picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from leakgauge.attacks.exact.patches.layer import PatchLayer, position_rows
from leakgauge.attacks.text.network import Attention, attention_of
from leakgauge.attacks.text.tracing import Site, hooked, linear_like

HOLDS = 1e-6  # relative residual of an equation on a public picture in float64, where it holds (rounding leaves 1e-12)
AHEAD = 4  # tokens before the patches, such as a class token, that are looked for


@dataclass(frozen=True)
class Positions:
    """A parameter (R, width) whose row `ahead` + t gets the loss's gradient by patch t's token.

    Args:
        name: of the parameter.
        ahead: rows before the patches.
    """

    name: str
    ahead: int

    def rows(self, tensors: Mapping[str, Tensor], layer: PatchLayer) -> Tensor:
        """(T, width), those of the patches."""
        found = position_rows(tensors[self.name], layer.width)
        assert found is not None
        return found[self.ahead : self.ahead + len(layer.pixels)]


def positions_of(layer: PatchLayer, gradients: Mapping[str, Tensor], patches: Tensor) -> Positions | None:
    """The position embedding D for which G = D^T P holds; None where there is none.

    Args:
        layer: the layer that reads patches.
        gradients: of a public picture.
        patches: (T, K) that picture's.
    """
    wanted = gradients[layer.weight].reshape(layer.width, -1)
    for name, tensor in gradients.items():
        rows = None if name == layer.weight else position_rows(tensor, layer.width)
        for ahead in range(min(AHEAD, len(rows) - len(patches)) + 1 if rows is not None and len(rows) >= len(patches) else 0):
            assert rows is not None
            part = rows[ahead : ahead + len(patches)]
            if bool((part != 0).any()) and float((part.T @ patches - wanted).norm()) <= HOLDS * float(wanted.norm()):
                return Positions(name, ahead)
    return None


@dataclass(frozen=True)
class Reading:
    """The first attention layer of a network for pictures, where it alone reads patch tokens plus positions.

    Args:
        attention: its weights.
        positions: the position embedding.
        count: tokens that it reads.
    """

    attention: Attention
    positions: Positions
    count: int

    def inputs(self, module: nn.Module, tensors: Mapping[str, Tensor], width: int) -> tuple[Tensor, float]:
        """Its inputs X (count, width) and the relative residual of X^T T = dQ W_q^T + dK W_k^T + dV W_v^T.

        Source: Lu et al. 2022 (APRIL), proposition 1.
        """
        rows = position_rows(tensors[self.positions.name], width)
        assert rows is not None
        rows = rows[: self.count]
        weights = {name: module.get_parameter(name).detach() for name in self.attention.names}
        parts = zip(self.attention.split(tensors), self.attention.split(weights), strict=True)
        joint = torch.stack([change @ weight.T for change, weight in parts]).sum(0)
        solved = (joint @ torch.linalg.pinv(rows)).T
        return solved, float((solved.T @ rows - joint).norm() / joint.norm())


def reading_of(module: nn.Module, layer: PatchLayer, gradients: Mapping[str, Tensor], picture: Tensor) -> Reading | None:
    """The first attention layer, if the identity gives its own inputs for a public picture (1, C, H, W); else None."""
    calls: list[tuple[str, Tensor]] = []
    names = [name for name, part in module.named_modules() if linear_like(part) and name != layer.name]
    with torch.no_grad(), hooked(module, names, lambda name, values: calls.append((name, values.detach()))):
        module(picture)
    sites: list[tuple[list[str], Tensor]] = []
    for name, values in calls:
        if values.ndim == 3 and len(values) == 1 and values.shape[2] == layer.width:
            same = next((each for each in sites if each[1].shape == values.shape and torch.equal(each[1], values)), None)
            same[0].append(name) if same is not None else sites.append(([name], values))
    found = attention_of(module, tuple(Site(tuple(group), layer.width, "text", place) for place, (group, _) in enumerate(sites)))
    if not found:
        return None
    true = next(values[0] for group, values in sites if found[0].layers[0] in group)
    ahead = len(true) - len(layer.pixels)
    for name, tensor in gradients.items():
        rows = position_rows(tensor, layer.width)
        if rows is None or not 0 <= ahead <= len(rows) - len(layer.pixels) or name in found[0].names:
            continue
        reading = Reading(found[0], Positions(name, ahead), len(true))
        if all(each in gradients for each in found[0].names):
            solved, _ = reading.inputs(module, gradients, layer.width)
            if float((solved - true).norm()) <= HOLDS * float(true.norm()):
                return reading
    return None
