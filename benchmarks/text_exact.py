"""Exact texts: span-check on GPT-2 and BERT geometries, the bag of tokens, and what noise and half precision leave of them.

    python -m benchmarks.text_exact [--only small,heldout,medium,large,lora,bag,encoder,masked,noise,wall,trained,variants]

Networks are untrained, made from configurations; vocabularies are those of gpt2 and bert-base-uncased; sentences are Rotten
Tomatoes in the order of the file. Gradients are float32. A batch of more tokens than the network is wide is past the wall and
counted apart. Nothing is set by hand; the attack's constants were chosen while looking at the first 80 sentences, and `heldout`
takes later ones, SST-2 and CoLA. ROUGE is the mean over private texts, a missing one counts 0. Needs transformers and tokenizers,
and peft for `lora`.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterable

import torch
from torch import nn

import leakgauge as lg
from benchmarks.common import Clock, machine, observe, table
from benchmarks.text_exact_cases import (
    BERT,
    END,
    GPT2,
    batch,
    batches,
    bert,
    bert_tokens,
    gpt2,
    gpt2_tokens,
    lora,
    sentences,
    tokens_in,
)
from leakgauge.attacks.base import Limits
from leakgauge.attacks.text.bag import BagOfTokens
from leakgauge.attacks.text.span.attack import SpanCheck
from leakgauge.core.observation import Observation
from leakgauge.core.reconstruction import Reconstruction
from leakgauge.measures.text import score_texts

SECTIONS = ("small", "heldout", "medium", "large", "lora", "bag", "encoder", "masked", "noise", "wall", "trained", "variants")
HEADER = ["case", "batches", "sequences exact", "ROUGE-1 / 2 / L", "certified", "certified and wrong", "outcomes",
          "largest residual", "CPU-s, median"]  # fmt: skip
NEAR_WALL = (680, 730)  # tokens of a batch of 32, of 768


def exact(truth: lg.Batch, guess: Reconstruction) -> int:
    assert isinstance(truth.inputs, torch.Tensor)
    left = [tuple(row) for row in guess.inputs.tolist()]
    found = 0
    for row in map(tuple, truth.inputs.tolist()):
        if row in left:
            left.remove(row)
            found += 1
    return found


def run(name: str, model: nn.Module, made: list[lg.Batch], labels: bool = False, **training: object) -> list[str]:
    return judged(name, ((texts, observe(model, texts, labels=labels, **training)) for texts in made))


def judged(name: str, cases: Iterable[tuple[lg.Batch, Observation]]) -> list[str]:
    right = total = certified = wrong = 0
    seconds, outcomes, residuals, rouge = [], {}, [], []
    for texts, seen in cases:
        clock = Clock.start()
        guess = SpanCheck()(seen, lg.rng(0, "attack"), Limits("fast", time_limit=600))
        spent = clock.seconds
        assert isinstance(texts.inputs, torch.Tensor)
        truth = set(map(tuple, texts.inputs.tolist()))
        sure = [tuple(row) for row, kept in zip(guess.inputs.tolist(), guess.certified.tolist(), strict=True) if kept]
        right, total = right + exact(texts, guess), total + len(texts)
        certified, wrong = certified + len(sure), wrong + sum(row not in truth for row in sure)
        scores = score_texts(texts, guess.inputs)
        rouge.append([float(each.nan_to_num(0.0).mean()) for each in (scores.rouge1, scores.rouge2, scores.rougeL)])
        seconds.append(spent)
        outcomes[guess.outcome.name] = outcomes.get(guess.outcome.name, 0) + 1
        residuals += [guess.stats.residual] if guess.stats.residual >= 0 else []  # NaN: not recomputed
        print(f"  {name}: {exact(texts, guess)}/{len(texts)} {guess.outcome.name} {spent:.1f} CPU-s", flush=True)
    said = ", ".join(f"{count} {outcome.lower()}" for outcome, count in outcomes.items())
    times = f"{statistics.median(seconds):.1f} (at most {max(seconds):.1f})"
    means = " / ".join(f"{statistics.mean(each):.3f}" for each in zip(*rouge, strict=True))
    return [
        name,
        str(len(seconds)),
        f"{right}/{total}",
        means,
        f"{certified}/{total}",
        str(wrong),
        said,
        f"{max(residuals):.1e}" if residuals else "-",
        times,
    ]


def texts(size: int, task: str, wall: int | None, count: int, corpus: str = "rotten_tomatoes", start: int = 0) -> list[lg.Batch]:
    found = batches(gpt2_tokens(), size, task, END, GPT2, wall, corpus, start)
    return [made for made, _ in zip(found, range(count), strict=False)]


def spans(only: set[str]) -> list[list[str]]:
    rows: list[list[str]] = []
    if "small" in only:
        for task in ("classification", "causal"):
            for frozen in (False, True):
                words = f"GPT-2, 128 wide, 2 layers, {task}, embeddings {'frozen' if frozen else 'trained'}, batch 4"
                rows.append(run(words, gpt2(task, 128, 2, frozen=frozen), texts(4, task, 127, 20)))
    if "heldout" in only:
        for corpus, start in (("rotten_tomatoes", 100), ("sst2", 0), ("cola", 0)):
            for task in ("classification", "causal"):
                words = f"GPT-2, 128 wide, 2 layers, {task}, batch 4, {corpus} from row {start}"
                rows.append(run(words, gpt2(task, 128, 2), texts(4, task, 127, 10, corpus, start)))
    if "medium" in only:
        for task in ("classification", "causal"):
            rows.append(run(f"GPT-2 small, 768 wide, 12 layers, {task}, batch 8", gpt2(task, 768, 12), texts(8, task, 768, 3)))
    if "large" in only:
        rows += large()
    if "lora" in only:
        rows += adapters()
    if "wall" in only:
        rows.append(run("GPT-2, 128 wide, batch 4, past the wall", gpt2("classification", 128, 2),
                        texts(4, "classification", -128, 20)))  # fmt: skip
    if "noise" in only:
        rows += noisy(texts(4, "classification", 127, 5))
    if "trained" in only:
        made = texts(4, "classification", 127, 25)
        rows += [trained(made, steps, dtype) for steps in (10, 30, 100) for dtype in ("float32", "float64")]
    if "variants" in only:
        rows += variants(texts(4, "classification", 127, 5))
    if "encoder" in only:
        rows += encoders()
    if "masked" in only:
        rows += masked()
    return rows


def large() -> list[list[str]]:
    """The first batches of 32 consecutive sentences, at steps of 8, whose tokens number `NEAR_WALL`."""
    encode, found, rows = gpt2_tokens(), sentences(), []
    for start in range(0, len(found) - 31, 8):
        made = batch(encode, found[start : start + 32], "classification", END, GPT2)
        count = tokens_in(made, END)
        if NEAR_WALL[0] <= count <= NEAR_WALL[1] and len(rows) < 2:
            rows.append(
                run(f"GPT-2 small, classification, batch 32, {count} of 768 tokens", gpt2("classification", 768, 12), [made])
            )
    return rows


def adapters() -> list[list[str]]:
    """LoRA: batches of one sentence under rank 32 and of two under rank 64, as far as their tokens number less."""
    rows = []
    for layers, rank, size, kind, moved, task in (
        (3, 32, 1, "attention", False, "classification"),
        (3, 32, 1, "attention", True, "classification"),
        (2, 32, 1, "attention", False, "classification"),
        (3, 64, 2, "attention", False, "classification"),
        (3, 64, 2, "attention", True, "classification"),
        (2, 64, 2, "attention", False, "classification"),
        (2, 64, 2, "all", False, "causal"),
        (2, 64, 2, "attention", False, "causal"),
    ):
        words = f"LoRA of rank {rank} on {kind}, B {'trained' if moved else '0'}, {layers} layers, {task}, batch {size}"
        rows.append(run(words, lora(task, layers, rank, kind, moved=moved), texts(size, task, rank - 4, 5)))
    words = "LoRA of rank 8 on attention, 3 layers, classification, batch 1 of 9 tokens or more"
    rows.append(run(words, lora("classification", 3, 8, "attention"), texts(1, "classification", -9, 5)))
    return rows


def variants(made: list[lg.Batch]) -> list[list[str]]:
    rows, words = [], "GPT-2, 128 wide, batch 4"
    model, still = gpt2("classification", 128, 2), gpt2("classification", 128, 2, frozen=True)
    for lr in (0.1, 0.01, 0.001, 0.0001):
        rows.append(run(f"{words}, one SGD step, lr {lr}", model, made, lr=lr))
    one = texts(1, "classification", 127, 5)
    for kind, network in (("trained", model), ("frozen", still)):
        for dtype in ("float32", "float64"):
            for lr in (0.1, 0.01, 0.001):
                case = f"embeddings {kind}, 3 SGD steps, lr {lr}, {dtype}"
                rows.append(run(f"GPT-2, 128 wide, batch 1, {case}", network, one, lr=lr, steps=3, dtype=dtype))
    for lr in (0.1, 0.01):
        rows.append(run(f"{words}, 3 SGD steps, lr {lr}, float64", model, made[:3], lr=lr, steps=3, dtype="float64"))
    rows.append(run(f"{words}, gradient clipped, float64", model, made, dtype="float64", clip_norm=0.1))
    return rows


def noisy(made: list[lg.Batch]) -> list[list[str]]:
    rows, model = [], gpt2("classification", 128, 2)
    for share in (1e-7, 1e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 1e-2):
        cases = []
        for each in made:
            update = lg.Client(model).train(each)
            size = torch.cat([tensor.flatten() for tensor in update.tensors.values()]).square().mean().sqrt()
            update = lg.GaussianNoise(std=share * float(size)).protect(update, generator=lg.rng(0, "noise"))
            cases.append((each, lg.ThreatModel.honest_but_curious(labels=False).observe(update, model, each.spec)))
        rows.append(judged(f"noise of {share:.0e} of the gradient's root mean square", cases))
    for dtype in ("float16", "bfloat16"):
        cases = []
        for each in made:
            update = lg.Client(model).train(each)
            tensors = {name: tensor.to(getattr(torch, dtype)).float() for name, tensor in update.tensors.items()}
            update = lg.Update(**{**vars(update), "tensors": tensors})
            cases.append((each, lg.ThreatModel.honest_but_curious(labels=False).observe(update, model, each.spec)))
        rows.append(judged(f"update rounded to {dtype}", cases))
    return rows


def trained(made: list[lg.Batch], steps: int, dtype: str) -> list[str]:
    """After some steps of Adam on 20 further batches: the LayerNorms have gains and shifts, predictions are not even."""
    model = gpt2("classification", 128, 2)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    for step in range(steps):
        each = made[5 + step % (len(made) - 5)]
        optimiser.zero_grad()
        output = model(**each.model_inputs)
        nn.functional.cross_entropy(output.logits, each.labels).backward()
        optimiser.step()
    return run(f"GPT-2, 128 wide, trained {steps} steps, batch 4, {dtype}", model.eval(), made[:5], dtype=dtype)


def encoders() -> list[list[str]]:
    rows, encode = [], bert_tokens()
    sizes = ((128, 4, 1, 20), (128, 4, 2, 10), (128, 4, 4, 5), (768, 12, 1, 20), (768, 12, 2, 3), (768, 12, 4, 2))
    for width, layers, size, count in sizes:
        made = [each for each, _ in zip(batches(encode, size, "classification", 0, BERT, width), range(count), strict=False)]
        rows.append(run(f"BERT, {width} wide, {layers} layers, batch {size}", bert("classification", width, layers), made))
    return rows


def masked() -> list[list[str]]:
    rows, model = [], bert("masked", 128, 4)
    for labels in (True, False):
        made = [each for each, _ in zip(batches(bert_tokens(), 1, "masked", 0, BERT, 127), range(10), strict=False)]
        made = [each for each in made if bool((each.labels != -100).any())]  # type: ignore[union-attr, operator]
        rows.append(
            run(f"BERT, masked, 128 wide, 4 layers, batch 1, labels {'granted' if labels else 'secret'}", model, made, labels)
        )
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
            assert isinstance(texts.labels, torch.Tensor)
            heard = (texts.labels != -100).any(1) if task == "masked" else torch.ones(len(texts), dtype=torch.bool)
            said, true = (set(ids.flatten().tolist()) - {padding, -100} for ids in (guess.inputs, texts.inputs[heard]))
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
        print("\n" + table(HEADER, found) + "\n")
    if "bag" in only:
        print(table(["bag of tokens, batch 16, 128 wide", "batches", "precision (labels count)", "recall", "seconds"], bags()))
        print("Texts without a masked token have no part in a masked model's update, and none in its row")


if __name__ == "__main__":
    main()
