"""A real training of a text model: state dicts packed with a protocol of texts, attacked and validated at the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from leakgauge.cli import main
from leakgauge.data.tokeniser import load_tokeniser
from leakgauge.models import load_model

transformers = pytest.importorskip("transformers")

PROTOCOL = """
num_examples = 1

[training]
lr = 0.1

[spec]
length = 12
vocabulary = {size}
padding = 0
task = "{task}"
"""


def folder(place: Path, kind: str) -> str:
    config = transformers.GPT2Config(
        vocab_size=load_tokeniser("demo").size, n_embd=32, n_layer=2, n_head=2, n_positions=32, bos_token_id=2, eos_token_id=3,
        pad_token_id=0, num_labels=2,
    )  # fmt: skip
    config.architectures = [kind]
    config.save_pretrained(place / kind)
    return f"hf:{place / kind}"


def stored(model: nn.Module, file: Path) -> None:
    """The whole state dict, tied weights under each of their names."""
    save_file({name: tensor.clone() for name, tensor in model.state_dict().items()}, str(file))


def trained(model: nn.Module, ids: torch.Tensor, task: str) -> None:
    """One step of plain SGD by torch itself."""
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    logits = model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    if task == "causal":
        loss = nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:])
    else:
        loss = nn.functional.cross_entropy(logits, torch.tensor([1]))
    loss.backward()
    optimiser.step()


@pytest.mark.parametrize(
    ("kind", "task", "attack"),
    [
        ("GPT2ForSequenceClassification", "classification", "span-check"),
        ("GPT2ForSequenceClassification", "classification", "april"),
        ("GPT2LMHeadModel", "causal", "april"),
    ],
)
def test_a_packed_update_of_a_text_model_is_attacked(
    kind: str, task: str, attack: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, size = folder(tmp_path, kind), load_tokeniser("demo").size
    model = load_model(name, seed=0)
    ids = torch.tensor([[5, 9, 14, 30, 8, 41, 22]])
    stored(model, tmp_path / "before.safetensors")
    trained(model, ids, task)
    stored(model, tmp_path / "after.safetensors")
    (tmp_path / "p.toml").write_text(PROTOCOL.format(size=size, task=task))
    packed = ["pack", "--before", tmp_path / "before.safetensors", "--after", tmp_path / "after.safetensors",
              "--model", name, "--protocol", tmp_path / "p.toml", "--out", tmp_path / "o.safetensors"]  # fmt: skip
    assert main([str(part) for part in packed]) == 0
    assert "span-check says" in capsys.readouterr().out
    run = ["attack", tmp_path / "o.safetensors", "--model", name, "--with", attack, "--out", tmp_path / "run", "--json"]
    assert main([str(part) for part in run]) == 0
    told = json.loads(capsys.readouterr().out)
    assert "DETERMINED" in json.dumps(told)
    from leakgauge import Observation
    from leakgauge import attack as attacked

    seen = Observation.load(tmp_path / "o.safetensors", load_model(name, seed=0))
    assert attacked(seen, attack, device="cpu").inputs[0, :7].tolist() == ids[0].tolist()


def refused(arguments: list[object], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main([str(part) for part in arguments]) == 2
    told = capsys.readouterr().err
    assert "Traceback" not in told
    return " ".join(told.split())


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("length = 12", "without 'vocabulary'"),
        ("length = 12\nvocabulary = 50\nshape = [1, 8, 8]", "of a picture, and 'length', of a text"),
        ("length = 12\nvocabulary = 50\npadding = 77", "expected a token id from 0 to 49"),
        ('length = 12\nvocabulary = 50\ntask = "poem"', "expected one of masked"),
        ("length = 12\nvocabluary = 50", "Did you mean 'vocabulary'"),
    ],
)
def test_a_protocol_of_texts_that_cannot_be(spec: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "p.toml").write_text(f"num_examples = 1\n[spec]\n{spec}\n")
    arguments = [
        "pack",
        "--gradient",
        tmp_path / "g",
        "--model",
        "mlp",
        "--protocol",
        tmp_path / "p.toml",
        "--out",
        tmp_path / "o",
    ]
    assert words in refused(arguments, capsys)


@pytest.mark.parametrize("command", ["simulate", "tradeoff"])
def test_rounds_on_texts_are_refused(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(
        'model = "mlp"\ninput = "1x8x8"\nclasses = 2\nrounds = 1\n[data]\nvalidation = 6\npublic = 3\n[training]\nlr = 0.1\n'
        '[[clients]]\nname = "a"\nexamples = 1\n[attack]\nwith = ["idlg"]\n'
        '[tradeoff]\ndefences = ["none"]\npolicy = "ssim <= 0.6"\nmeasure = "ssim"\nrounds = [1]\n'
    )
    for source in ("demo:texts", "text:notes.txt?task=masked"):
        told = refused([command, plan, "--data", source, "--out", tmp_path / "out"], capsys)
        assert "play rounds on pictures" in told


def test_unknown_words_and_a_folder_without_a_tokeniser(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Words that the vocabulary lacks become its unknown token; a model without a tokeniser takes that of the demo texts."""
    name = folder(tmp_path, "GPT2ForSequenceClassification")
    (tmp_path / "notes.txt").write_text("the patient ☃☃ xylophonist\n")
    seen, run = tmp_path / "o.safetensors", tmp_path / "run"
    assert main(["capture", name, "--data", f"text:{tmp_path}/notes.txt", "--out", str(seen)]) == 0
    truth = tmp_path / "truth" / "o.safetensors"
    assert main(["attack", str(seen), "--model", name, "--with", "april", "--truth", str(truth), "--out", str(run)]) == 0
    from leakgauge import Batch

    ids = Batch.load(truth).model_inputs["input_ids"]
    assert set(load_tokeniser("demo").encode("☃")) <= set(ids.flatten().tolist())
    assert "DETERMINED" in capsys.readouterr().out


def test_a_tied_weight_under_two_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A state dict names it twice, safetensors of Hugging Face once; two different tensors for it are refused."""
    name, size = folder(tmp_path, "GPT2LMHeadModel"), load_tokeniser("demo").size
    model = load_model(name, seed=0)
    (tmp_path / "p.toml").write_text(PROTOCOL.format(size=size, task="causal"))
    stored(model, tmp_path / "before.safetensors")
    trained(model, torch.tensor([[5, 9, 14, 30]]), "causal")
    state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    assert {"transformer.wte.weight", "lm_head.weight"} <= set(state)
    packed = ["pack", "--before", tmp_path / "before.safetensors", "--after", tmp_path / "after.safetensors",
              "--model", name, "--protocol", tmp_path / "p.toml", "--out", tmp_path / "o.safetensors"]  # fmt: skip
    once = {key: tensor for key, tensor in state.items() if key != "lm_head.weight"}
    only = {key: tensor for key, tensor in state.items() if key != "transformer.wte.weight"}
    for sent in (state, once, only):
        save_file(sent, str(tmp_path / "after.safetensors"))
        assert main([str(part) for part in packed]) == 0
    save_file({**state, "lm_head.weight": state["lm_head.weight"] + 1}, str(tmp_path / "after.safetensors"))
    assert "one parameter of the model (tied weights)" in refused(packed, capsys)
    save_file(once, str(tmp_path / "after.safetensors"))
    before = {key: tensor for key, tensor in load_model(name, seed=0).state_dict().items() if key != "lm_head.weight"}
    save_file({key: tensor.clone() for key, tensor in before.items()}, str(tmp_path / "before.safetensors"))
    assert main([str(part) for part in packed]) == 0
