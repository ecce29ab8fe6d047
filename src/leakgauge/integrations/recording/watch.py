"""What hooks see of a PyTorch training loop: forward passes, which of them were differentiated, and optimiser steps."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

Rows = dict[str, Tensor]
LABELS = "labels"  # the keyword under which Hugging Face models take them


@dataclass
class Pass:
    """One mini-batch's forward pass.

    Args:
        rows: for each example its number, in the order in which examples were first seen.
        mode: 'train' or 'eval'.
        autocast: dtype of automatic mixed precision, or None.
        uses: how often its output was differentiated.
        labels: of its rows, where they are kept.
    """

    rows: tuple[int, ...]
    mode: str
    autocast: torch.dtype | None
    uses: int = 0
    labels: Tensor | None = None


@dataclass(frozen=True)
class Step:
    """One optimiser step.

    Args:
        passes: the mini-batches whose gradients it took.
        rates: learning rate of each parameter group.
        changed_norm: 2-norm of the gradient where something changed it between backward pass and step, else None.
    """

    passes: tuple[Pass, ...]
    rates: tuple[float, ...]
    changed_norm: float | None


@dataclass
class Watch:
    """Hooks on a module and on all optimisers. They read; the training is the same, bit for bit, with and without them.

    Of the examples it keeps a hash per row, in memory only, and themselves only where `keep` is set.

    Args:
        module: what the loop calls, such as the DistributedDataParallel wrapper.
        inner: the network inside all wrappers.
        keep: keep inputs and labels.
        optimiser: count its steps only; None counts those of every optimiser that holds one of the parameters.
        private: gradients are clipped and noisy by design (Opacus).
    """

    module: nn.Module
    inner: nn.Module
    keep: bool = False
    optimiser: Optimizer | None = None
    private: bool = False
    steps: list[Step] = field(default_factory=list)
    pending: list[Pass] = field(default_factory=list)  # forward passes since the last step
    trained: set[str] = field(default_factory=set)  # parameters that a step changed
    seen_optimisers: list[Optimizer] = field(default_factory=list)
    carried: bool = False  # the optimiser brought its state along
    stale: bool = False  # gradients lay on the parameters before the first pass
    discarded: int = 0  # differentiated passes whose gradients were thrown away
    frozen_modes: set[str] = field(default_factory=set)
    kept: list[Rows] = field(default_factory=list)
    parameters: dict[str, nn.Parameter] = field(default_factory=dict)
    _acting: list[tuple[str, nn.Module]] = field(default_factory=list)
    _names: list[str] = field(default_factory=list)
    _numbers: dict[tuple[int, int], int] = field(default_factory=dict)
    _versions: dict[int, int] = field(default_factory=dict)
    _changed: float | None = None
    _waiting: Tensor | None = None
    _handles: list[Any] = field(default_factory=list)

    def start(self) -> None:
        """Sets the hooks."""
        self.parameters = dict(self.inner.named_parameters())
        self._acting = [(name, part) for name, part in self.inner.named_modules() if name and _acts(part)]
        names = inspect.signature(self.inner.forward).parameters
        self._names = [name for name in names if name not in ("self", "args", "kwargs")]
        self.stale = self._has_gradient()
        self._handles = [
            self.module.register_forward_pre_hook(self._before_forward, with_kwargs=True),
            self.module.register_forward_hook(self._after_forward),
            register_optimizer_step_pre_hook(self._before_step),
            register_optimizer_step_post_hook(self._after_step),
        ]
        for parameter in self.parameters.values():
            if parameter.requires_grad:
                self._handles.append(parameter.register_post_accumulate_grad_hook(self._note_version))  # type: ignore[no-untyped-call]

    def stop(self) -> None:
        """Takes the hooks away; a second call does nothing."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    @property
    def examples(self) -> int:
        """Number of distinct examples that were seen."""
        return len(self._numbers)

    def labels(self, labels: Tensor) -> None:
        """Takes the labels of the latest forward pass, or where that has some, of the next one."""
        if self.keep:
            labels = labels.detach().cpu().clone()
            if self.pending and self.pending[-1].labels is None:
                self.pending[-1].labels = labels
            else:
                self._waiting = labels

    def _before_forward(self, module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        if not torch.is_grad_enabled():
            return
        if any(one.uses for one in self.pending) and all(parameter.grad is None for parameter in self.parameters.values()):
            self.discarded += sum(one.uses > 0 for one in self.pending)
            self.pending = []
        tensors = _examples(self._names, arguments, keywords)
        given = tensors.pop(LABELS, None)
        device = next(iter(tensors.values())).device.type if tensors else "cpu"
        numbers = self._numbered(tensors)
        low = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        self.pending.append(Pass(numbers, "train" if module.training else "eval", low))
        if module.training:
            self.frozen_modes |= {name for name, part in self._acting if not part.training}
        if self.keep and (given is not None or self._waiting is not None):
            self.pending[-1].labels = self._waiting if given is None else given.detach().cpu().clone()
            self._waiting = None

    def _after_forward(self, _: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        if torch.is_grad_enabled() and self.pending:
            one = self.pending[-1]
            uses: Counter[int] = Counter()

            def differentiated(place: int) -> Any:
                def hook(_: Tensor) -> None:
                    uses[place] += 1
                    one.uses = max(uses.values())

                return hook

            for place, tensor in enumerate(_tensors(output)):
                if tensor.requires_grad:
                    tensor.register_hook(differentiated(place))  # type: ignore[no-untyped-call]

    def _note_version(self, parameter: Tensor) -> None:
        if parameter.grad is not None:
            self._versions[id(parameter)] = parameter.grad._version

    def _before_step(self, optimiser: Optimizer, _: Any, __: Any) -> None:
        if not self._holds(optimiser):
            return
        self._changed = None
        if optimiser not in self.seen_optimisers:
            self.seen_optimisers.append(optimiser)
            self.carried |= any(optimiser.state.get(parameter) for parameter in self.parameters.values())
        if self.private:
            return
        gradients = {name: part.grad for name, part in self.parameters.items() if part.grad is not None}
        versions = {name: self._versions.get(id(self.parameters[name])) for name in gradients}
        if any(versions[name] not in (None, gradient._version) for name, gradient in gradients.items()):
            self._changed = float(sum(gradient.detach().double().square().sum() for gradient in gradients.values())) ** 0.5

    def _after_step(self, optimiser: Optimizer, _: Any, __: Any) -> None:
        if not self._holds(optimiser):
            return
        owned = {id(parameter) for group in optimiser.param_groups for parameter in group["params"]}
        self.trained |= {name for name, part in self.parameters.items() if id(part) in owned and part.grad is not None}
        rates = tuple(float(group["lr"]) for group in optimiser.param_groups if "lr" in group)
        self.steps.append(Step(tuple(one for one in self.pending if one.uses), rates, self._changed))
        self.pending = []

    def _holds(self, optimiser: Optimizer) -> bool:
        if self.optimiser is not None:
            return optimiser is self.optimiser
        own = {id(parameter) for parameter in self.parameters.values()}
        return any(id(parameter) in own for group in optimiser.param_groups for parameter in group["params"])

    def _has_gradient(self) -> bool:
        return any(part.grad is not None and bool(part.grad.any()) for part in self.parameters.values())

    def _numbered(self, tensors: Rows) -> tuple[int, ...]:
        """Each row's number; the second of two equal rows in one mini-batch counts as another example."""
        counted: Counter[int] = Counter()
        numbers = []
        for place, hashed in enumerate(_row_hashes(tensors)):
            counted[hashed] += 1
            key = hashed, counted[hashed]
            if key not in self._numbers:
                self._numbers[key] = len(self._numbers)
                if self.keep:
                    self.kept.append({name: tensor[place].detach().cpu().clone() for name, tensor in tensors.items()})
            numbers.append(self._numbers[key])
        return tuple(numbers)


def _examples(names: list[str], arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> Rows:
    """The tensors of a call with one row per example, by name; the first one found says how many rows there are."""
    named: dict[str, Any] = {}
    for place, argument in enumerate(arguments):
        named |= argument if isinstance(argument, Mapping) else {names[place] if place < len(names) else str(place): argument}
    tensors = {name: value for name, value in {**named, **keywords}.items() if isinstance(value, Tensor) and value.ndim > 0}
    count = len(next(iter(tensors.values()))) if tensors else 0
    return {name: tensor for name, tensor in tensors.items() if len(tensor) == count}


def _row_hashes(tensors: Rows) -> list[int]:
    """Python's own hash of each row's bytes: 64 bits, keyed anew in each process, so that it says nothing outside it."""
    count = len(next(iter(tensors.values()))) if tensors else 0
    if count == 0:
        return []
    flat = [tensor.detach().cpu().contiguous().reshape(count, -1).view(torch.uint8).numpy() for tensor in tensors.values()]
    return [hash(tuple(rows[place].tobytes() for rows in flat)) for place in range(count)]


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from _tensors(value)
    elif isinstance(output, list | tuple):
        for value in output:
            yield from _tensors(value)


def _acts(part: nn.Module) -> bool:
    """Whether train and eval mode differ in this module itself."""
    return isinstance(part, nn.modules.batchnorm._NormBase | nn.modules.dropout._DropoutNd)
