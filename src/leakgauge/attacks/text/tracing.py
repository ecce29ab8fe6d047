"""Which linear layers a text passes, what each of them sees, and on which tokens that depends: found by running the network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

KINDS = ("token", "prefix", "text")  # an input at position t depends on: its token and t; tokens up to t; the whole text


@dataclass(frozen=True)
class Site:
    """Linear layers that see one and the same tensor (N, L, D), in the order in which the network calls them.

    Args:
        names: of the layers, such as the query, key and value layers of a block.
        width: D, numbers per token.
        kind: one of `KINDS`.
        order: place among all sites, from 0.
    """

    names: tuple[str, ...]
    width: int
    kind: str
    order: int


class Reached(Exception):
    """Ends a forward pass at the layer whose input was wanted."""


def linear_like(module: nn.Module) -> bool:
    """Whether a module computes x W + b per token: torch's linear layer, Hugging Face's Conv1D, or torch's attention."""
    if isinstance(module, nn.Linear | nn.MultiheadAttention):
        return True
    return type(module).__name__ == "Conv1D" and hasattr(module, "nf") and getattr(module, "weight", None) is not None


def input_weights(name: str, module: nn.Module) -> list[tuple[str, bool]]:
    """Parameters that multiply the module's input: (name, whether its rows belong to the input, as in Conv1D)."""
    prefix = f"{name}." if name else ""
    if isinstance(module, nn.MultiheadAttention):
        if getattr(module, "in_proj_weight", None) is not None:
            return [(prefix + "in_proj_weight", False)]
        return [(prefix + f"{letter}_proj_weight", False) for letter in "qkv"]
    return [(prefix + "weight", not isinstance(module, nn.Linear))]


@contextmanager
def hooked(module: nn.Module, names: Sequence[str], act: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Calls `act` with each named layer's name and input, before the layer runs."""
    parts = dict(module.named_modules())

    def hook(name: str) -> Any:
        def called(_: nn.Module, *given: Any) -> None:
            args, keywords = given
            values = [value for value in (*args, *keywords.values()) if isinstance(value, Tensor)]
            if values:
                act(name, values[0])

        return called

    fast = torch.backends.mha.get_fastpath_enabled()
    with ExitStack() as stack:
        for name in names:
            stack.callback(parts[name].register_forward_pre_hook(hook(name), with_kwargs=True).remove)
        torch.backends.mha.set_fastpath_enabled(False)  # torch's fused encoder layer would pass the hooks by
        stack.callback(torch.backends.mha.set_fastpath_enabled, fast)
        yield


@torch.no_grad()
def input_of(module: nn.Module, name: str, arguments: Mapping[str, Any]) -> Tensor:
    """The input (N, L, D) of one layer for the given keyword arguments; what comes after the layer is not computed."""
    found: list[Tensor] = []

    def stop(_: str, values: Tensor) -> None:
        found.append(values.detach())
        raise Reached

    with hooked(module, [name], stop):
        try:
            module(**arguments)
        except Reached:
            return found[0]
    raise LookupError(name)


@torch.no_grad()
def all_inputs(module: nn.Module, arguments: Mapping[str, Any], shape: tuple[int, int]) -> list[tuple[str, Tensor]]:
    """Each linear layer's name and input (N, L, D) in call order; layers that see something else per text are left out."""
    found: list[tuple[str, Tensor]] = []

    def keep(name: str, values: Tensor) -> None:
        if values.ndim == 3 and tuple(values.shape[:2]) == shape:
            found.append((name, values.detach()))
        elif values.ndim == 2 and len(values) == shape[0] * shape[1]:
            found.append((name, values.detach().reshape(*shape, -1)))

    with hooked(module, [name for name, part in module.named_modules() if linear_like(part)], keep):
        module(**arguments)
    return found


def sites_of(module: nn.Module, probe: Callable[[Tensor], Mapping[str, Any]], ids: Tensor, other: int) -> tuple[Site, ...]:
    """The sites of a network, each with what its input depends on.

    Three texts are compared: one, the same with another token near its start, the same with another token near its end.

    Args:
        module: the network in eval mode.
        probe: keyword arguments of the network for token ids (N, L).
        ids: (1, L) a text of different tokens, L >= 5.
        other: a token id that is not in `ids`.
    """
    length = ids.shape[1]
    early, late, middle = 1, length - 2, length // 2
    texts = ids.repeat(3, 1)
    texts[1, early], texts[2, late] = other, other
    calls = all_inputs(module, probe(texts), (3, length))
    grouped: list[tuple[list[str], Tensor]] = []
    for name, values in calls:
        same = next((group for group in grouped if group[1] is values or _equal(group[1], values)), None)
        if same is not None:
            same[0].append(name)
        else:
            grouped.append(([name], values))
    calls_of = [name for names, _ in grouped for name in dict.fromkeys(names)]
    repeated = {name for name in calls_of if calls_of.count(name) > 1}  # one weight in several places: its gradient is a sum
    found: list[Site] = []
    for names, values in grouped:
        if all(name in repeated for name in names):
            continue
        size = values[0, middle].abs().max()
        moved = [float((values[row, middle] - values[0, middle]).abs().max() / size.clamp(min=1e-300)) > 1e-12 for row in (1, 2)]
        kind = "text" if moved[1] else "prefix" if moved[0] else "token"
        found.append(
            Site(tuple(name for name in dict.fromkeys(names) if name not in repeated), values.shape[-1], kind, len(found))
        )
    return tuple(found)


def _equal(first: Tensor, second: Tensor) -> bool:
    return first.shape == second.shape and bool(torch.equal(first, second))
