"""What each embedding layer of a network looks up: token ids, positions, or token types; found by running it on one text."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from leakgauge.errors import UnsupportedError


@torch.no_grad()
def embedding_roles(module: nn.Module, tables: list[str], ids: Tensor) -> dict[str, tuple[str, int]]:
    """Which embedding layer looks up tokens, positions (with the row of position 0) and token types.

    Args:
        module: the network in eval mode.
        tables: names of its embedding layers.
        ids: (1, L) a text of different tokens.

    Returns:
        Role ('tokens', 'positions', 'types') -> (layer, row that position 0 looks up).

    Raises:
        UnsupportedError: if the network does not run on token ids and an attention mask.
    """
    parts = dict(module.named_modules())
    found: dict[str, tuple[str, int]] = {}
    seen: dict[str, Tensor] = {}
    hooks = []
    for name in tables:

        def keep(_: nn.Module, __: tuple[Any, ...], output: Tensor, name: str = name) -> None:
            if isinstance(output, Tensor):
                seen.setdefault(name, output)

        hooks.append(parts[name].register_forward_hook(keep))
    try:
        module(input_ids=ids, attention_mask=torch.ones_like(ids))
    except Exception as error:
        raise UnsupportedError(
            "The network cannot be read as one for text: called with 'input_ids' and 'attention_mask' it fails "
            f"({type(error).__name__}: {error})."
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    for name, output in seen.items():
        rows, weight = output.reshape(-1, output.shape[-1]), parts[name].weight
        assert isinstance(weight, Tensor)
        if len(rows) != ids.shape[1]:
            continue
        if int(ids.max()) < len(weight) and torch.equal(rows, weight[ids[0]]):
            found.setdefault("tokens", (name, 0))
            continue
        match = [int((weight - row).abs().sum(1).argmin()) for row in rows]
        if match == list(range(match[0], match[0] + len(match))):
            found.setdefault("positions", (name, match[0]))
        elif all(index == 0 for index in match):
            found.setdefault("types", (name, 0))
    return found
