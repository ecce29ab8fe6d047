"""bag-of-tokens: the exact set where embeddings train, tied or not; refused where they do not."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("transformers")

from tests.attacks.text_exact_cases import PAD, V, batch, bert, gpt2, noised, seen_of

from leakgauge.attacks.base import Limits
from leakgauge.attacks.text.bag import BagOfTokens
from leakgauge.core.reconstruction import Outcome
from leakgauge.core.text_spec import TextSpec
from leakgauge.errors import UnsupportedError
from leakgauge.randomness import rng
from leakgauge.truth import Batch


def bag(seen):
    return BagOfTokens()(seen, rng(0, "attack"), Limits())


def tokens(ids) -> set[int]:
    return set(ids.flatten().tolist()) - {PAD}


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("make", [gpt2, bert])
def test_the_set_is_exact_at_batch_sixteen(make, seed):
    texts = batch((3, 5, 2, 4) * 4, seed=seed)
    guess = bag(seen_of(make(), texts))
    assert tokens(guess.inputs) == tokens(texts.inputs)
    assert guess.outcome is Outcome.UNDERDETERMINED
    assert "The longest text has 5 tokens" in guess.stats.notes[-1]


def test_an_embedding_tied_to_the_head():
    texts = batch((8, 5, 6), "causal")
    assert tokens(bag(seen_of(gpt2("causal", width=64), texts)).inputs) == tokens(texts.inputs)
    ids = batch((8, 6)).inputs
    labels = torch.full_like(ids, -100)
    labels[:, 2] = ids[:, 2]
    ids[:, 2] = 1
    masked = Batch(ids, labels, TextSpec(10, V, PAD, "masked"))
    assert tokens(bag(seen_of(bert("masked"), masked)).inputs) == tokens(ids)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_tied_embedding_past_the_wall(seed):
    """100 tokens and 11 predictions, 64 wide: no room in the first layer; rows tell what was read or predicted."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(1)
    config = transformers.BertConfig(
        vocab_size=2000, hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128, pad_token_id=PAD
    )
    ids = torch.randint(2, 2000, (12, 10), generator=rng(seed, "texts"))
    ids[:, 4] = 7  # a token that stands everywhere, is predicted once and hidden once
    labels = torch.full_like(ids, -100)
    labels[:10, 2] = ids[:10, 2]
    labels[0, 4] = 7
    kept = ids[:10].clone()
    inputs = torch.where(labels >= 0, 1, ids)
    guess = bag(seen_of(transformers.BertForMaskedLM(config).eval(), Batch(inputs, labels, TextSpec(10, 2000, PAD, "masked"))))
    assert tokens(guess.inputs) == tokens(kept) | {1}, "two texts without a predicted token are not in it"
    assert "rows that stick out" in guess.stats.notes[1]
    assert "cause no gradient" in guess.stats.notes[1]


def test_noise_is_seen_and_frozen_embeddings_are_refused():
    texts = batch((3, 2))
    assert bag(noised(seen_of(gpt2(), texts), 1e-3)).outcome is Outcome.INCONSISTENT
    with pytest.raises(UnsupportedError, match="was not trained or not shared"):
        bag(seen_of(gpt2(), texts, frozen=True))


def test_without_a_padding_token_nothing_is_added_to_the_set():
    texts = batch((10, 10), padding=None)
    assert set(bag(seen_of(gpt2(), texts)).inputs.flatten().tolist()) == set(texts.inputs.flatten().tolist())
