"""Texts, networks and the prior of the benchmark of gradient matching for text."""

from __future__ import annotations

import collections
import csv
import functools
from pathlib import Path

import torch
from torch import nn

import leakgauge as lg
from benchmarks.common import data_root
from leakgauge.core.text_spec import IGNORED, TextSpec

CLS, SEP, MASK, LONGEST, VOCABULARY = 101, 102, 103, 20, 30522
SETS = ("rotten_tomatoes", "sst2", "cola")
ATTACKED = 40  # sentences of each set, from the start of those with at most LONGEST tokens, that no prior and no control sees


@functools.cache
def tokenised(name: str) -> list[list[int]]:
    """Token ids of a data set's sentences, [CLS] and [SEP] included."""
    import transformers

    folder = data_root() / "text"
    tokeniser = transformers.BertTokenizer(vocab=str(folder / "bert-base-uncased" / "vocab.txt"))
    with (folder / f"{name}.tsv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [tokeniser(row["sentence"])["input_ids"] for row in rows]


def attacked(name: str) -> list[list[int]]:
    """The sentences of at most LONGEST tokens that may be attacked."""
    return [row for row in tokenised(name) if len(row) <= LONGEST][:ATTACKED]


def public() -> list[list[int]]:
    """All other sentences of the three sets: what a prior or a control may know."""
    return [row for name in SETS for row in tokenised(name) if row not in attacked(name)]


def network(task: str, *, base: bool = False, frozen: bool = True, tuned: str = "all") -> nn.Module:
    """A BERT of random weights in eval mode.

    Args:
        task: 'masked' or 'classification'.
        base: 12 layers, 768 wide, instead of 4 layers, 128 wide.
        frozen: whether embeddings are frozen.
        tuned: 'all' other layers, the 'head', or 'lora' (adapters on queries and values, with the classifier).
    """
    import transformers

    width, layers, heads = (768, 12, 12) if base else (128, 4, 2)
    config = transformers.BertConfig(
        vocab_size=VOCABULARY, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=4 * width
    )
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    kind = transformers.BertForMaskedLM if task == "masked" else transformers.BertForSequenceClassification
    model: nn.Module = kind(config)
    if frozen:
        for part in model.modules():
            if isinstance(part, nn.Embedding):
                part.weight.requires_grad_(False)
    if tuned == "head":
        for name, parameter in model.named_parameters():
            head = name.startswith(("cls.", "classifier.")) and len(parameter) != VOCABULARY
            parameter.requires_grad_(head or name == "cls.predictions.bias")
    if tuned == "lora":
        import peft

        trained = None if task == "masked" else "SEQ_CLS"  # SEQ_CLS: the classifier trains too
        model = peft.get_peft_model(model, peft.LoraConfig(r=8, target_modules=["query", "value"], task_type=trained))
    return model.eval()


def texts(rows: list[list[int]], task: str, seed: int) -> lg.Batch:
    """A batch of sentences, padded where they differ in length; 15 % of the words (at least one) masked, or classes in turn."""
    length = max(map(len, rows))
    ids = torch.zeros(len(rows), length, dtype=torch.int64)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row)
    padding = 0 if len({len(row) for row in rows}) > 1 else None
    spec = TextSpec(length, VOCABULARY, padding, task)
    if task == "classification":
        return lg.Batch(ids, (torch.arange(len(rows)) + seed) % 2, spec)
    labels = torch.full_like(ids, IGNORED)
    generator = lg.rng(seed, "masked positions")
    for index, row in enumerate(rows):
        inner = len(row) - 2
        places = 1 + torch.randperm(inner, generator=generator)[: max(1, round(0.15 * inner))]
        labels[index, places] = ids[index, places]
        ids[index, places] = MASK
    return lg.Batch(ids, labels, spec)


def control(batch: lg.Batch) -> torch.Tensor:
    """[CLS], the most frequent tokens of the public sentences in order of frequency, [SEP], at the length of each text."""
    assert isinstance(batch.inputs, torch.Tensor)
    counts = collections.Counter(token for row in public() for token in row[1:-1])
    frequent = [token for token, _ in counts.most_common(LONGEST)]
    rows = torch.zeros_like(batch.inputs)
    for row, length in enumerate((batch.inputs != 0).sum(1).tolist()):
        rows[row, :length] = torch.tensor([CLS, *frequent[: length - 2], SEP])
    return rows


def trained_prior(folder: Path, epochs: int = 12) -> dict[str, float]:
    """Trains a causal language model on the public sentences and saves it as a folder that 'hf:FOLDER' names.

    GPT-2 of 2 layers, 64 wide, BERT's vocabulary. A tenth of the sentences is held back; training ends after the first epoch
    that does not lower the loss there. In half of the sentences one word in seven is [MASK], as in a masked text.

    Returns:
        Nats per token on the sentences held back: of the prior, and of token frequencies alone.
    """
    import transformers

    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY, n_embd=64, n_layer=2, n_head=2, n_positions=64, bos_token_id=CLS, eos_token_id=SEP
    )
    model = transformers.GPT2LMHeadModel(config)
    generator = lg.rng(0, "prior")
    rows = [row[:64] for row in public()]
    order = torch.randperm(len(rows), generator=generator).tolist()
    held, kept = [rows[i] for i in order[: len(rows) // 10]], [rows[i] for i in order[len(rows) // 10 :]]
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1)
    best = float("inf")
    for _ in range(epochs):
        model.train()
        shuffled = [kept[i] for i in torch.randperm(len(kept), generator=generator).tolist()]
        for index in range(0, len(shuffled), 16):
            loss = _loss(model, [_hidden(row, generator) for row in shuffled[index : index + 16]])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        model.eval()
        with torch.no_grad():
            value = float(_loss(model, held))
        if value >= best:
            break
        best = value
        model.save_pretrained(folder)
    counts = collections.Counter(token for row in kept for token in row[1:])
    total = counts.total() + VOCABULARY
    usual = [-torch.tensor((counts[token] + 1) / total).log().item() for row in held for token in row[1:]]
    return {"prior": best, "frequencies": sum(usual) / len(usual)}


def _hidden(row: list[int], generator: torch.Generator) -> list[int]:
    """A sentence, or with even odds the same with some words hidden behind [MASK]."""
    draws = torch.rand(len(row) + 1, generator=generator).tolist()
    if draws[-1] < 0.5:
        return row
    return [MASK if draw < 0.15 and token not in (CLS, SEP) else token for draw, token in zip(draws, row, strict=False)]


def _loss(model: nn.Module, rows: list[list[int]]) -> torch.Tensor:
    """Nats per token."""
    length = max(map(len, rows))
    ids = torch.tensor([row + [0] * (length - len(row)) for row in rows])
    logits = model(input_ids=ids, attention_mask=(ids != 0).long()).logits
    target = torch.where(ids != 0, ids, IGNORED)[:, 1:]
    found: torch.Tensor = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), target.flatten())
    return found
