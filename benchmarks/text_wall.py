"""Past the rank wall: a classifier's batches with more tokens than it is wide, read from both embeddings' gradient rows.

    python -m benchmarks.text_wall [--count 4] [--size 8] [--skip 0] [--seconds 600]

GPT-2, 128 wide, 2 layers, untrained, vocabulary of gpt2, embeddings trained; Rotten Tomatoes in the order of the file, batches
of fewer than 128 tokens left out. Gradients are float32. The number of texts is known. Needs transformers and tokenizers.
"""

from __future__ import annotations

import argparse
import itertools

import torch
from scipy.optimize import linear_sum_assignment

import leakgauge as lg
from benchmarks.common import machine, observe, table
from benchmarks.text_exact_cases import END, GPT2, batches, gpt2, gpt2_tokens
from leakgauge.attacks.base import Limits
from leakgauge.attacks.text.wall.attack import EmbeddingRows

WIDTH = 128


def measured(texts: lg.Batch, seconds: float) -> list[str]:
    seen = observe(gpt2("classification", WIDTH, 2), texts)
    found = EmbeddingRows()(seen, lg.rng(0, "attack"), Limits("max", time_limit=seconds))
    assert found.labels is not None
    assert isinstance(texts.inputs, torch.Tensor)
    assert isinstance(texts.labels, torch.Tensor)
    assert isinstance(texts.spec, lg.TextSpec)
    ids, true, here = found.inputs, texts.inputs != END, found.inputs != END
    shared = ((ids[:, None] == texts.inputs[None]) & true[None] & here[:, None]).sum(-1)
    own, other = linear_sum_assignment(-shared.numpy())
    exact = sum(int(torch.equal(ids[one], texts.inputs[two])) for one, two in zip(own, other, strict=True))
    lengths = sorted(zip(true.sum(1).tolist(), texts.labels.tolist(), strict=True))
    said = sorted(zip(here.sum(1).tolist(), found.labels.tolist(), strict=True))
    agree = sum(one == two for one, two in zip(lengths, said, strict=True))
    bags = [{tuple(pair) for pair in torch.stack([part[keep], keep.nonzero()[:, 1]], 1).tolist()}
            for part, keep in ((ids, here), (texts.inputs, true))]  # fmt: skip
    tokens, total = int(true.sum()), len(texts)
    rounds = found.stats.notes[0].split()[0]
    return [str(tokens), f"{tokens / WIDTH:.2f}", f"{agree}/{total}", f"{len(bags[0] & bags[1]) / len(bags[0]):.3f}",
            f"{len(bags[0] & bags[1]) / len(bags[1]):.3f}", f"{float(shared[own, other].sum()) / tokens:.3f}",
            f"{exact}/{total}", f"{found.stats.residual:.1e}", rounds, f"{found.seconds:.0f}"]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("count", 4), ("size", 8), ("skip", 0), ("seconds", 600)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print(f"Machine: {machine()}, one thread\n")
    made = batches(gpt2_tokens(), asked.size, "classification", END, GPT2, -WIDTH)
    rows = []
    for texts in itertools.islice(made, asked.skip, asked.skip + asked.count):
        rows.append(measured(texts, asked.seconds))
        print("  " + ", ".join(rows[-1]), flush=True)
    head = ["tokens", "of the width", "length and class", "token at position: precision", "recall",
            "tokens right in their text", "texts exact", "residual of the update", "rounds", "seconds"]  # fmt: skip
    print("\n" + table(head, rows))


if __name__ == "__main__":
    main()
