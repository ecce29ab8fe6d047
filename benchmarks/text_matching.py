"""Gradient matching for masked language models: dlg-text, tag, lamp and the control, sentence by sentence.

    python -m benchmarks.text_matching [--sentences 20] [--budget 350] [--batch 1] [--base] [--only NAME,...] [--data sst2]

BERT of 4 layers, 128 wide (`--base`: 12 layers, 768 wide), random weights, bert-base-uncased's vocabulary of 30,522, embeddings
frozen (no bag), eval mode. Sentences of at most 20 tokens, [CLS] and [SEP] included; 15 % of the words (at least one) are
replaced by [MASK] and predicted. Not granted: labels, masked positions. Granted: the number of tokens, as the length of an
unpadded text. The control draws nothing from the update: [CLS], the most frequent tokens of the other data sets' sentences
in order of frequency, [SEP]. Every row has the same budget of gradient evaluations.
"""

from __future__ import annotations

import argparse
import collections
import csv
import statistics
from dataclasses import dataclass
from typing import Any

import torch

import leakgauge as lg
from benchmarks.common import Clock, data_root, machine, say, table
from leakgauge.attacks.base import Attack, Limits
from leakgauge.attacks.text.matching.presets import dlg_text, lamp, tag
from leakgauge.core.reconstruction import Reconstruction
from leakgauge.core.text_spec import IGNORED, TextSpec

CLS, SEP, MASK, LONGEST = 101, 102, 103, 20
SETS = ("rotten_tomatoes", "sst2", "cola")
PUBLISHED: dict[str, Any] = {
    "distance": "l2", "start": "noise", "span": False, "positions": False, "snap": False, "discrete": False, "rounds": 1,
}  # fmt: skip


def attacks() -> dict[str, Attack]:
    """The rows of the table."""
    return {
        "dlg-text": dlg_text(),
        "dlg-text start=noise": dlg_text(start="noise"),
        "dlg-text start=noise span=false": dlg_text(start="noise", span=False),
        "dlg-text start=noise span=false distance=l2": dlg_text(start="noise", span=False, distance="l2"),
        "dlg-text as published": dlg_text(**PUBLISHED),
        "tag": tag(),
        "lamp (no prior)": lamp(),
    }


def tokenised(name: str) -> list[list[int]]:
    """Token ids of a data set's sentences."""
    import transformers

    folder = data_root() / "text"
    tokeniser = transformers.BertTokenizer(vocab=str(folder / "bert-base-uncased" / "vocab.txt"))
    with (folder / f"{name}.tsv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [tokeniser(row["sentence"])["input_ids"] for row in rows]


def network(base: bool) -> torch.nn.Module:
    """The network, with its embeddings frozen."""
    import transformers

    width, layers, heads = (768, 12, 12) if base else (128, 4, 2)
    config = transformers.BertConfig(
        vocab_size=30522, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=4 * width
    )
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    model: torch.nn.Module = transformers.BertForMaskedLM(config).eval()
    for part in model.modules():
        if isinstance(part, torch.nn.Embedding):
            part.weight.requires_grad_(False)
    return model


def masked(rows: list[list[int]], seed: int) -> lg.Batch:
    """A masked batch of sentences, padded where they differ in length."""
    length = max(map(len, rows))
    ids = torch.zeros(len(rows), length, dtype=torch.int64)
    labels = torch.full_like(ids, IGNORED)
    generator = lg.rng(seed, "masked positions")
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row)
        inner = len(row) - 2
        places = 1 + torch.randperm(inner, generator=generator)[: max(1, round(0.15 * inner))]
        labels[index, places] = ids[index, places]
        ids[index, places] = MASK
    padding = 0 if len({len(row) for row in rows}) > 1 else None
    return lg.Batch(ids, labels, TextSpec(length, 30522, padding, "masked"))


@dataclass(frozen=True)
class Row:
    """One attack on one batch."""

    right: float
    labels: float
    exact: float
    explains: bool
    seconds: float
    evaluations: int


