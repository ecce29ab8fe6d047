"""Small transformers, batches of random tokens, and updates for the tests of exact text attacks."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from leakgauge.core import ThreatModel
from leakgauge.core.observation import Observation
from leakgauge.core.text_spec import TextSpec
from leakgauge.core.training import LocalTraining
from leakgauge.federated.client import Client
from leakgauge.randomness import rng
from leakgauge.truth import Batch

V, PAD = 97, 0


def gpt2(task: str = "classification", width: int = 48, layers: int = 2, classes: int = 3) -> nn.Module:
    import transformers

    torch.manual_seed(1)
    config = transformers.GPT2Config(
        vocab_size=V, n_embd=width, n_layer=layers, n_head=2, n_positions=16, pad_token_id=PAD, num_labels=classes,
        bos_token_id=1, eos_token_id=1,
    )  # fmt: skip
    config._attn_implementation = "eager"
    kind = transformers.GPT2LMHeadModel if task == "causal" else transformers.GPT2ForSequenceClassification
    return kind(config).eval()


def bert(task: str = "classification", width: int = 48, layers: int = 2) -> nn.Module:
    import transformers

    torch.manual_seed(1)
    config = transformers.BertConfig(
        vocab_size=V, hidden_size=width, num_hidden_layers=layers, num_attention_heads=2, intermediate_size=2 * width,
        max_position_embeddings=16, num_labels=3, pad_token_id=PAD,
    )  # fmt: skip
    config._attn_implementation = "eager"
    kind = transformers.BertForMaskedLM if task == "masked" else transformers.BertForSequenceClassification
    return kind(config).eval()


def batch(
    lengths: tuple[int, ...], task: str = "classification", seed: int = 0, length: int = 10, padding: int | None = PAD
) -> Batch:
    generator = rng(seed, "texts")
    ids = torch.full((len(lengths), length), PAD)
    for row, size in enumerate(lengths):
        ids[row, :size] = torch.randint(2, V, (size,), generator=generator)
    labels = ids.clone() if task == "causal" else torch.randint(3, (len(lengths),), generator=generator)
    return Batch(ids, labels, TextSpec(length, V, padding, task))


def seen_of(
    model: nn.Module, texts: Batch, *, frozen: bool = False, withhold: tuple[str, ...] = (), **training: Any
) -> Observation:
    for part in model.modules():
        if isinstance(part, nn.Embedding):
            part.weight.requires_grad_(not frozen)
    update = Client(model, training=LocalTraining(**training), withhold=withhold).train(texts)
    return ThreatModel.honest_but_curious(labels=False).observe(update, model, texts.spec)


def noised(seen: Observation, share: float) -> Observation:
    """The same with Gaussian noise of `share` of the update's root mean square in every number."""
    size = torch.cat([tensor.flatten() for tensor in seen.tensors.values()]).square().mean().sqrt()
    generator = rng(0, "noise")
    tensors = {
        name: tensor + share * size * torch.randn(tensor.shape, generator=generator) for name, tensor in seen.tensors.items()
    }
    return dataclasses.replace(seen, tensors=tensors)


def rows(ids: Tensor) -> list[tuple[int, ...]]:
    """Texts as a sorted list."""
    return sorted(tuple(row) for row in ids.tolist())
