"""dlg-text, tag and lamp on small networks: texts, labels and lengths come back, and what cannot be is refused."""

from __future__ import annotations

import pytest
import torch
from text_matching_cases import MASK, V, batch, bert, gpt2, observe, transformers, withheld

from leakgauge.attacks.base import Limits
from leakgauge.attacks.text.matching.presets import dlg_text, lamp, tag
from leakgauge.core.reconstruction import Outcome, Reconstruction
from leakgauge.errors import OptionError, UnsupportedError
from leakgauge.randomness import rng
from leakgauge.truth import Batch

PUBLISHED = {"distance": "l2", "start": "noise", "span": False, "positions": False, "snap": False, "discrete": False, "rounds": 1}


def attacked(attack, seen, budget: int | str = 400) -> Reconstruction:
    return attack(seen, rng(0, "attack"), Limits(budget))


def right(guess: Reconstruction, texts: Batch) -> bool:
    """Whether all texts came back, in any order, with their labels."""
    assert guess.labels is not None
    truth = sorted((row.tolist(), label.tolist()) for row, label in zip(texts.inputs, texts.model_labels, strict=True))
    return truth == sorted((row.tolist(), label.tolist()) for row, label in zip(guess.inputs, guess.labels, strict=True))


@pytest.mark.parametrize("options", [{}, {"start": "noise"}, {"start": "noise", "span": False}], ids=str)
def test_a_masked_text_with_frozen_embeddings_comes_back_whole(options: dict) -> None:
    texts = batch("masked", length=8)
    guess = attacked(dlg_text(**options), observe(bert(width=64), texts))
    assert right(guess, texts)
    assert guess.explains
    assert guess.outcome is Outcome.CONVERGED
    assert (guess.inputs[0] == MASK).sum() == 2
    assert 0 < guess.stats.evaluations <= 410
    assert "were granted" in " ".join(guess.stats.notes)


@pytest.mark.parametrize("start", ["span", "noise"])
def test_the_length_of_a_padded_text_is_read_off(start: str) -> None:
    texts = batch("masked", padding=0, predicted=1)
    guess = attacked(dlg_text(start=start), observe(bert(width=64), texts))
    assert right(guess, texts)


@pytest.mark.parametrize("count", [1, 2])
def test_classification(count: int) -> None:
    texts = batch("classification", count)
    guess = attacked(dlg_text(), observe(bert("classification"), texts), 2000)
    assert right(guess, texts)
    assert guess.explains


@pytest.mark.parametrize(("count", "padding"), [(1, None), (1, 0), (2, None)])
def test_causal(count: int, padding: int | None) -> None:
    texts = batch("causal", count, padding=padding)
    guess = attacked(dlg_text(), observe(gpt2(), texts), 2000)
    assert right(guess, texts)
    assert guess.explains


def test_two_masked_texts_of_different_lengths() -> None:
    texts = batch("masked", 2, padding=0, predicted=1)
    guess = attacked(dlg_text(), observe(bert(), texts), 3000)
    assert right(guess, texts)
    assert guess.explains


def test_weight_changes_are_matched_too() -> None:
    texts = batch("masked")
    guess = attacked(dlg_text(), observe(bert(), texts, lr=1.0))
    assert right(guess, texts)


def test_without_the_first_attention_layer_there_is_less_to_match_and_no_claim() -> None:
    texts = batch("masked", length=6, predicted=1)
    seen = withheld(observe(bert(width=64), texts), "encoder.layer.0.attention.self")
    guess = attacked(dlg_text(), seen, 60)
    assert guess.explains == right(guess, texts)
    assert any("No span" in note for note in guess.stats.notes)


def test_a_trained_embedding_leaves_a_bag_and_is_checked_at_the_end() -> None:
    texts = batch("masked")
    seen = observe(bert(frozen=False, tied=False), texts)
    guess = attacked(dlg_text(), seen)
    assert right(guess, texts)
    assert guess.explains
    assert any("Bag of tokens" in note for note in guess.stats.notes)
    assert not any("Bag of tokens" in note for note in attacked(dlg_text(bag="off"), seen).stats.notes)


