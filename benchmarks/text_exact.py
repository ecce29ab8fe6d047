"""Exact texts: span-check on GPT-2 and BERT geometries, the bag of tokens, and what noise and half precision leave of them.

    python -m benchmarks.text_exact [--only small,medium,large,bag,encoder,noise,wall,trained,variants]

Networks are untrained, made from configurations; vocabularies are those of gpt2 and bert-base-uncased; sentences are Rotten
Tomatoes in the order of the file. Gradients are float32. A batch of more tokens than the network is wide is past the wall and
counted apart. Nothing is set by hand. Needs transformers and tokenizers.
"""

from __future__ import annotations

import argparse
import csv
import statistics
from collections.abc import Callable, Iterator

import torch
from torch import nn

import leakgauge as lg
from benchmarks.common import data_root, machine, observe, table
from leakgauge.attacks.base import Limits
from leakgauge.attacks.text.bag import BagOfTokens
from leakgauge.attacks.text.span.attack import SpanCheck
from leakgauge.core.reconstruction import Reconstruction
from leakgauge.core.text_spec import TextSpec

GPT2, BERT = 50_257, 30_522
END, MASK = 50_256, 103  # GPT-2 pads with its end token; BERT's mask
SECTIONS = ("small", "medium", "large", "bag", "encoder", "noise", "wall", "trained", "variants")
Encode = Callable[[str], list[int]]


def sentences() -> list[tuple[str, int]]:
    with (data_root() / "text" / "rotten_tomatoes.tsv").open(encoding="utf-8") as file:
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


def batches(encode: Encode, size: int, task: str, padding: int, vocabulary: int, wall: int | None) -> Iterator[lg.Batch]:
    """Batches of consecutive sentences; those with `wall` tokens or more are left out, or the only ones kept if `wall` < 0."""
    rows = sentences()
    for start in range(0, len(rows) - size + 1, size):
        made = batch(encode, rows[start : start + size], task, padding, vocabulary)
        tokens = int((made.inputs != padding).sum())  # type: ignore[operator, union-attr]
        if wall is None or (tokens < wall if wall > 0 else tokens >= -wall):
            yield made


def exact(truth: lg.Batch, guess: Reconstruction) -> int:
    assert isinstance(truth.inputs, torch.Tensor)
    left = [tuple(row) for row in guess.inputs.tolist()]
    found = 0
    for row in map(tuple, truth.inputs.tolist()):
        if row in left:
            left.remove(row)
            found += 1
    return found


def run(name: str, model: nn.Module, made: list[lg.Batch], **training: object) -> list[str]:
    right = total = 0
    seconds, outcomes, certified, worst = [], {}, 0, 0.0
    for texts in made:
        guess = SpanCheck()(observe(model, texts, **training), lg.rng(0, "attack"), Limits("fast"))
        right, total = right + exact(texts, guess), total + len(texts)
        seconds.append(guess.seconds)
        certified += int(guess.certified.sum())
        outcomes[guess.outcome.name] = outcomes.get(guess.outcome.name, 0) + 1
        worst = max(worst, guess.stats.residual)
        print(f"  {name}: {exact(texts, guess)}/{len(texts)} {guess.outcome.name} {guess.seconds:.1f} s", flush=True)
    said = ", ".join(f"{count} {outcome.lower()}" for outcome, count in outcomes.items())
    times = f"{statistics.median(seconds):.1f} (at most {max(seconds):.1f})"
    return [name, str(len(made)), f"{right}/{total}", f"{certified}/{total}", said, f"{worst:.1e}", times]


def spans(only: set[str]) -> list[list[str]]:
    rows, encode = [], gpt2_tokens()

    def texts(size: int, task: str, wall: int | None, count: int) -> list[lg.Batch]:
        return [made for made, _ in zip(batches(encode, size, task, END, GPT2, wall), range(count), strict=False)]

    if "small" in only:
        for task in ("classification", "causal"):
            for frozen in (False, True):
                words = f"GPT-2, 128 wide, 2 layers, {task}, embeddings {'frozen' if frozen else 'trained'}, batch 4"
                rows.append(run(words, gpt2(task, 128, 2, frozen=frozen), texts(4, task, 127, 20)))
    if "medium" in only:
        for task in ("classification", "causal"):
            rows.append(run(f"GPT-2 small, 768 wide, 12 layers, {task}, batch 8", gpt2(task, 768, 12), texts(8, task, 768, 3)))
    if "large" in only:
        chosen = [row for row in sentences() if len(encode(row[0])) <= 34]
        made = [batch(encode, chosen[start : start + 32], "classification", END, GPT2) for start in (0, 32)]
        for each in made:
            tokens = int((each.inputs != END).sum())  # type: ignore[operator, union-attr]
            words = f"GPT-2 small, classification, batch 32, {tokens} tokens, sentences of at most 34"
            rows.append(run(words, gpt2("classification", 768, 12), [each]))
    if "wall" in only:
        rows.append(run("GPT-2, 128 wide, batch 4, past the wall", gpt2("classification", 128, 2),
                        texts(4, "classification", -128, 20)))  # fmt: skip
    if "noise" in only:
        rows += noisy(texts(4, "classification", 127, 3))
    if "trained" in only:
        rows += [trained(texts(4, "classification", 127, 25), steps) for steps in (10, 30, 100)]
    if "variants" in only:
        model, made = gpt2("classification", 128, 2), texts(4, "classification", 127, 5)
        rows.append(run("the same, one SGD step, lr 0.1", model, made, lr=0.1))
        rows += [run(f"the same, 3 SGD steps, lr {lr}", model, made, lr=lr, steps=3) for lr in (0.1, 0.01)]
        rows.append(run("the same, gradient clipped, float64", model, made, dtype="float64", clip_norm=0.1))
    if "encoder" in only:
        rows += encoders()
    return rows


