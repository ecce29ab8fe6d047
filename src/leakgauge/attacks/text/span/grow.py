"""What a layer sees at the next position when a known prefix is extended by many candidate tokens at once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from leakgauge.attacks.text.network import TextNetwork
from leakgauge.attacks.text.tracing import Site, input_of

TOGETHER = 1 << 22  # numbers of keys or values that one forward pass may hold


class Growth:
    """Inputs of one site at the end of extended prefixes of a causal network.

    Keys and values of a prefix are computed once and shared by its extensions where the network keeps them as Hugging Face's
    decoders do (tried out on a short text, and used only if the results agree); otherwise each extension is computed whole.

    Args:
        network: a causal network.
        site: where to look.
    """

    def __init__(self, network: TextNetwork, site: Site) -> None:
        self.network, self.site = network, site
        self.cached = False
        ids = torch.arange(4, device=network.device)[None] + min(5, network.vocabulary - 4)
        try:
            quick = self._from_cache(ids[0, :3], ids[0, 3:])
            self.cached = torch.allclose(quick, self._whole(ids[0, :3], ids[0, 3:]), rtol=1e-6, atol=1e-9)
        except Exception:  # noqa: BLE001 - whatever a foreign network raises, it then simply has no cache to use
            self.cached = False

    def __call__(self, prefix: Tensor, tokens: Tensor) -> Tensor:
        """(n, D): the input at position t for prefix (t,) followed by each of tokens (n,)."""
        size = max(TOGETHER // (max(len(prefix), 1) * self.network.hidden), 16)
        step = self._from_cache if self.cached and len(prefix) else self._whole
        return torch.cat([step(prefix, part) for part in torch.split(tokens, size)])

    def _whole(self, prefix: Tensor, tokens: Tensor) -> Tensor:
        ids = torch.cat([prefix[None].expand(len(tokens), -1), tokens[:, None]], dim=1)
        return self.network.inputs_of(self.site, ids)[:, -1]

    def _from_cache(self, prefix: Tensor, tokens: Tensor) -> Tensor:
        from transformers import DynamicCache

        held = DynamicCache()
        self._run(prefix[None], held, len(prefix))
        shared = DynamicCache()
        for index, layer in enumerate(held.layers):
            keys, values = (tensor.expand(len(tokens), -1, -1, -1) for tensor in (layer.keys, layer.values))
            shared.update(keys, values, index)
        return self._run(tokens[:, None], shared, len(prefix) + 1)[:, -1]

    def _run(self, ids: Tensor, cache: Any, length: int) -> Tensor:
        mask = torch.ones(len(ids), length, dtype=torch.int64, device=ids.device)
        arguments = {"input_ids": ids, "attention_mask": mask, "past_key_values": cache, "use_cache": True}
        found = input_of(self.network.module, self.site.names[0], arguments)
        return found if found.ndim == 3 else found.reshape(*ids.shape, -1)