def test_granted_labels_are_used() -> None:
    texts = batch("masked")
    guess = attacked(dlg_text(), observe(bert(), texts, labels=True))
    assert right(guess, texts)
    assert "Labels were granted by the threat model." in guess.stats.notes


@pytest.mark.parametrize("attack", [dlg_text(**PUBLISHED), tag(), lamp()], ids=["dlg-text", "tag", "lamp"])
def test_the_published_forms_run_within_their_budget_and_lower_the_objective(attack) -> None:
    texts = batch("masked", predicted=1)
    seen = observe(bert(), texts)
    short, longer = attacked(attack, seen, 5), attacked(attack, seen, 120)
    assert longer.stats.evaluations <= 150
    assert longer.stats.objective <= short.stats.objective
    assert longer.inputs.shape == texts.inputs.shape
    assert longer.inputs.dtype == torch.int64
    assert not any("Beyond the published" in note for note in longer.stats.notes)


@pytest.mark.parametrize("attack", [tag(), lamp()], ids=["tag", "lamp"])
def test_tag_and_lamp_find_most_tokens_in_their_own_setting(attack) -> None:
    texts = batch("classification", length=8)
    seen = observe(bert("classification", frozen=False, width=64), texts)
    assert int((attacked(attack, seen, 200).inputs == texts.inputs).sum()) >= 5  # one in 200 by chance


def test_the_same_seed_gives_the_same_result() -> None:
    seen = observe(bert(), batch("masked"))
    first, second = (attacked(lamp(), seen, 40) for _ in range(2))
    assert torch.equal(first.inputs, second.inputs)
    assert first.stats.objective == second.stats.objective


def test_a_clock_that_has_run_out_ends_the_search() -> None:
    seen = observe(bert(), batch("masked"))
    guess = dlg_text(start="noise", span=False)(seen, rng(0, "attack"), Limits("max", time_limit=1e-3))
    assert guess.outcome is Outcome.TIMEOUT


def test_a_zero_update_says_nothing() -> None:
    seen = observe(bert(), batch("masked"))
    for tensor in seen.tensors.values():
        tensor.zero_()
    assert attacked(dlg_text(), seen).outcome is Outcome.NO_GRADIENT_SIGNAL


def test_what_cannot_be_matched_is_refused_in_a_sentence() -> None:
    seen = observe(bert(), batch("masked"))
    with pytest.raises(UnsupportedError, match="last layer's bias gradient was not shared"):
        attacked(dlg_text(), withheld(seen, "cls.predictions"))
    with pytest.raises(UnsupportedError, match="needs a TextSpec"):
        object.__setattr__(seen, "spec", None)
        attacked(dlg_text(), seen)


class OnlyIds(torch.nn.Module):
    """A network that takes token ids and no embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = bert("classification")

    def forward(self, input_ids, attention_mask):
        return self.inner(input_ids=input_ids, attention_mask=attention_mask).logits


def test_a_network_without_inputs_embeds_is_refused() -> None:
    seen = observe(OnlyIds(), batch("classification"))
    with pytest.raises(UnsupportedError, match="inputs_embeds"):
        attacked(dlg_text(start="noise"), seen)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: dlg_text(start="grey"), "expected one of span, tokens, noise"),
        (lambda: dlg_text(distance="l3"), "no distance 'l3' for text"),
        (lambda: lamp(rounds=0), "rounds must be at least 1"),
        (lambda: dlg_text(bag="full"), "expected auto or off"),
    ],
)
def test_options_are_checked(make, words) -> None:
    with pytest.raises(OptionError, match=words):
        make()


def test_a_language_model_of_the_same_vocabulary_is_a_prior(tmp_path) -> None:
    gpt2().save_pretrained(tmp_path / "prior")
    seen = observe(bert(), batch("masked", predicted=1))
    guess = attacked(lamp(prior=f"hf:{tmp_path / 'prior'}", rearrange=2), seen, 30)
    assert guess.inputs.shape == (1, 9)
    other = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=V + 1, n_embd=8, n_layer=1, n_head=1))
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(UnsupportedError, match="needs the same tokeniser"):
        attacked(lamp(prior=f"hf:{tmp_path / 'other'}"), seen, 10)
