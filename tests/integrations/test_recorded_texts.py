"""Recordings of text models: `validate` agrees, attacks on texts read them, whoever recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import leakgauge as lg
from leakgauge.attacks.base import Limits
from leakgauge.attacks.text.span.attack import SpanCheck
from leakgauge.errors import IntegrationError
from leakgauge.integrations.recording.exchange import Exchange
from leakgauge.integrations.recording.recorder import Recorder

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")

V, PAD = 97, 0
SPEC = lg.TextSpec(8, V, PAD, "classification")


def gpt2(task: str = "classification") -> nn.Module:
    torch.manual_seed(1)
    config = transformers.GPT2Config(
        vocab_size=V, n_embd=48, n_layer=2, n_head=2, n_positions=16, pad_token_id=PAD, num_labels=3, bos_token_id=1,
        eos_token_id=1, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    config._attn_implementation = "eager"
    return (transformers.GPT2LMHeadModel if task == "causal" else transformers.GPT2ForSequenceClassification)(config)


def texts() -> tuple[dict[str, Tensor], Tensor]:
    ids = torch.randint(2, V, (3, 8), generator=lg.rng(0, "texts"))
    ids[1, 5:], ids[2, 6:] = PAD, PAD
    return {"input_ids": ids, "attention_mask": (ids != PAD).long()}, torch.tensor([0, 2, 1])


def rows(ids: Tensor) -> list[list[int]]:
    return sorted(ids.tolist())


def checked(folder: Path, task: str = "classification") -> lg.Observation:
    """The files as a later process reads them: the truth explains the update, and span-check finds it."""
    seen = lg.Observation.load(folder / "seen", gpt2(task))
    truth = lg.Batch.load(folder / "truth")
    assert isinstance(truth.spec, lg.TextSpec)
    assert lg.validate(seen, gpt2(task), truth).agrees
    guess = SpanCheck()(seen, lg.rng(0, "attack"), Limits())
    assert rows(guess.inputs) == rows(truth.model_inputs["input_ids"])
    assert guess.explains
    return seen


def test_a_loop_with_inputs_by_name(tmp_path: Path) -> None:
    model, (inputs, labels) = gpt2(), texts()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    with lg.record(model, spec=SPEC, out=tmp_path / "seen", truth=tmp_path / "truth") as recorder:
        loss = nn.functional.cross_entropy(model(**inputs).logits, labels)
        recorder.batch(inputs, labels)
        loss.backward()
        optimiser.step()
    assert checked(tmp_path).spec == SPEC


def test_a_causal_model_that_shifts_its_own_labels(tmp_path: Path) -> None:
    model, (inputs, _) = gpt2("causal"), texts()
    inputs = {name: tensor[:1] for name, tensor in inputs.items()}
    with lg.record(model, spec=lg.TextSpec(8, V, PAD, "causal"), out=tmp_path / "seen", truth=tmp_path / "truth"):
        model(**inputs, labels=inputs["input_ids"]).loss.backward()
    assert checked(tmp_path, "causal").loss == "causal_cross_entropy"


def test_texts_padded_anew_in_each_mini_batch(tmp_path: Path) -> None:
    inputs, labels = texts()

    def loop(spec: lg.TextSpec | None) -> None:
        model = gpt2()
        optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
        with lg.record(model, spec=spec, out=tmp_path / "seen", truth=tmp_path / "truth") as recorder:
            for row, length in enumerate((8, 5, 6)):
                given = {name: tensor[row : row + 1, :length] for name, tensor in inputs.items()}
                recorder.batch(given, labels[row : row + 1])
                nn.functional.cross_entropy(model(**given).logits, labels[row : row + 1]).backward()
            optimiser.step()

    loop(SPEC)
    truth = lg.Batch.load(tmp_path / "truth")
    assert torch.equal(truth.model_inputs["input_ids"], inputs["input_ids"])
    assert torch.equal(truth.model_inputs["attention_mask"], inputs["attention_mask"])
    with pytest.raises(IntegrationError, match="examples differ in length"):
        loop(None)


def test_the_trainer_callback(tmp_path: Path) -> None:
    pytest.importorskip("accelerate", reason="Trainer needs accelerate")
    from leakgauge.integrations.transformers import RecordCallback

    inputs, labels = texts()
    examples = [{name: tensor[row] for name, tensor in inputs.items()} | {"labels": int(labels[row])} for row in range(3)]
    callback = RecordCallback(tmp_path / "seen", truth=tmp_path / "truth", spec=SPEC)
    settings: dict[str, Any] = {"optim": "sgd", "learning_rate": 0.1, "max_grad_norm": 0.0, "lr_scheduler_type": "constant"}
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path / "trainer"), report_to=[], use_cpu=True, disable_tqdm=True, save_strategy="no",
        logging_strategy="no", per_device_train_batch_size=4, max_steps=1, **settings,
    )  # fmt: skip
    transformers.Trainer(gpt2(), arguments, train_dataset=examples, callbacks=[callback]).train()
    assert checked(tmp_path).spec == SPEC


def test_a_message_of_an_engine_with_tied_weights(tmp_path: Path) -> None:
    """What Flower or NVFlare send is the state dict, which names the tied embedding twice."""
    model, (inputs, _) = gpt2("causal"), texts()
    ids = inputs["input_ids"][:1]
    before = {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids).loss.backward()
    optimiser.step()
    after = {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}
    training = lg.LocalTraining(lr=0.1, steps=1)
    with Recorder(
        tmp_path, gpt2("causal"), spec=lg.TextSpec(8, V, PAD, "causal"), training=training, on_error="stop"
    ) as recorder:
        recorded = recorder.record(Exchange(before, after, "weights", 1, engine="flower", side="server", round=1, client="ward"))
    assert recorded.error == ""
    guess = lg.attack(recorded.observation, "april", device="cpu")
    assert torch.equal(guess.inputs, ids)
    assert guess.explains
