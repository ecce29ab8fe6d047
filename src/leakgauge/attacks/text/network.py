"""A transformer for text as the attacks see it: embeddings, positions, layers, and what each layer sees for given tokens."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from leakgauge.attacks.text.roles import embedding_roles
from leakgauge.attacks.text.tracing import Site, input_of, input_weights, sites_of
from leakgauge.attacks.verify import no_texts
from leakgauge.core.observation import Observation
from leakgauge.core.text_spec import TextSpec
from leakgauge.errors import UnsupportedError

PROBE = 6  # tokens of the text that a network is tried on
QUERY = re.compile(r"(^|[._])(query|q_proj|q_lin|wq|w_q|to_q|q)$", re.I)
KEY = re.compile(r"(^|[._])(key|k_proj|k_lin|wk|w_k|to_k|k)$", re.I)
VALUE = re.compile(r"(^|[._])(value|v_proj|v_lin|wv|w_v|to_v|v)$", re.I)
FUSED = re.compile(r"(^|[._])(c_attn|query_key_value|qkv|qkv_proj|wqkv|in_proj|self_attn|attn)$", re.I)


@dataclass(frozen=True)
class Attention:
    """Query, key and value weights of one block.

    Args:
        names: the parameters that hold them: three, or one for a fused layer.
        layers: the layers' names, as many.
        rows_in: whether a parameter's rows belong to the input (Hugging Face's Conv1D) and not to the output.
    """

    names: tuple[str, ...]
    layers: tuple[str, ...]
    rows_in: bool

    def split(self, tensors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value matrices (D, D_out) of weights or of their gradients: y = x W.

        A fused layer is cut in three parts; where it lays heads out otherwise (GPT-NeoX) only the three together mean anything.

        Raises:
            KeyError: where one was not shared.
        """
        parts = [tensors[name] if self.rows_in else tensors[name].T for name in self.names]
        query, key, value = parts if len(parts) == 3 else parts[0].chunk(3, dim=1)
        return query, key, value


