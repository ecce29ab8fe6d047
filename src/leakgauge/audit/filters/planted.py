"""Planted updates: state dicts before and after local training whose difference is known to the last bit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from leakgauge.audit.filters.record import BUFFER, COUNTER, PARAMETER
from leakgauge.errors import ModelError
from leakgauge.randomness import rng

GRID = 2.0**-20  # changes on this grid are exact in float32 beside weights below 8
TYPICAL = 0.01  # size of an entry of a typical update


@dataclass(frozen=True)
class Planted:
    """One planted update: `after` minus `before` is `change`, exactly."""

    before: Mapping[str, Tensor]
    after: Mapping[str, Tensor]
    change: Mapping[str, Tensor]


class Planter:
    """Makes planted updates for the state dict of one model.

    Weights before are zeros, so that the change can be read off exactly, whatever a filter adds or subtracts on the way;
    buffers before are the model's own.
    """

    def __init__(self, model: nn.Module, seed: int) -> None:
        buffers = {name for name, _ in model.named_buffers()}
        self.state = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
        self.roles = {
            name: COUNTER if not tensor.is_floating_point() else BUFFER if name in buffers else PARAMETER
            for name, tensor in self.state.items()
        }
        self.parameters = tuple(name for name, role in self.roles.items() if role == PARAMETER)
        if not self.parameters:
            raise ModelError("The model has no parameters, so no update can be planted.")
        self.size = sum(self.state[name].numel() for name in self.parameters)
        self.seed = seed

    def zero(self) -> Planted:
        """Nothing changes, not even a buffer."""
        return self._planted({})

    def gaussian(self, sign: float = 1.0, *, offset: bool = False) -> Planted:
        """Gaussian changes of a typical size, alike in any call; with `offset`, beside weights that are not zero."""
        change = {name: (sign * TYPICAL * draw / GRID).round() * GRID for name, draw in self._draws().items()}
        return self._planted(change | self._buffers(), offset=offset)

    def heavy_tailed(self) -> Planted:
        """Cauchy changes: few entries are thousands of times larger than most."""
        below = self._draws("below")
        change = {name: 0.1 * TYPICAL * draw / below[name].abs().clamp(min=1e-4) for name, draw in self._draws().items()}
        return self._planted(change | self._buffers())

    def spike(self) -> Planted:
        """One entry of the largest tensor changes by 1, and nothing else."""
        largest = max(self.parameters, key=lambda name: self.state[name].numel())
        change = torch.zeros(self.state[largest].numel(), dtype=self.state[largest].dtype)
        change[len(change) // 2] = 1.0
        return self._planted({largest: change.reshape(self.state[largest].shape)})

    def of_norm(self, norm: float, buffers: float = 1.0) -> Planted:
        """A Gaussian change of a given 2-norm over all parameters; every other tensor three times as large as its neighbours.

        Args:
            norm: of the parameters' change.
            buffers: factor on the usual change of the buffers.
        """
        draws = {name: (1.0 + 2.0 * (index % 2)) * draw for index, (name, draw) in enumerate(self._draws().items())}
        total = math.sqrt(sum(float(draw.double().square().sum()) for draw in draws.values()))
        change = {name: draw.double() * (norm / total) for name, draw in draws.items()}
        return self._planted(change | {name: buffers * entry for name, entry in self._buffers().items()})

    def buffer_norm(self) -> float:
        """2-norm of the usual change of all floating buffers."""
        return math.sqrt(sum(float(entry.double().square().sum()) for entry in self._buffers().values()))

    def direction(self, names: tuple[str, ...]) -> dict[str, Tensor]:
        """Random signs on some parameters, of 2-norm 1 together."""
        generator = rng(self.seed, "filter-direction")
        count = sum(self.state[name].numel() for name in names)
        signs = {name: torch.randint(2, self.state[name].shape, generator=generator) * 2.0 - 1.0 for name in names}
        return {name: sign / math.sqrt(count) for name, sign in signs.items()}

    def along(self, direction: Mapping[str, Tensor], length: float) -> Planted:
        """A change along a direction, and nothing else."""
        return self._planted({name: length * tensor.double() for name, tensor in direction.items()})

    def _draws(self, what: str = "typical") -> dict[str, Tensor]:
        generator = rng(self.seed, "filter", what)
        return {name: torch.randn(self.state[name].shape, generator=generator) for name in self.parameters}

    def _buffers(self) -> dict[str, Tensor]:
        """Changes of the floating buffers as training would leave them: positive, on a coarse grid, up to one half."""
        generator = rng(self.seed, "filter-buffers")
        names = [name for name, role in self.roles.items() if role == BUFFER]
        return {name: (torch.rand(self.state[name].shape, generator=generator) * 256 + 1).floor() / 512 for name in names}

    def _planted(self, change: Mapping[str, Tensor], *, offset: bool = False) -> Planted:
        generator = rng(self.seed, "filter-weights")
        before, after, exact = {}, {}, {}
        for name, tensor in self.state.items():
            role = self.roles[name]
            start = tensor.clone() if role != PARAMETER else torch.zeros_like(tensor)
            if offset and role == PARAMETER:
                start = ((torch.randn(tensor.shape, generator=generator) * 64).round() / 64).clamp(-4, 4).to(tensor.dtype)
            if role == BUFFER:
                start = (start * 64).round() / 64
            if role == COUNTER:
                end = start + 1 if change and tensor.dtype != torch.bool else start.clone()
            else:
                end = (start + change[name].to(start.dtype)) if name in change else start.clone()
            before[name], after[name], exact[name] = start, end, end.double() - start.double()
        return Planted(before, after, exact)
