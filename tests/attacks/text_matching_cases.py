"""Small networks and texts that the tests of text matching share."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from leakgauge.core import ThreatModel
from leakgauge.core.observation import Observation
from leakgauge.core.text_spec import IGNORED, TextSpec
from leakgauge.core.training import LocalTraining
from leakgauge.federated.client import Client
from leakgauge.randomness import rng
from leakgauge.truth import Batch

transformers = pytest.importorskip("transformers")
V, L, MASK = 200, 9, 3


def bert(task: str = "masked", *, frozen: bool = True, tied: bool = True, seed: int = 0, width: int = 32) -> nn.Module:
    torch.manual_seed(seed)
    config = transformers.BertConfig(
        vocab_size=V,
        hidden_size=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=2 * width,
        max_position_embeddings=32,
        num_labels=3,
        tie_word_embeddings=tied,
    )
    config._attn_implementation = "eager"
    kind = transformers.BertForMaskedLM if task == "masked" else transformers.BertForSequenceClassification
    return freeze(kind(config), frozen)


def gpt2(seed: int = 0, *, frozen: bool = True) -> nn.Module:
    torch.manual_seed(seed)
    config = transformers.GPT2Config(
        vocab_size=V, n_embd=32, n_layer=2, n_head=2, n_positions=32, bos_token_id=1, eos_token_id=1
    )  # fmt: skip
    config._attn_implementation = "eager"
    return freeze(transformers.GPT2LMHeadModel(config), frozen)


def freeze(model: nn.Module, frozen: bool) -> nn.Module:
    if frozen:
        for part in model.modules():
            if isinstance(part, nn.Embedding):
                part.weight.requires_grad_(False)
    return model.eval()


def batch(task: str, count: int = 1, length: int = L, *, padding: int | None = None, seed: int = 0, predicted: int = 2) -> Batch:
    generator = rng(seed, "texts")
    ids = torch.randint(5, V, (count, length), generator=generator)
    ids[:, 0] = 1
    if padding is not None:
        for row in range(count):
            ids[row, length - 2 - row :] = padding
    spec = TextSpec(length, V, padding, task)
    if task == "causal":
        return Batch(ids, ids.clone(), spec)
    if task == "classification":
        return Batch(ids, torch.arange(count) % 3, spec)
    labels = torch.full_like(ids, IGNORED)
    for row in range(count):
        places = 1 + torch.randperm(length - 4, generator=generator)[:predicted]
        labels[row, places] = ids[row, places]
        ids[row, places] = MASK
    return Batch(ids, labels, spec)


def observe(model: nn.Module, texts: Batch, *, labels: bool = False, **training: object) -> Observation:
    update = Client(model, training=LocalTraining(**training)).train(texts)  # type: ignore[arg-type]
    return ThreatModel.honest_but_curious(labels=labels).observe(update, model, texts.spec)


def withheld(seen: Observation, *names: str) -> Observation:
    kept = {name: tensor for name, tensor in seen.tensors.items() if not any(part in name for part in names)}
    gone = tuple(name for name in seen.tensors if name not in kept)
    return replace(seen, tensors=kept, withheld=(*seen.withheld, *gone))
