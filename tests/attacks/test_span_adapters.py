"""span-check where little is trained: LoRA, bottleneck adapters, the head alone, frozen parts; and clients with dropout."""

from __future__ import annotations

import pytest
import torch
from torch import nn

pytest.importorskip("transformers")

from tests.attacks.text_adapter_cases import by_hand, by_peft, frozen, observed, started, with_bottlenecks
from tests.attacks.text_exact_cases import batch, bert, gpt2, rows

from leakgauge.attacks.base import Limits
from leakgauge.attacks.text.span.attack import SpanCheck
from leakgauge.core.observation import Observation
from leakgauge.core.reconstruction import Outcome, Reconstruction
from leakgauge.core.text_spec import TextSpec
from leakgauge.randomness import rng
from leakgauge.truth import Batch


def attacked(seen: Observation) -> Reconstruction:
    return SpanCheck()(seen, rng(0, "attack"), Limits())


@pytest.mark.parametrize("make", [by_hand, by_peft])
@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize("lengths", [(9,), (8, 5)])
def test_lora_is_read_below_the_adapters_rank(make, moved, lengths):
    if make is by_peft:
        pytest.importorskip("peft")
    model = make(gpt2(layers=3), 20)
    model = started(model) if moved else model
    texts = batch(lengths)
    seen = observed(model, texts)
    ahead = next(tensor for name, tensor in seen.tensors.items() if "lora_A" in name or "down" in name)
    assert bool((ahead == 0).all()) is not moved  # with B = 0 nothing reaches A
    guess = attacked(seen)
    assert rows(guess.inputs) == rows(texts.inputs)
    assert guess.outcome is Outcome.DETERMINED
    assert bool(guess.certified.all())


def test_a_rank_below_the_tokens_is_the_wall():
    for model in (by_hand(gpt2(layers=3), 8), started(by_hand(gpt2(layers=3), 8))):
        guess = attacked(observed(model, batch((10, 9, 8))))
        assert guess.outcome is Outcome.UNDERDETERMINED
        assert len(guess.inputs) == 0
        assert "the adapter's rank is the wall, not the width of 48" in guess.stats.cause
        assert "at most rank 8" in guess.stats.cause


def test_two_adapted_blocks_of_a_classifier_give_one_text_but_not_two():
    one, two = batch((9,)), batch((8, 5))
    guess = attacked(observed(by_hand(gpt2(), 20), one))
    assert rows(guess.inputs) == rows(one.inputs)
    assert guess.explains
    guess = attacked(observed(by_hand(gpt2(), 20), two))
    assert guess.outcome is Outcome.UNDERDETERMINED
    assert guess.stats.cause


def test_the_last_token_under_lora_needs_an_adapter_behind_the_last_attention():
    texts = batch((8, 5), "causal")
    assert rows(attacked(observed(by_hand(gpt2("causal"), 20, mlp=True), texts)).inputs) == rows(texts.inputs)
    guess = attacked(observed(by_hand(gpt2("causal"), 20), texts))
    assert guess.outcome is Outcome.UNDERDETERMINED
    assert "texts end one token early" in guess.stats.cause
    for row, length in ((0, 7), (1, 4)):
        assert tuple(texts.inputs[row, :length].tolist()) in {tuple(each[each != 0].tolist()) for each in guess.inputs}


def test_bottleneck_adapters_are_read_by_prefixes_alone():
    texts = batch((8, 5))
    guess = attacked(observed(with_bottlenecks(gpt2(layers=3), 24), texts))
    assert rows(guess.inputs) == rows(texts.inputs), guess.stats
    assert guess.explains
    guess = attacked(observed(with_bottlenecks(gpt2(layers=3), 6), texts))
    assert not guess.explains and not bool(guess.certified.any())
    assert guess.outcome is Outcome.UNDERDETERMINED
    assert "either rank 6 is too low for the tokens of the batch" in guess.stats.cause


@pytest.mark.parametrize("make", [gpt2, bert])
def test_the_head_alone_tells_no_tokens(make):
    model = frozen(make())
    head = model.score if make is gpt2 else model.classifier
    for parameter in head.parameters():
        parameter.requires_grad_(True)
    guess = attacked(observed(model, batch((8, 5))))
    assert guess.outcome is Outcome.UNDERDETERMINED
    assert len(guess.inputs) == 0
    assert "No linear layer that sees" in guess.stats.cause


@pytest.mark.parametrize("embeddings", [False, True])
@pytest.mark.parametrize("tied", [False, True])
def test_embeddings_frozen_or_trained_tied_or_not(embeddings, tied):
    model = gpt2("causal")
    if not tied:
        model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
    for part in (model.transformer.wte, model.transformer.wpe):
        part.weight.requires_grad_(embeddings)
    texts = batch((8, 5, 7), "causal")
    guess = attacked(observed(model, texts))
    assert rows(guess.inputs) == rows(texts.inputs)
    assert guess.explains


def test_dropout_of_the_client_is_named():
    texts = batch((8, 5))
    model = gpt2()
    guess = attacked(observed(model, texts, mode="train"))
    assert guess.outcome is Outcome.INCONSISTENT
    assert not bool(guess.certified.any()) and not guess.explains
    assert "trained with dropout (p 0.1)" in guess.stats.cause
    for part in model.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    guess = attacked(observed(model, texts, mode="train"))
    assert rows(guess.inputs) == rows(texts.inputs)
    assert guess.explains


def test_a_masked_model_needs_granted_labels_to_explain_the_update():
    texts = batch((9,))
    ids, labels = texts.inputs.clone(), torch.full_like(texts.inputs, -100)
    for place in (2, 5):
        labels[0, place], ids[0, place] = ids[0, place], 1
    masked = Batch(ids, labels, TextSpec(10, texts.spec.vocabulary, 0, "masked"))
    guess = attacked(observed(bert("masked"), masked, labels=True))
    assert rows(guess.inputs) == rows(ids)
    assert guess.explains and bool(guess.certified.all())
    guess = attacked(observed(bert("masked"), masked))
    assert rows(guess.inputs) == rows(ids)
    assert not guess.explains and not bool(guess.certified.any())
    assert guess.outcome is Outcome.UNDERDETERMINED
