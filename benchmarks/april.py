"""april: one picture from vision transformers, one text from BERT and GPT-2, in closed form.

    python -m benchmarks.april [--only pictures,large,texts,wide]

Networks are untrained, made from configurations of transformers; gradients are float32, labels are not granted. Pictures are the
first CIFAR-10 picture of each class, and Kodak pictures at 224 pixels; texts are Rotten Tomatoes in the order of the file.
"""

from __future__ import annotations

import argparse
import statistics

import torch
from torch import nn

import leakgauge as lg
from benchmarks.common import cifar_first, data_root, machine, observe, table
from benchmarks.text_exact_cases import BERT, END, GPT2, batches, bert, bert_tokens, gpt2, gpt2_tokens

SECTIONS = ("pictures", "large", "texts", "wide")


def vit(width: int, layers: int, size: int, patch: int) -> nn.Module:
    import transformers

    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=width, num_hidden_layers=layers, num_attention_heads=max(width // 64, 1), intermediate_size=4 * width,
        image_size=size, patch_size=patch, num_labels=10,
    )  # fmt: skip
    config._attn_implementation = "eager"
    return transformers.ViTForImageClassification(config).eval()


def trained(model: nn.Module, made: list[lg.Batch], steps: int) -> nn.Module:
    """The model after some steps of Adam on these pictures, so that it is sure of its answers."""
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-4)
    inputs, labels = torch.cat([each.inputs for each in made]), torch.cat([each.labels for each in made])
    for _ in range(steps):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(inputs).logits, labels).backward()
        optimiser.step()
    return model.eval()


def pictures(words: str, model: nn.Module, made: list[lg.Batch], **training: object) -> list[str]:
    scores, seconds, outcomes, certified = [], [], set(), 0
    for batch in made:
        guess = lg.attack(observe(model, batch, **training), "april", device="cpu")
        scores.append(float(lg.score(batch, guess).psnr[0]))
        seconds.append(guess.seconds)
        outcomes.add(guess.outcome.name.lower())
        certified += int(guess.certified.sum())
        print(f"  {words}: {scores[-1]:.1f} dB {guess.outcome.name} {guess.stats.notes[1]}", flush=True)
    psnr = f"{statistics.median(scores):.1f} ({min(scores):.1f} to {max(scores):.1f})"
    return [
        words,
        str(len(made)),
        psnr,
        f"{certified}/{len(made)}",
        ", ".join(sorted(outcomes)),
        f"{statistics.median(seconds):.1f}",
    ]


def texts(words: str, model: nn.Module, made: list[lg.Batch]) -> list[str]:
    right, certified, seconds, outcomes = 0, 0, [], set()
    for batch in made:
        guess = lg.attack(observe(model, batch), "april", device="cpu")
        assert isinstance(batch.inputs, torch.Tensor)
        right += torch.equal(guess.inputs, batch.inputs)
        certified += int(guess.certified.sum())
        seconds.append(guess.seconds)
        outcomes.add(guess.outcome.name.lower())
    print(f"  {words}: {right}/{len(made)}", flush=True)
    return [words, str(len(made)), f"{right}/{len(made)}", f"{certified}/{len(made)}", ", ".join(sorted(outcomes)),
            f"{statistics.median(seconds):.1f}"]  # fmt: skip


def all_pictures(only: set[str]) -> list[list[str]]:
    rows = []
    if "pictures" in only:
        made = cifar_first()
        for layers in (1, 4, 12):
            rows.append(pictures(f"ViT, 192 wide, {layers} layer(s), 32x32 in 64 patches", vit(192, layers, 32, 4), made))
        name = "the same, 4 layers"
        rows.append(pictures(f"{name}, 5 steps of SGD, lr 0.1", vit(192, 4, 32, 4), made, lr=0.1, steps=5))
        rows.append(pictures(f"{name}, after 50 steps of Adam on the ten", trained(vit(192, 4, 32, 4), made, 50), made))
        rows.append(pictures("ViT, 48 wide, 4 layers, 32x32 in 64 patches", vit(48, 4, 32, 4), made))
    if "large" in only:
        root = data_root() / "kodak"
        made = [lg.load_data(f"folder:{root}?indices={index}&size=224") for index in range(4)]
        rows.append(pictures("ViT, 192 wide, 12 layers, 224x224 in 196 patches", vit(192, 12, 224, 16), made))
        rows.append(pictures("ViT, 768 wide, 12 layers, 224x224 in 196 patches", vit(768, 12, 224, 16), made))
    return rows


def all_texts(only: set[str]) -> list[list[str]]:
    rows = []
    sizes = [(128, 2, 50)] * ("texts" in only) + [(768, 12, 5)] * ("wide" in only)
    for width, layers, count in sizes:
        for task in ("classification", "causal"):
            made = [each for each, _ in zip(batches(gpt2_tokens(), 1, task, END, GPT2, None), range(count), strict=False)]
            rows.append(texts(f"GPT-2, {width} wide, {layers} layers, {task}", gpt2(task, width, layers), made))
        for task in ("classification", "masked"):
            found = batches(bert_tokens(), 1, task, 0, BERT, None)
            kept = (each for each in found if task != "masked" or bool((each.labels >= 0).any()))
            made = [each for each, _ in zip(kept, range(count), strict=False)]
            rows.append(texts(f"BERT, {width} wide, {layers} layers, {task}", bert(task, width, layers), made))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(SECTIONS))
    only = set(parser.parse_args().only.split(","))
    torch.set_num_threads(1)
    print(f"Machine: {machine()}, one thread\n")
    found = all_pictures(only)
    if found:
        header = ["network", "pictures", "PSNR in dB, median", "certified", "outcomes", "seconds, median"]
        print("\n" + table(header, found) + "\n")
    found = all_texts(only)
    if found:
        print("\n" + table(["network", "texts", "exact", "certified", "outcomes", "seconds, median"], found) + "\n")


if __name__ == "__main__":
    main()
