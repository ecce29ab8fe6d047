"""april on texts: exact for any transformer whose two embeddings are trained; by the attention's identity where one is not."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("transformers")

from tests.attacks.text_exact_cases import PAD, V, batch, bert, gpt2, noised, seen_of

from leakgauge.attacks.base import Limits
from leakgauge.attacks.text.april import April
from leakgauge.core.reconstruction import Outcome
from leakgauge.core.text_spec import TextSpec
from leakgauge.errors import UnsupportedError
from leakgauge.randomness import rng
from leakgauge.truth import Batch


class Plain(nn.Module):
    """Attention that alone reads the sum of token and position embeddings, a head on the mean."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(V, width), nn.Embedding(16, width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.after, self.norm, self.head = nn.Linear(width, width), nn.LayerNorm(width), nn.Linear(width, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        states = self.tokens(input_ids) + self.positions(torch.arange(input_ids.shape[1], device=input_ids.device))
        scores = self.query(states) @ self.key(states).transpose(1, 2) / states.shape[-1] ** 0.5
        scores = scores.masked_fill(attention_mask[:, None] == 0, float("-inf")).softmax(2)
        mixed = torch.tanh(self.norm(self.after(scores @ self.value(states))))
        kept = attention_mask[..., None].to(mixed.dtype)
        return self.head((mixed * kept).sum(1) / kept.sum(1))


def run(seen):
    return April()(seen, rng(0, "attack"), Limits())


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("withhold", [(), ("tokens.weight",)], ids=["rows", "identity"])
def test_one_text_in_closed_form(seed, withhold):
    torch.manual_seed(seed)
    texts = batch((7,), seed=seed)
    guess = run(seen_of(Plain().eval(), texts, withhold=withhold))
    assert torch.equal(guess.inputs, texts.inputs)
    assert guess.labels.tolist() == texts.labels.tolist()
    assert guess.outcome is Outcome.DETERMINED
    assert guess.explains
    assert bool(guess.certified.all())


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("make", "task"), [(gpt2, "classification"), (gpt2, "causal"), (bert, "classification")])
def test_residuals_and_norms_do_not_matter(make, task, seed):
    texts = batch((9,), task, seed)
    guess = run(seen_of(make(task), texts))
    assert torch.equal(guess.inputs, texts.inputs)
    assert torch.equal(guess.labels, torch.where(texts.inputs == PAD, -100, texts.labels) if task == "causal" else texts.labels)
    assert guess.outcome is Outcome.DETERMINED
    assert bool(guess.certified.all())


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_masked_text_and_what_was_hidden(seed):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(1)
    config = transformers.BertConfig(
        vocab_size=2000, hidden_size=96, num_hidden_layers=2, num_attention_heads=2, intermediate_size=96, pad_token_id=PAD
    )
    config._attn_implementation = "eager"
    ids = torch.randint(2, 2000, (1, 20), generator=rng(seed, "texts"))
    ids[0, 12] = ids[0, 3]
    labels = torch.full_like(ids, -100)
    labels[0, [2, 5, 9]] = ids[0, [2, 5, 9]]
    ids[0, [2, 5, 9]] = 1
    texts = Batch(ids, labels, TextSpec(20, 2000, PAD, "masked"))
    guess = run(seen_of(transformers.BertForMaskedLM(config).eval(), texts))
    assert torch.equal(guess.inputs, ids)
    assert torch.equal(guess.labels, labels)
    assert bool(guess.certified.all())


def test_repeated_tokens_are_told_apart():
    texts = batch((10,))
    ids = torch.tensor([[5, 9, 5, 5, 7, 9, 8, 5, 9, 6]])
    guess = run(seen_of(bert(), dataclasses.replace(texts, inputs=ids)))
    assert torch.equal(guess.inputs, ids)
    assert guess.explains


@pytest.mark.parametrize("training", [{"lr": 0.05, "steps": 4, "momentum": 0.9}, {"lr": 0.1, "clip_norm": 0.01}])
def test_steps_of_sgd_add_up(training):
    texts = batch((8,))
    guess = run(seen_of(gpt2(), texts, **training))
    assert torch.equal(guess.inputs, texts.inputs)
    assert guess.explains


def test_dropout_does_not_matter_and_is_named():
    texts = batch((8,))
    guess = run(seen_of(bert(), texts, mode="train"))
    assert torch.equal(guess.inputs, texts.inputs)
    assert guess.outcome is Outcome.CONVERGED
    assert not guess.certified.any()
    assert "dropout is not known" in guess.stats.notes[-1]


def test_noise_is_called_inconsistent():
    torch.manual_seed(0)
    guess = run(noised(seen_of(Plain().eval(), batch((7,))), 1e-2))
    assert guess.outcome is Outcome.INCONSISTENT
    assert not guess.explains


@pytest.mark.parametrize(
    ("make", "withhold", "words"),
    [
        (bert, "bert.embeddings.word_embeddings.weight", "a residual connection or a norm"),
        (gpt2, "transformer.wte.weight", "a residual connection or a norm"),
        (gpt2, "transformer.wpe.weight", "learnable position embedding"),
    ],
)
def test_what_was_not_shared_is_missed(make, withhold, words):
    with pytest.raises(UnsupportedError, match=words):
        run(seen_of(make(), batch((7,)), withhold=(withhold,)))


def test_two_texts_and_adam_are_refused():
    with pytest.raises(UnsupportedError, match="it reads one example, and the batch has 2"):
        run(seen_of(gpt2(), batch((7, 6))))
    with pytest.raises(UnsupportedError, match="divides every number by its own size"):
        run(seen_of(gpt2(), batch((7,)), lr=0.01, optimiser="adam"))
    with pytest.raises(UnsupportedError, match="learnable position embedding"):
        run(seen_of(Plain().eval(), batch((7,)), frozen=True))
