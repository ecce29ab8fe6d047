"""Rule 1 for attacks on texts: what they see holds no text and no seed, and nothing else decides their result."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from test_april import Plain
from test_rule_one import CLIENT_SEED, DEFENCE_SEED, NAME, TEXT, holds, refuse_seeds_and_names
from text_exact_cases import batch, gpt2
from torch import nn

import leakgauge as lg
from leakgauge.randomness import rng


def network(name: str) -> nn.Module:
    return Plain() if name == "april" else gpt2()


def planted(name: str, client_seed: int = CLIENT_SEED) -> tuple[lg.Observation, lg.Batch]:
    """One text (what all of them treat), noised by nothing that could be seen."""
    texts = dataclasses.replace(batch((7,), length=7, padding=None), names=(NAME,))
    model = network(name)
    update = lg.Client(model).train(texts, seed=client_seed)
    update = lg.GaussianNoise(std=1e-12).protect(update, generator=rng(DEFENCE_SEED, "defence"))
    return lg.ThreatModel.honest_but_curious(labels=False).observe(update, model, texts.spec), texts


def test_every_attack_on_texts_is_tried() -> None:
    assert {"april", "bag-of-tokens", "dlg-text", "lamp", "span-check", "tag"} <= TEXT


@pytest.mark.parametrize("name", sorted(TEXT))
def test_what_an_attack_sees_holds_neither_text_nor_seed(name: str) -> None:
    seen, texts = planted(name)
    inputs = texts.model_inputs
    assert isinstance(inputs, dict)
    assert refuse_seeds_and_names(seen) > 50
    assert not holds(seen, [inputs["input_ids"]])
    guess = lg.attack(seen, name, seed=7, budget=30, device="cpu")
    assert refuse_seeds_and_names(guess) > 15
    assert refuse_seeds_and_names(seen) > 50, "nor does the attack leave anything behind in it"
    assert not holds(seen, [inputs["input_ids"]])
    assert (guess.stats.seed, guess.attack) == (7, name)


@pytest.mark.parametrize("name", sorted(TEXT))
def test_an_attack_sees_nothing_but_its_arguments(name: str) -> None:
    """Two observations with the same content, from clients with other seeds, give one result bit for bit."""
    one, other = (lg.attack(planted(name, seed)[0], name, seed=5, budget=30, device="cpu") for seed in (1, 2))
    assert torch.equal(one.inputs, other.inputs)
    assert one.outcome is other.outcome
    assert one.stats.evaluations == other.stats.evaluations


@pytest.mark.parametrize("name", sorted(TEXT))
def test_every_result_keeps_its_contract(name: str) -> None:
    seen, texts = planted(name)
    guess = lg.attack(seen, name, budget=30, device="cpu")
    count = len(guess)
    assert guess.inputs.ndim == 2
    assert guess.inputs.dtype is torch.int64
    assert bool((guess.inputs >= 0).all() and (guess.inputs < texts.spec.vocabulary).all())
    assert guess.certified.shape == guess.confidence.shape == (count,)
    assert bool(((guess.confidence >= 0) & (guess.confidence <= 1)).all())
    assert guess.explains or not guess.certified.any()
    assert guess.labels is None or len(guess.labels) == count
