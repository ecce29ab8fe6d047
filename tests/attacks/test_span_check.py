"""span-check: every sequence exactly, labels joined, what cannot be explained is called so, what does not fit refused."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

pytest.importorskip("transformers")

from tests.attacks.text_exact_cases import PAD, V, batch, bert, gpt2, noised, rows, seen_of

from leakgauge.attacks.base import Limits
from leakgauge.attacks.text.check import tolerance
from leakgauge.attacks.text.span.attack import SpanCheck
from leakgauge.core.reconstruction import Outcome, Reconstruction
from leakgauge.core.text_spec import TextSpec
from leakgauge.errors import UnsupportedError
from leakgauge.randomness import rng
from leakgauge.truth import Batch


def attacked(seen, **limits) -> Reconstruction:
    return SpanCheck()(seen, rng(0, "attack"), Limits(**limits))


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("task", ["classification", "causal"])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_decoder_gives_every_sequence_exactly(task, frozen, seed):
    texts = batch((8, 5, 10, 6), task, seed)
    guess = attacked(seen_of(gpt2(task), texts, frozen=frozen))
    assert rows(guess.inputs) == rows(texts.inputs)
    assert guess.outcome is Outcome.DETERMINED
    assert guess.explains and bool(guess.certified.all())
    if task == "classification":
        truth = {tuple(row): int(label) for row, label in zip(texts.inputs.tolist(), texts.labels, strict=True)}
        assert [truth[tuple(row)] for row in guess.inputs.tolist()] == guess.labels.tolist()


def test_an_untied_head_gives_the_last_tokens_too():
    model = gpt2("causal")
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
    texts = batch((8, 5, 7), "causal")
    assert rows(attacked(seen_of(model, texts)).inputs) == rows(texts.inputs)


def test_a_text_that_continues_another_and_equal_texts_are_counted():
    texts = batch((8, 5, 6))
    texts.inputs[1] = 0
    texts.inputs[1, :4] = texts.inputs[0, :4]
    twice = dataclasses.replace(texts, inputs=texts.inputs[[0, 1, 2, 2]], labels=torch.tensor([0, 1, 2, 2]))
    for each in (texts, Batch(texts.inputs[[0, 2, 2]], torch.tensor([0, 2, 2]), texts.spec), twice):
        guess = attacked(seen_of(gpt2(), each))
        assert rows(guess.inputs) == rows(each.inputs), guess.stats.notes
        assert guess.explains
        assert not bool(guess.certified.any())  # the enumeration alone did not give this set


def test_a_trained_network_with_shifted_norms_is_read_too():
    model = gpt2()
    generator = torch.Generator().manual_seed(3)
    for part in model.modules():
        if isinstance(part, nn.LayerNorm):
            part.weight.data += 0.2 * torch.randn(part.weight.shape, generator=generator)
            part.bias.data += 0.2 * torch.randn(part.bias.shape, generator=generator)
    texts = batch((8, 5, 10, 6))
    guess = attacked(seen_of(model, texts))
    assert rows(guess.inputs) == rows(texts.inputs)


def test_an_encoder_gives_one_text_for_certain_and_several_by_search():
    texts = batch((9,))
    guess = attacked(seen_of(bert(), texts, frozen=True))
    assert rows(guess.inputs) == rows(texts.inputs)
    assert bool(guess.certified.all()) and guess.labels.tolist() == texts.labels.tolist()
    texts = batch((9, 7), seed=2)
    texts.inputs[0, 8] = texts.inputs[1, 6] = 1  # a common end, as [SEP]
    guess = attacked(seen_of(bert(), texts))
    assert rows(guess.inputs) == rows(texts.inputs)
    assert guess.explains and not bool(guess.certified.any())


@pytest.mark.parametrize("training", [{"lr": 0.1}, {"lr": 0.1, "steps": 3}, {"clip_norm": 1e-2}, {"reduction": "sum"},
                                      {"lr": 0.1, "weight_decay": 0.01}, {"dtype": "float64"}])  # fmt: skip
def test_protocols_whose_gradients_add_up(training):
    texts = batch((8, 5, 6))
    guess = attacked(seen_of(gpt2(width=64), texts, **training))
    assert rows(guess.inputs) == rows(texts.inputs)
    assert guess.explains


def test_noise_and_rounding_are_called_inconsistent_and_past_the_wall_is_said():
    texts = batch((8, 5, 6))
    clean = seen_of(gpt2(), texts)
    for share in (1e-4, 1e-3, 1e-2, 1.0):
        guess = attacked(noised(clean, share))
        assert guess.outcome is Outcome.INCONSISTENT
        assert not guess.explains and not bool(guess.certified.any())
    assert rows(attacked(noised(clean, 1e-6)).inputs) == rows(texts.inputs)
    half = dataclasses.replace(clean, tensors={name: tensor.half().float() for name, tensor in clean.tensors.items()})
    guess = attacked(half)
    assert guess.outcome is Outcome.INCONSISTENT
    assert not guess.explains
    many = batch((10,) * 6)
    guess = attacked(seen_of(gpt2(), many))
    assert guess.outcome is Outcome.UNDERDETERMINED
    assert len(guess.inputs) == 0
    assert "as many tokens as the layer is wide (48)" in guess.stats.cause


def test_a_small_learning_rate_leaves_the_rounding_of_stored_weights():
    texts = batch((8, 5, 6))
    for lr, explains in ((0.1, True), (0.01, True), (1e-6, False)):
        seen = seen_of(gpt2(), texts, lr=lr)
        guess = attacked(seen)
        assert guess.explains is explains
        assert (rows(guess.inputs) == rows(texts.inputs)) is explains
        assert tolerance(seen) >= 2e-5
    assert tolerance(seen_of(gpt2(), texts, lr=1e-4)) > 5 * tolerance(seen_of(gpt2(), texts, lr=0.01))
    assert tolerance(seen_of(gpt2(), texts)) == 2e-5
    exact = seen_of(gpt2(), texts, lr=1e-6, dtype="float64")
    assert rows(attacked(exact).inputs) == rows(texts.inputs)


@pytest.mark.parametrize("share", [1e-5, 1e-4, 1e-3, 1e-2])
def test_noise_never_certifies_a_wrong_text(share):
    for seed in range(3):
        texts = batch((8, 5, 6), seed=seed)
        guess = attacked(noised(seen_of(gpt2(), texts), share))
        sure = {tuple(row) for row, kept in zip(guess.inputs.tolist(), guess.certified.tolist(), strict=True) if kept}
        assert sure <= set(rows(texts.inputs))
        assert guess.outcome is (Outcome.DETERMINED if share == 1e-5 else Outcome.INCONSISTENT)


def test_a_head_that_stays_with_the_client_hides_no_labels():
    texts = batch((8, 5, 6))
    guess = attacked(seen_of(gpt2(), texts, withhold=("score.weight",)))
    assert rows(guess.inputs) == rows(texts.inputs)
    assert guess.explains


def test_what_does_not_fit_is_refused_in_one_sentence():
    texts = batch((8, 5))
    with pytest.raises(UnsupportedError, match="the optimiser adam divides"):
        attacked(seen_of(gpt2(), texts, lr=0.1, optimiser="adam"))
    with pytest.raises(UnsupportedError, match="TextSpec"):
        attacked(dataclasses.replace(seen_of(gpt2(), texts), spec=None))
    with pytest.raises(UnsupportedError, match=r"up to 40 tokens and the network has positions for 16"):
        attacked(dataclasses.replace(seen_of(gpt2(), texts), spec=TextSpec(40, V, PAD)))
    with pytest.raises(UnsupportedError, match="called with 'input_ids' and 'attention_mask' it fails"):
        model, tensors = nn.Sequential(nn.Embedding(V, 8)), {"0.weight": torch.ones(V, 8)}
        attacked(dataclasses.replace(seen_of(gpt2(), texts), model=model, tensors=tensors, withheld=()))


def test_nothing_shared_and_the_clock():
    texts = batch((8, 5))
    seen = seen_of(gpt2(), texts)
    silent = dataclasses.replace(seen, tensors={name: torch.zeros_like(tensor) for name, tensor in seen.tensors.items()})
    assert attacked(silent).outcome is Outcome.NO_GRADIENT_SIGNAL
    assert attacked(seen, time_limit=1e-6).outcome is Outcome.TIMEOUT
