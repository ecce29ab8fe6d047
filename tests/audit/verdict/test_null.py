"""The whole way on real pictures: guesses that know nothing, exact ones, and thumbnails that show nothing and yet tell who."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from scipy.stats import binom
from torch import Tensor
from torch.nn import functional
from verdict_cases import cell, record

from leakgauge.audit.making import example_scores
from leakgauge.audit.record import Pictures
from leakgauge.audit.run.result import CellResult
from leakgauge.audit.text_record import Texts
from leakgauge.audit.verdict.decoys import decoys_of
from leakgauge.audit.verdict.judge import judge
from leakgauge.audit.verdict.lineups import line_ups_of
from leakgauge.audit.verdict.look_alikes import plain_tokens
from leakgauge.data import load_data
from leakgauge.data.demo_texts import TEXTS
from leakgauge.data.text import load_texts
from leakgauge.data.tokeniser import DEMO, load_tokeniser
from leakgauge.measures.score import score_tensor
from leakgauge.randomness import rng

Guess = Callable[[Tensor, torch.Generator], Tensor]
COUNT = 40


def played(data: str, guess: Guess, seed: int) -> CellResult:
    batch = load_data(data)
    pixels = guess(batch.inputs, rng(seed, "guess"))
    scores = example_scores(batch, score_tensor(batch, pixels), None, None)
    held = replace(record([0.0]), scores=scores, control=None, pictures=Pictures(guess=pixels, truth=batch.inputs))
    decoys = decoys_of(data, "auto", batch)
    return CellResult(cell(data), "ok", record=held, line_ups=line_ups_of(held, decoys), decoys=decoys.words)


def noise(truth: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(truth.shape, generator=generator)


def low_frequency(truth: Tensor, generator: torch.Generator) -> Tensor:
    small = torch.rand(*truth.shape[:2], 3, 3, generator=generator)
    return functional.interpolate(small, size=truth.shape[2:], mode="bicubic").clamp(0, 1)


def thumbnail(truth: Tensor, generator: torch.Generator) -> Tensor:
    small = functional.interpolate(functional.adaptive_avg_pool2d(truth, 8), size=truth.shape[2:])
    return (small + 0.3 * torch.randn(small.shape, generator=generator)).clamp(0, 1)


def almost(truth: Tensor, generator: torch.Generator) -> Tensor:
    return (truth + 1e-6 * torch.randn(truth.shape, generator=generator)).clamp(0, 1)


@pytest.mark.parametrize("guess", [noise, low_frequency])
def test_cells_that_tell_nothing_one_by_one(guess: Guess) -> None:
    cells = [played(f"demo:faces?indices={place}", guess, place) for place in range(COUNT)]
    alarms = sum(judge([one], resamples=100).counts["identified"] for one in cells)
    assert alarms <= binom.ppf(0.99, COUNT, 0.05)
    whole = judge(cells, resamples=1000)
    assert whole.counts["identified"] == 0
    assert not any(group.identifying for group in whole.groups)


def test_the_mean_of_a_class_tells_nothing() -> None:
    """One guess for all faces of the audit: the most usual face leads every line-up, and that is no leak."""
    mean = load_data("demo:faces?indices=60-99").inputs.mean(0, keepdim=True)
    cells = [played(f"demo:faces?indices={place}", lambda truth, _: mean, place) for place in range(40)]
    found = judge(cells, resamples=1000)
    assert found.counts["identified"] == 0
    assert not found.groups[0].identifying


def test_batches_of_16_that_tell_nothing() -> None:
    alarms = 0
    for run in range(10):
        chosen = sorted(torch.randperm(1797, generator=rng(run, "digits"))[:16].tolist())
        found = judge([played(f"demo:digits?size=8&indices={','.join(map(str, chosen))}", noise, run)], resamples=300)
        assert len(found.records) == 16
        alarms += found.counts["identified"] > 0 or any(group.identifying for group in found.groups)
    assert alarms <= binom.ppf(0.99, 10, 0.1)


def test_exact_reconstructions_are_all_identified() -> None:
    alone = [played(f"demo:faces?indices={place}", almost, place) for place in range(20)]
    assert judge(alone, resamples=200).counts["identified"] == 20
    assert judge([played("demo:faces?indices=0-15", almost, 0)], resamples=200).counts["identified"] == 16


def test_a_noisy_thumbnail_is_identifying_though_not_pictorial() -> None:
    cells = [played(f"demo:faces?indices={place}", thumbnail, place) for place in range(COUNT)]
    found = judge(cells, resamples=1000)
    (group,) = found.groups
    assert group.identifying
    assert group.first > 0.5 * COUNT > 10 * group.expected
    assert group.median < 15
    assert not any(entry.psnr >= 20 for entry in found.records)
    if not found.counts["identified"]:
        assert "Taken together, though, reconstructions point to private records" in found.sentence


def test_texts_that_come_out_are_identified_and_public_words_are_not() -> None:
    """The demo's notes, with half of the words right, and with the words of other notes."""
    reader = load_tokeniser(DEMO)
    everyone = [plain_tokens(text, reader) for _, text in TEXTS]
    half, other = [], []
    for place in range(12):
        data = f"demo:texts?indices={place}&task=causal"
        decoys = decoys_of(data, "auto", load_texts(data))
        own, stranger = everyone[place], everyone[31 - place]
        for results, guess in ((half, own[::2]), (other, stranger)):
            texts = Texts(guess=(tuple(f" {token}" for token in guess),), truth=(tuple(f" {token}" for token in own),))
            held = replace(record([0.0]), scores=(), control=None, texts=texts)
            results.append(CellResult(cell(data), "ok", record=held, line_ups=line_ups_of(held, decoys)))
    assert judge(half, resamples=500).counts["identified"] == 12
    none = judge(other, resamples=500)
    assert none.counts["identified"] == 0
    assert not none.groups[0].identifying