@dataclass(frozen=True)
class TextNetwork:
    """A network for text, copied and in eval mode.

    Args:
        module: the copy, in the attack's arithmetic.
        tokens: name of the token embedding's parameter (V, E); with tied weights the name under which the model lists it.
        positions: name of the learnable position embedding's parameter (P, E), or None.
        offset: row of the position embedding that position 0 uses.
        types: name of the token-type embedding's parameter, or None; type 0 is used throughout.
        norm: name of the norm between the embeddings' sum and the first attention layer, or None where what lies between is
            not one norm.
        head: name of the parameter (V, D) that turns the last hidden state into token scores, or None.
        sites: linear layers grouped by their common input, in call order.
        attention: of each block, from the input side; empty where the layers' names tell nothing.
        hidden: D, width of the first attention layer's input.
        vocabulary: V, rows of the token embedding.
        longest: tokens that the position embedding allows, or None without one.
        causal: whether no layer looks ahead (a decoder); False for an encoder.
    """

    module: nn.Module = field(repr=False)
    tokens: str
    positions: str | None
    offset: int
    types: str | None
    norm: str | None
    head: str | None
    sites: tuple[Site, ...]
    attention: tuple[Attention, ...]
    hidden: int
    vocabulary: int
    longest: int | None
    causal: bool

    @property
    def tied(self) -> bool:
        """Whether the token embedding is also the head."""
        return self.head == self.tokens

    @property
    def dtype(self) -> torch.dtype:
        """Arithmetic of the copy."""
        return self.parameter(self.tokens).dtype

    @property
    def device(self) -> torch.device:
        """Where the copy lies."""
        return self.parameter(self.tokens).device

    def parameter(self, name: str) -> Tensor:
        """A parameter by name, detached."""
        return self.module.get_parameter(name).detach()

    def arguments(self, ids: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        """Keyword arguments of the network for token ids (N, L); everything is attended to without a mask."""
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids) if mask is None else mask}

    def inputs_of(self, site: Site, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """What the layers of a site see for token ids (N, L): (N, L, D). What comes after them is not computed."""
        found = input_of(self.module, site.names[0], self.arguments(ids, mask))
        return found if found.ndim == 3 else found.reshape(*ids.shape, -1)

    def block_inputs(self, block: int, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """What the attention of block `block` (from 0) sees for token ids (N, L): (N, L, D)."""
        return self.inputs_of(self.site_of(self.attention[block].layers[0]), ids, mask)

    def site_of(self, layer: str) -> Site:
        """The site to which a layer belongs."""
        return next(site for site in self.sites if layer in site.names)

    def embedded(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Sum of the embeddings before any norm: token ids (...,) at positions (...,), gives (..., E)."""
        total = self.parameter(self.tokens)[tokens]
        if self.positions is not None:
            total = total + self.parameter(self.positions)[positions + self.offset]
        return total if self.types is None else total + self.parameter(self.types)[0]

    def first_inputs(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """What the first attention layer sees for token ids (n,) at positions (n,): (n, D).

        Raises:
            UnsupportedError: where what lies between the embeddings and that layer is not one norm.
        """
        return self.normed(self.embedded(tokens, positions))

    def normed(self, total: Tensor) -> Tensor:
        """The norm between the embeddings' sum (..., E) and the first attention layer."""
        if self.norm is None:
            raise UnsupportedError("Between the embeddings and the first attention layer lies more than one norm.")
        values: Tensor = self.module.get_submodule(self.norm)(total)
        return values

    def gradient(self, site: Site, tensors: Mapping[str, Tensor], *, balanced: bool = False) -> Tensor | None:
        """The shared gradients of a site's weights side by side, (D, sum of outputs): its columns lie in the span of the inputs.

        Args:
            site: where.
            tensors: parameter name -> gradient.
            balanced: bring query, key and value parts to one norm: each carries rounding errors in proportion to its own.

        Returns:
            None where nothing of the site was shared.
        """
        parts = dict(self.module.named_modules())
        found: list[Tensor] = []
        for layer in site.names:
            for name, rows_in in input_weights(layer, parts[layer]):
                if name in tensors and name != self.tokens:
                    tensor = tensors[name].detach().to(device=self.device, dtype=torch.float64)
                    tensor = tensor if rows_in else tensor.T
                    found += tensor.chunk(3, dim=1) if FUSED.search(layer) and tensor.shape[1] % 3 == 0 else [tensor]
        if not found:
            return None
        largest = max(float(tensor.norm()) for tensor in found)
        if balanced:
            found = [tensor * (largest / norm) for tensor in found if (norm := float(tensor.norm())) > 0]
        return torch.cat(found, dim=1) if found else None


def read_network(seen: Observation, dtype: torch.dtype = torch.float64, device: str = "cpu") -> TextNetwork:
    """Finds the parts of an observation's network by running it on one short text.

    Raises:
        UnsupportedError: naming every reason why the network does not fit: no TextSpec, no token embedding, a forward pass
            that does not take 'input_ids' and 'attention_mask', or no linear layer that sees one row per token.
    """
    spec = seen.spec
    if not isinstance(spec, TextSpec):
        raise no_texts(seen, "This attack")
    module = copy.deepcopy(seen.model).eval().to(device=device, dtype=dtype)
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    reasons: list[str] = []
    tables = [name for name, part in module.named_modules() if isinstance(part, nn.Embedding)]
    if not tables:
        reasons.append("it has no embedding layer")
    usable = [token for token in range(spec.vocabulary) if token != spec.padding]
    if len(usable) < PROBE + 1:
        reasons.append(f"its vocabulary of {spec.vocabulary} is too small to try it on a text of {PROBE} different tokens")
    if reasons:
        raise UnsupportedError(f"The network cannot be read as one for text: {'; '.join(reasons)}.")
    ids = torch.tensor([usable[-PROBE:]], device=device)
    roles = embedding_roles(module, tables, ids)
    if "tokens" not in roles:
        reasons.append("no embedding layer looks up the token ids")
    other = usable[-PROBE - 1]  # the last ids: the first are often special tokens
    sites = sites_of(module, lambda text: {"input_ids": text, "attention_mask": torch.ones_like(text)}, ids, other)
    if not any(site.kind == "token" for site in sites):
        reasons.append("no linear layer sees one row per token that depends on that token and its position alone")
    if reasons:
        raise UnsupportedError(f"The network cannot be read as one for text: {'; '.join(reasons)}.")
    return _assemble(module, roles, sites, ids)


def _assemble(module: nn.Module, roles: dict[str, tuple[str, int]], sites: tuple[Site, ...], ids: Tensor) -> TextNetwork:
    listed = {id(parameter): name for name, parameter in module.named_parameters()}

    def parameter_of(role: str) -> str | None:
        return listed[id(module.get_submodule(roles[role][0]).weight)] if role in roles else None

    tokens, positions = parameter_of("tokens"), parameter_of("positions")
    assert tokens is not None
    offset = roles["positions"][1] if positions else 0
    attention = attention_of(module, sites)
    first = next(site for site in sites if site.kind == "token")
    vocabulary = module.get_parameter(tokens).shape[0]
    bare = TextNetwork(
        module=module,
        tokens=tokens,
        positions=positions,
        offset=offset,
        types=parameter_of("types"),
        norm=None,
        head=_head(module, vocabulary, listed),
        sites=sites,
        attention=attention,
        hidden=first.width,
        vocabulary=vocabulary,
        longest=module.get_parameter(positions).shape[0] - offset if positions else None,
        causal=all(site.kind != "text" for site in sites),
    )
    return _with_norm(bare, first, ids)


def _with_norm(network: TextNetwork, first: Site, ids: Tensor) -> TextNetwork:
    """The same with the LayerNorm that, put after the embeddings' sum, gives what the first site sees."""
    wanted = network.inputs_of(first, ids)
    total = network.embedded(ids, torch.arange(ids.shape[1], device=ids.device).expand_as(ids))
    for name, part in network.module.named_modules():
        weight = getattr(part, "weight", None)
        fits = "Norm" in type(part).__name__ and isinstance(weight, Tensor) and weight.shape == total.shape[-1:]
        if fits and total.shape == wanted.shape and torch.allclose(part(total), wanted, rtol=1e-5, atol=1e-7):
            return TextNetwork(**{**_fields(network), "norm": name})
    return network


def _fields(network: TextNetwork) -> dict[str, Any]:
    return {name: getattr(network, name) for name in network.__dataclass_fields__}


def attention_of(module: nn.Module, sites: tuple[Site, ...]) -> tuple[Attention, ...]:
    """The attention of each block, by the usual names of its layers."""
    parts, found = dict(module.named_modules()), []
    for site in sites:
        weights = {layer: input_weights(layer, parts[layer])[0] for layer in site.names}
        fused = [layer for layer in site.names if FUSED.search(layer) and _outputs(parts[layer]) == 3 * site.width]
        apart = [next((layer for layer in site.names if kind.search(layer)), None) for kind in (QUERY, KEY, VALUE)]
        chosen = fused[:1] if fused else [layer for layer in apart if layer is not None]
        if len(chosen) in (1 if fused else 3, 3):
            names = tuple(weights[layer][0] for layer in chosen)
            found.append(Attention(names, tuple(chosen), weights[chosen[0]][1]))
    return tuple(found)


def _outputs(part: nn.Module) -> int:
    if isinstance(part, nn.MultiheadAttention):
        return 3 * int(part.embed_dim)
    return int(part.get_parameter("weight").shape[0 if isinstance(part, nn.Linear) else 1])


def _head(module: nn.Module, vocabulary: int, listed: Mapping[int, str]) -> str | None:
    """The parameter of the last linear layer with one output per token id."""
    heads = [part for part in module.modules() if isinstance(part, nn.Linear) and part.out_features == vocabulary]
    return listed.get(id(heads[-1].weight)) if heads else None