def compared(batch: lg.Batch, ids: torch.Tensor, labels: torch.Tensor | None) -> tuple[float, float, float]:
    """Shares of unmasked tokens, of masked labels and of whole sequences that are right, texts assigned greedily."""
    assert isinstance(batch.inputs, torch.Tensor)
    left, pairs = list(range(len(ids))), []
    for row in range(len(ids)):
        best = max(left, key=lambda other, row=row: int((ids[other] == batch.inputs[row]).sum()))  # type: ignore[misc]
        left.remove(best)
        pairs.append(best)
    found = ids[pairs]
    predicted, padding = batch.labels != IGNORED, batch.inputs == 0
    plain = ~predicted & ~padding
    named = torch.zeros_like(found) if labels is None else labels[pairs]
    exact = (found == batch.inputs).all(1) & ((named == batch.labels) | ~predicted).all(1)
    return (
        float((found == batch.inputs)[plain].float().mean()),
        float((named == batch.labels)[predicted].float().mean()),
        float(exact.float().mean()),
    )


def control(batch: lg.Batch, frequent: list[int]) -> torch.Tensor:
    """[CLS], the most frequent tokens, [SEP], at the length of each text."""
    assert isinstance(batch.inputs, torch.Tensor)
    rows = torch.zeros_like(batch.inputs)
    for row, length in enumerate((batch.inputs != 0).sum(1).tolist()):
        rows[row, :length] = torch.tensor([CLS, *frequent[: length - 2], SEP])
    return rows


def attacked(attack: Attack, seen: lg.Observation, budget: int, seed: int) -> tuple[Reconstruction, float]:
    clock = Clock.start()
    guess = attack(seen, lg.rng(seed, "attack"), Limits(budget))
    return guess, clock.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sentences", type=int, default=20)
    parser.add_argument("--budget", type=int, default=350)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--base", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--data", default=SETS[0], choices=SETS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = network(options.base)
    texts = [row for row in tokenised(options.data) if len(row) <= LONGEST][: options.sentences * options.batch]
    groups = [texts[index : index + options.batch] for index in range(0, len(texts), options.batch)]
    counts = collections.Counter(token for name in SETS if name != options.data for row in tokenised(name) for token in row[1:-1])
    frequent = [token for token, _ in counts.most_common(LONGEST)]
    chosen = {name: attack for name, attack in attacks().items() if not options.only or name in options.only.split(",")}
    found: dict[str, list[Row]] = {name: [] for name in [*chosen, "control"]}
    for index, rows in enumerate(groups):
        batch = masked(rows, index)
        update = lg.Client(model).train(batch)
        seen = lg.ThreatModel.honest_but_curious().observe(update, model, batch.spec)
        for name, attack in chosen.items():
            guess, seconds = attacked(attack, seen, options.budget, index)
            right, labels, exact = compared(batch, guess.inputs, guess.labels)
            row = Row(right, labels, exact, guess.explains, seconds, guess.stats.evaluations)
            found[name].append(row)
            say({"batch": index, "attack": name, **row.__dict__})
        right, _, _ = compared(batch, control(batch, frequent), None)
        found["control"].append(Row(right, 0.0, 0.0, False, 0.0, 0))
    print(f"Machine: {machine()}\n")
    header = [
        "attack", "unmasked tokens right, median (mean)", "masked labels right, mean", "sequences exact", "explains",
        "CPU-s, median (max)",
        "evaluations, median",
    ]  # fmt: skip
    print(table(header, [[name, *summary(rows)] for name, rows in found.items()]))


def summary(rows: list[Row]) -> list[str]:
    """The cells of one line."""
    right = [row.right for row in rows]
    seconds = [row.seconds for row in rows]
    return [
        f"{statistics.median(right):.2f} ({statistics.mean(right):.2f})",
        f"{statistics.mean(row.labels for row in rows):.2f}",
        f"{statistics.mean(row.exact for row in rows):.0%}",
        f"{sum(row.explains for row in rows)}/{len(rows)}",
        f"{statistics.median(seconds):.1f} ({max(seconds):.1f})",
        f"{statistics.median(row.evaluations for row in rows):.0f}",
    ]


if __name__ == "__main__":
    main()
