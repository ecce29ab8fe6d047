"""RecordCallback on a tiny BERT from its configuration: `validate` agrees with what Trainer did, or names the cause."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from leakgauge.core import Observation
from leakgauge.federated.validation.validate import validate
from leakgauge.randomness import rng
from leakgauge.truth import Batch

pytest.importorskip("accelerate", reason="Trainer needs accelerate")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")

EXAMPLES = 10


def network(dropout: float = 0.0) -> nn.Module:
    config = transformers.BertConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=8, num_labels=3, hidden_dropout_prob=dropout, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    torch.manual_seed(0)
    return transformers.BertForSequenceClassification(config)


def examples() -> list[dict[str, Any]]:
    ids = torch.randint(1, 30, (EXAMPLES, 8), generator=rng(0, "ids"))
    labels = torch.randint(3, (EXAMPLES,), generator=rng(0, "labels"))
    mask = torch.ones(8, dtype=torch.long)
    return [{"input_ids": row, "attention_mask": mask, "labels": int(label)} for row, label in zip(ids, labels, strict=True)]


def trained(folder: Path, *, record: bool = True, dropout: float = 0.0, **arguments: Any) -> tuple[Any, nn.Module]:
    """Runs Trainer.train; returns the callback and the network."""
    from leakgauge.integrations.transformers import RecordCallback

    model = network(dropout)
    settings = {"per_device_train_batch_size": 4, "num_train_epochs": 2, "learning_rate": 1e-2, **arguments}
    args = transformers.TrainingArguments(
        output_dir=str(folder / "trainer"), report_to=[], use_cpu=True, disable_tqdm=True, save_strategy="no",
        logging_strategy="no", **settings,
    )  # fmt: skip
    callback = RecordCallback(folder / "seen", truth=folder / "truth", round=2, client="ward-3", model_name="tiny-bert")
    trainer = transformers.Trainer(model, args, train_dataset=examples(), callbacks=[callback] if record else [])
    trainer.train()
    return callback, model


def found(folder: Path, dropout: float = 0.0) -> tuple[Any, Observation]:
    seen = Observation.load(folder / "seen", network(dropout))
    return validate(seen, network(dropout), Batch.load(folder / "truth")), seen


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        ({}, ""),
        ({"max_steps": 2}, ""),
        ({"lr_scheduler_type": "constant", "adam_beta2": 0.9, "num_train_epochs": 1}, ""),
        ({"warmup_steps": 2, "lr_scheduler_type": "cosine", "dataloader_drop_last": True}, ""),
        ({"optim": "sgd", "learning_rate": 0.1, "max_grad_norm": 0.0}, ""),
        ({"weight_decay": 0.1}, "weight decay of some"),
        ({"adam_epsilon": 1e-4}, "epsilon"),
        # Trainer leaves the division to models that take loss keywords; BERT takes them and does not divide
        ({"gradient_accumulation_steps": 2, "per_device_train_batch_size": 2}, "loss scale"),
        ({"dropout": 0.1}, "dropout"),
    ],
)
def test_what_trainer_did_is_recomputed_or_the_cause_is_named(arguments: dict[str, Any], cause: str, tmp_path: Path) -> None:
    trained(tmp_path, **arguments)
    verdict, seen = found(tmp_path, arguments.get("dropout", 0.0))
    assert verdict.hypothesis == cause, verdict.cause
    assert verdict.agrees is (cause == "")
    if not cause:
        assert verdict.residual <= 1e-5
    assert seen.provenance is not None
    assert seen.provenance.words == "transformers, round 2, client ward-3"


def test_mixed_precision_comes_from_the_arguments(tmp_path: Path) -> None:
    trained(tmp_path, bf16=True)
    verdict, seen = found(tmp_path)
    assert seen.training.amp
    assert verdict.agrees and verdict.residual <= 1e-5


def test_the_protocol_is_that_of_the_arguments(tmp_path: Path) -> None:
    callback, _ = trained(tmp_path, max_grad_norm=0.7)
    training = callback.observation.training
    assert (training.optimiser, training.lr, training.clip_norm, training.mode) == ("adamw", 1e-2, 0.7, "train")
    assert (training.epochs, training.batch_size, training.accumulation) == (2, 4, 1)
    assert training.schedule == pytest.approx((1.0, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6))
    assert callback.observation.num_examples == EXAMPLES
    assert callback.observation.provenance.assumed == ("num_examples",)
    assert set(callback.truth.inputs) == {"input_ids", "attention_mask"}


def test_the_training_is_the_same_bit_for_bit(tmp_path: Path) -> None:
    _, one = trained(tmp_path, dropout=0.1)
    state = torch.get_rng_state()
    _, other = trained(tmp_path, record=False, dropout=0.1)
    assert all(torch.equal(one.state_dict()[name], tensor) for name, tensor in other.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())


def test_a_training_that_fails_leaves_no_file_and_can_begin_again(tmp_path: Path) -> None:
    from leakgauge.integrations.transformers import RecordCallback

    class Stop(transformers.TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            raise KeyError("stop")

    callback, model = RecordCallback(tmp_path / "seen"), network()
    args = transformers.TrainingArguments(output_dir=str(tmp_path / "trainer"), report_to=[], use_cpu=True, disable_tqdm=True)
    trainer = transformers.Trainer(model, args, train_dataset=examples(), callbacks=[callback, Stop()])
    with pytest.raises(KeyError, match="stop"):
        trainer.train()
    assert model._forward_hooks
    callback.close()
    assert not model._forward_hooks and not model._forward_pre_hooks
    assert not (tmp_path / "seen").exists()
    trainer.remove_callback(Stop)
    trainer.train()
    assert callback.observation is not None and (tmp_path / "seen").is_file()
