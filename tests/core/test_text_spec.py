"""Texts as batches: padding is masked, the causal shift is the loss's, and the update equals Hugging Face's own gradient."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from leakgauge.core import ThreatModel
from leakgauge.core.observation import Observation
from leakgauge.core.spec import spec_from_json
from leakgauge.core.text_spec import TextSpec
from leakgauge.errors import OptionError, ShapeError
from leakgauge.federated.client import Client
from leakgauge.federated.validation.validate import validate
from leakgauge.randomness import rng
from leakgauge.truth import Batch

transformers = pytest.importorskip("transformers")
V, L = 60, 8


def network(task: str) -> torch.nn.Module:
    torch.manual_seed(0)
    if task == "causal":
        config = transformers.GPT2Config(
            vocab_size=V, n_embd=16, n_layer=2, n_head=2, n_positions=16, bos_token_id=1, eos_token_id=1
        )  # fmt: skip
        config._attn_implementation = "eager"
        return transformers.GPT2LMHeadModel(config).eval()
    config = transformers.BertConfig(
        vocab_size=V, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, num_labels=3
    )  # fmt: skip
    config._attn_implementation = "eager"
    kind = transformers.BertForMaskedLM if task == "masked" else transformers.BertForSequenceClassification
    return kind(config).eval()


def batch(task: str) -> Batch:
    ids = torch.randint(5, V, (3, L), generator=rng(0, "ids"))
    ids[1, 5:] = 0
    labels = {"causal": ids.clone(), "classification": torch.tensor([0, 2, 1]), "masked": torch.full((3, L), -100)}[task]
    if task == "masked":
        labels[:, 2], labels[0, 4] = ids[:, 2], ids[0, 4]
    return Batch(ids, labels, TextSpec(L, V, 0, task))


@pytest.mark.parametrize("task", ["masked", "classification", "causal"])
def test_the_update_is_the_gradient_that_transformers_itself_gives(task, tmp_path):
    model, texts = network(task), batch(task)
    update = Client(model).train(texts)
    mask = (texts.inputs != 0).long()
    labels = torch.where(mask == 0, -100, texts.labels) if task == "causal" else texts.labels
    model(input_ids=texts.inputs, attention_mask=mask, labels=labels).loss.backward()
    for name, parameter in model.named_parameters():
        assert torch.allclose(update.tensors[name], parameter.grad, atol=1e-7), name
    model.zero_grad()
    seen = ThreatModel.honest_but_curious().observe(update, model, texts.spec)
    seen.save(tmp_path / "seen.safetensors")
    again = Observation.load(tmp_path / "seen.safetensors", model)
    assert again.spec == texts.spec
    assert again.pictures is None
    assert validate(again, model, texts).agrees


def test_a_truth_of_texts_survives_its_file(tmp_path):
    texts = batch("masked")
    texts = dataclasses.replace(texts, inputs=texts.model_inputs)
    texts.save(tmp_path / "truth.safetensors")
    again = Batch.load(tmp_path / "truth.safetensors")
    assert again.spec == texts.spec
    assert all(torch.equal(tensor, again.inputs[name]) for name, tensor in texts.inputs.items())


def test_padding_is_hidden_and_not_predicted():
    texts = batch("causal")
    assert torch.equal(texts.model_inputs["attention_mask"], (texts.inputs != 0).long())
    assert bool((texts.model_labels[1, 5:] == -100).all())
    unpadded = dataclasses.replace(texts, spec=TextSpec(L, V, None, "causal"))
    assert bool((unpadded.model_inputs["attention_mask"] == 1).all())


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: TextSpec(0, 5), OptionError, "TextSpec.length is 0"),
        (lambda: TextSpec(4, 5, 5), OptionError, "a token id from 0 to 4"),
        (lambda: TextSpec(4, 5, task="translation"), OptionError, "masked, classification, causal"),
        (lambda: Batch(torch.zeros(2, 5, dtype=torch.int64), torch.zeros(2), TextSpec(4, 9)), ShapeError, r"\(N, 4\)"),
        (lambda: Batch(torch.full((2, 4), 9), torch.zeros(2), TextSpec(4, 9)), ShapeError, "the vocabulary has 9"),
        (lambda: Batch({"ids": torch.zeros(2, 4).long()}, torch.zeros(2), TextSpec(4, 9)), ShapeError, "no 'input_ids'"),
        (lambda: spec_from_json({"type": "sound"}), OptionError, "'image' or 'text'"),
    ],
)
def test_what_is_no_text_is_refused(make, error, words):
    with pytest.raises(error, match=words):
        make()
