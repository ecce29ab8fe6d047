"""Sentences, tokenizers, networks and batches for the benchmark of exact texts."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Callable, Iterator

import torch
from torch import nn

import leakgauge as lg
from benchmarks.common import data_root
from leakgauge.core.text_spec import TextSpec

GPT2, BERT = 50_257, 30_522
END, MASK = 50_256, 103  # GPT-2 pads with its end token; BERT's mask
Encode = Callable[[str], list[int]]


def sentences(corpus: str = "rotten_tomatoes") -> list[tuple[str, int]]:
    with (data_root() / "text" / f"{corpus}.tsv").open(encoding="utf-8") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [(row["sentence"], int(row["label"])) for row in rows]


def gpt2_tokens() -> Encode:
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder = data_root() / "text" / "gpt2"
    tokens = Tokenizer(models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return lambda text: list(tokens.encode(text).ids)


def bert_tokens() -> Encode:
    from tokenizers import BertWordPieceTokenizer

    tokens = BertWordPieceTokenizer(str(data_root() / "text" / "bert-base-uncased" / "vocab.txt"), lowercase=True)
    return lambda text: list(tokens.encode(text).ids)


def gpt2(task: str, width: int, layers: int, *, frozen: bool = False) -> nn.Module:
    import transformers

    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=GPT2, n_embd=width, n_layer=layers, n_head=max(width // 64, 2), pad_token_id=END, num_labels=2
    )
    config._attn_implementation = "eager"
    kind = transformers.GPT2LMHeadModel if task == "causal" else transformers.GPT2ForSequenceClassification
    return _frozen(kind(config).eval(), frozen)


def bert(task: str, width: int, layers: int, *, frozen: bool = False) -> nn.Module:
    import transformers

    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=BERT, hidden_size=width, num_hidden_layers=layers, num_attention_heads=max(width // 64, 2),
        intermediate_size=4 * width, num_labels=2,
    )  # fmt: skip
    config._attn_implementation = "eager"
    kind = transformers.BertForMaskedLM if task == "masked" else transformers.BertForSequenceClassification
    return _frozen(kind(config).eval(), frozen)


def lora(task: str, layers: int, rank: int, kind: str, *, moved: bool = False) -> nn.Module:
    """A GPT-2, 128 wide, of which only LoRA adapters are trained: 'attention', or 'all' with the MLP's layers too.

    Args:
        task, layers: of the network.
        rank: of the adapters.
        kind: where they sit.
        moved: B has left zero, as after some rounds.
    """
    from peft import LoraConfig, get_peft_model

    model = gpt2(task, 128, layers)
    torch.manual_seed(1)
    targets = ["c_attn"] if kind == "attention" else ["c_attn", "c_proj", "c_fc"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(model, LoraConfig(r=rank, lora_alpha=rank, target_modules=targets, fan_in_fan_out=True))
    generator = lg.rng(0, "adapters")
    for name, parameter in model.named_parameters():
        if moved and "lora_B" in name:
            parameter.data = 0.02 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def tokens_in(texts: lg.Batch, padding: int) -> int:
    assert isinstance(texts.inputs, torch.Tensor)
    return int((texts.inputs != padding).sum())


def _frozen(model: nn.Module, frozen: bool) -> nn.Module:
    for part in model.modules():
        if frozen and isinstance(part, nn.Embedding):
            part.weight.requires_grad_(False)
    return model


def batch(encode: Encode, chosen: list[tuple[str, int]], task: str, padding: int, vocabulary: int) -> lg.Batch:
    texts = [encode(sentence) for sentence, _ in chosen]
    length = max(map(len, texts))
    ids = torch.full((len(texts), length), padding)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = torch.tensor(text)
    if task == "masked":
        hidden = (torch.rand(ids.shape, generator=lg.rng(0, "masks")) < 0.15) & (ids > MASK)
        labels, ids = torch.where(hidden, ids, -100), torch.where(hidden, MASK, ids)
    else:
        labels = ids.clone() if task == "causal" else torch.tensor([label for _, label in chosen])
    return lg.Batch(ids, labels, TextSpec(length, vocabulary, padding, task))


def batches(
    encode: Encode, size: int, task: str, padding: int, vocabulary: int, wall: int | None,
    corpus: str = "rotten_tomatoes", begin: int = 0,
) -> Iterator[lg.Batch]:  # fmt: skip
    """Batches of consecutive sentences; those with `wall` tokens or more are left out, or the only ones kept if `wall` < 0."""
    rows = sentences(corpus)
    for start in range(begin, len(rows) - size + 1, size):
        made = batch(encode, rows[start : start + size], task, padding, vocabulary)
        tokens = tokens_in(made, padding)
        if wall is None or (tokens < wall if wall > 0 else tokens >= -wall):
            yield made