def noisy(made: list[lg.Batch]) -> list[list[str]]:
    rows, model = [], gpt2("classification", 128, 2)
    for share in (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2):
        right = total = 0
        outcomes: list[str] = []
        for texts in made:
            update = lg.Client(model).train(texts)
            size = torch.cat([tensor.flatten() for tensor in update.tensors.values()]).square().mean().sqrt()
            noise = lg.GaussianNoise(std=share * float(size))
            update = noise.protect(update, generator=lg.rng(0, "noise"))
            seen = lg.ThreatModel.honest_but_curious(labels=False).observe(update, model, texts.spec)
            guess = SpanCheck()(seen, lg.rng(0, "attack"), Limits("fast", time_limit=120))
            right, total = right + exact(texts, guess), total + len(texts)
            outcomes.append(guess.outcome.name.lower())
        rows.append([f"noise of {share:.0e} of the gradient's root mean square", str(len(made)), f"{right}/{total}", "",
                     ", ".join(sorted(set(outcomes))), "", ""])  # fmt: skip
    for dtype in ("float16", "bfloat16"):
        rows.append(rounded(model, made, dtype))
    return rows


def rounded(model: nn.Module, made: list[lg.Batch], dtype: str) -> list[str]:
    right = total = 0
    outcomes = []
    for texts in made:
        update = lg.Client(model).train(texts)
        kind = getattr(torch, dtype)
        tensors = {name: tensor.to(kind).float() for name, tensor in update.tensors.items()}
        update = lg.Update(**{**vars(update), "tensors": tensors})
        seen = lg.ThreatModel.honest_but_curious(labels=False).observe(update, model, texts.spec)
        guess = SpanCheck()(seen, lg.rng(0, "attack"), Limits("fast", time_limit=120))
        right, total = right + exact(texts, guess), total + len(texts)
        outcomes.append(guess.outcome.name.lower())
    return [f"update rounded to {dtype}", str(len(made)), f"{right}/{total}", "", ", ".join(sorted(set(outcomes))), "", ""]


def trained(made: list[lg.Batch], steps: int) -> list[str]:
    """After some steps of Adam on 20 further batches: the LayerNorms have gains and shifts, predictions are not even."""
    model = gpt2("classification", 128, 2)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    for step in range(steps):
        texts = made[5 + step % (len(made) - 5)]
        optimiser.zero_grad()
        output = model(**texts.model_inputs)
        nn.functional.cross_entropy(output.logits, texts.labels).backward()
        optimiser.step()
    return run(f"GPT-2, 128 wide, trained {steps} steps, batch 4", model.eval(), made[:5])


def encoders() -> list[list[str]]:
    rows, encode = [], bert_tokens()
    for width, layers, size, count in ((128, 4, 1, 20), (128, 4, 2, 10), (768, 12, 1, 20), (768, 12, 2, 3)):
        made = [each for each, _ in zip(batches(encode, size, "classification", 0, BERT, width), range(count), strict=False)]
        rows.append(run(f"BERT, {width} wide, {layers} layers, batch {size}", bert("classification", width, layers), made))
    return rows


def bags() -> list[list[str]]:
    rows = []
    for name, make, encode, task, padding, vocabulary in (
        ("GPT-2, classification", gpt2, gpt2_tokens(), "classification", END, GPT2),
        ("GPT-2, causal, tied", gpt2, gpt2_tokens(), "causal", END, GPT2),
        ("BERT, classification", bert, bert_tokens(), "classification", 0, BERT),
        ("BERT, masked, tied", bert, bert_tokens(), "masked", 0, BERT),
    ):
        scores = []
        for texts, _ in zip(batches(encode, 16, task, padding, vocabulary, None), range(10), strict=False):
            guess = BagOfTokens()(observe(make(task, 128, 2), texts), lg.rng(0, "attack"), Limits("fast"))
            assert isinstance(texts.inputs, torch.Tensor)
            said, true = (set(ids.flatten().tolist()) - {padding, -100} for ids in (guess.inputs, texts.inputs))
            whole = true | (set(texts.labels.flatten().tolist()) - {padding, -100} if task == "masked" else set())
            scores.append((len(said & true) / len(true), len(said & whole) / len(said), guess.seconds))
        recall, precision, seconds = (statistics.mean(each) for each in zip(*scores, strict=True))
        rows.append([name, str(len(scores)), f"{precision:.4f}", f"{recall:.4f}", f"{seconds:.1f}"])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(SECTIONS))
    only = set(parser.parse_args().only.split(","))
    torch.set_num_threads(1)
    print(f"Machine: {machine()}, one thread\n")
    found = spans(only)
    if found:
        header = ["case", "batches", "sequences exact", "certified", "outcomes", "largest residual", "seconds, median"]
        print("\n" + table(header, found) + "\n")
    if "bag" in only:
        print(table(["bag of tokens, batch 16, 128 wide", "batches", "precision (labels count)", "recall", "seconds"], bags()))


if __name__ == "__main__":
    main()
