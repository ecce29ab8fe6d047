"""Texts from `capture` to the page: observation, truth apart, attack, record, report, and rules for a build."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import torch
from cli_run import Leakgauge
from safetensors.torch import load_file
from text_models import folder, install

from leakgauge.audit.case import Case, run_case
from leakgauge.audit.folder import load_records
from leakgauge.data.tokeniser import load_tokeniser

pytest.importorskip("transformers")


@pytest.fixture(autouse=True)
def plug_in(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path_factory.mktemp("site"), monkeypatch)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    place = tmp_path_factory.mktemp("models")
    return {kind: folder(place, kind) for kind in ("masked", "classification", "causal")}


def capture(leakgauge: Leakgauge, model: str, data: str, *more: object) -> dict[str, object]:
    done = leakgauge("capture", model, "--data", data, "--out", "o.safetensors", "--json", *more)
    assert done.code == 0, done.err
    return done.json


def attack(leakgauge: Leakgauge, model: str, name: str, *more: object, truth: bool = True) -> dict[str, object]:
    told = ("--truth", "truth/o.safetensors") if truth else ()
    done = leakgauge("attack", "o.safetensors", "--model", model, "--with", name, "--out", "run", "--json", *told, *more)
    assert done.code == 0, done.err
    return done.json


def spoken(index: int) -> str:
    """The tokens of a demo text, as the plug-in's option."""
    from leakgauge.data.demo_texts import TEXTS

    return "-".join(map(str, load_tokeniser("demo").encode(TEXTS[index][1])))


@pytest.mark.parametrize("task", ["masked", "classification", "causal"])
def test_the_truth_lies_apart_and_the_spec_in_the_observation(task: str, leakgauge: Leakgauge, models: dict[str, str]) -> None:
    told = capture(leakgauge, models[task], f"demo:texts?task={task}&indices=0-3")
    assert told["spec"] == {"type": "text", "length": 19, "vocabulary": load_tokeniser("demo").size, "padding": 0, "task": task}
    assert told["num_examples"] == 4
    ids = load_file("truth/o.safetensors")["inputs/input_ids"]
    assert ids.shape == (4, 19)
    assert all(tensor.shape != ids.shape for tensor in load_file("o.safetensors").values())
    shown = attack(leakgauge, models[task], "control")
    about = shown["conditions"]["text"]
    assert (about["task"], about["length"], about["tokeniser"]) == (task, 19, "demo")
    assert about["embeddings"] == ("trained, tied to the output" if task != "classification" else "trained")
    assert about["masked_places"] == ("not granted" if task == "masked" else "none in this task")
    assert about["dropout"] == "off"
    assert shown["conditions"]["model_state"] == "untrained"
    assert len(shown["scores"]) == 4
    assert 0 <= shown["scores"][0]["token_accuracy"] < 0.5
    assert "public texts" in shown["control"]["rule"]


def test_an_exact_text_is_rebuilt_and_the_page_shows_it(leakgauge: Leakgauge, models: dict[str, str]) -> None:
    capture(leakgauge, models["causal"], "demo:texts?task=causal&indices=4")
    shown = attack(leakgauge, models["causal"], f"parrot:tokens={spoken(4)}")
    assert shown["scores"][0]["exact"] is True
    assert shown["texts"]["truth"] == shown["texts"]["guess"]
    assert "".join(shown["texts"]["truth"][0]).startswith(" [CLS] mrs tanaka can be reached at 020 7946 0958 after four")
    done = leakgauge("report", "run", "--html", "page.html", "--json", "page.json", "--fail-if", "exact > 0")
    assert done.code == 1
    assert "Rule broken: exact > 0: parrot" in done.out
    page = Path("page.html").read_text(encoding="utf-8")
    assert "1 of 1 private text was rebuilt." in page
    assert "telephone number 1 of 1" in page
    assert "020 7946 0958" in page
    assert json.loads(Path("page.json").read_text())["records"][0]["spans"][2]["recovered"] == 1
    assert leakgauge("report", "run", "--html", "redacted.html", "--json", "redacted.json", "--redact").code == 0
    for name in ("redacted.html", "redacted.json"):
        text = Path(name).read_text(encoding="utf-8")
        assert "tanaka" not in text
        assert "7946" not in text


def test_patterns_of_a_file_are_counted(leakgauge: Leakgauge, models: dict[str, str]) -> None:
    capture(leakgauge, models["causal"], "demo:texts?task=causal&indices=4")
    attack(leakgauge, models["causal"], f"parrot:tokens={spoken(4)}")
    Path("names.txt").write_text("name = tanaka|lindgren\n")
    done = leakgauge("report", "run", "--patterns", "names.txt", "--json", "page.json")
    assert done.code == 0, done.err
    assert json.loads(Path("page.json").read_text())["verdict"]["spans"][-1] == {
        "pattern": "name",
        "originals": 1,
        "recovered": 1,
    }
    assert "name 1 of 1" in " ".join(leakgauge("report", "run", "--patterns", "names.txt").out.split())


def test_rules_for_texts(leakgauge: Leakgauge, models: dict[str, str]) -> None:
    capture(leakgauge, models["classification"], "demo:texts?indices=4")
    attack(leakgauge, models["classification"], f"parrot:tokens={'-'.join(spoken(4).split('-')[:12])}")
    for rule, code in (
        ("token_accuracy > 0.5", 1), ("token-accuracy > 0.9", 0), ("rouge_l > 0.5", 1), ("rougeL > 0.99", 0),
        ("ROUGE-1 > 0.5", 1),
        ("rouge2 > 0.5", 1), ("exact == 1", 0), ("rebuilt > 0", 0), ("certified > 0", 0),
    ):  # fmt: skip
        assert leakgauge("report", "run", "--fail-if", rule).code == code, rule
    assert "cannot be judged" in leakgauge("report", "run", "--fail-if", "psnr > 20").sentence
    assert "cannot be judged" in leakgauge("report", "run", "--fail-if", "masked_accuracy > 0").sentence
    assert "Did you mean" in leakgauge("report", "run", "--fail-if", "rouge_x > 0").sentence


def test_without_a_truth_only_the_reconstruction_is_kept(leakgauge: Leakgauge, models: dict[str, str]) -> None:
    capture(leakgauge, models["causal"], "demo:texts?task=causal&indices=4")
    shown = attack(leakgauge, models["causal"], "parrot:tokens=7-8", truth=False)
    assert shown["scores"] == []
    assert shown["texts"]["truth"] == []
    (record,) = load_records("run")
    assert record.texts is not None
    assert len(record.texts.guess) == 1
    assert leakgauge("report", "run", "--html", "page.html").code == 0
    assert "No original was given" in Path("page.html").read_text(encoding="utf-8")


def test_without_a_tokeniser_tokens_are_numbers(leakgauge: Leakgauge, tmp_path: Path) -> None:
    entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghij"]
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "vocab.txt").write_text("\n".join(entries), encoding="utf-8")
    (tmp_path / "notes.txt").write_text("a b c\nd e f g\n", encoding="utf-8")
    model = folder(tmp_path, "classification", vocab_size=len(entries))
    capture(leakgauge, model, "text:notes.txt?tokeniser=own")
    shown = attack(leakgauge, model, "control")
    assert shown["conditions"]["text"]["tokeniser"] == "none, tokens are shown as numbers"
    assert shown["texts"]["truth"][0] == [" 2", " 5", " 6", " 7", " 3"]
    shown = attack(leakgauge, model, "control", "--tokeniser", "own")
    assert shown["texts"]["truth"][0] == [" [CLS]", " a", " b", " c", " [SEP]"]
    assert "--tokeniser own" in shown["reproduce"]


def test_the_tokeniser_in_the_models_folder_is_the_default(leakgauge: Leakgauge, tmp_path: Path) -> None:
    entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "##c"]
    model = folder(tmp_path, "classification", vocab_size=len(entries))
    (tmp_path / "classification" / "vocab.txt").write_text("\n".join(entries), encoding="utf-8")
    (tmp_path / "notes.txt").write_text("a bc\n", encoding="utf-8")
    told = capture(leakgauge, model, "text:notes.txt")
    assert told["spec"]["vocabulary"] == len(entries)
    assert attack(leakgauge, model, "control")["texts"]["truth"] == [[" [CLS]", " a", " b", "c", " [SEP]"]]


def test_a_folder_of_recordings_is_attacked_one_by_one(leakgauge: Leakgauge, models: dict[str, str]) -> None:
    for index in (4, 8):
        done = leakgauge("capture", models["causal"], "--data", f"demo:texts?task=causal&indices={index}", "--out",
                         f"all/{index}.safetensors", "--truth", f"truths/{index}.safetensors")  # fmt: skip
        assert done.code == 0, done.err
    done = leakgauge("attack", "all", "--model", models["causal"], "--with", f"parrot:tokens={spoken(4)}", "--truth", "truths",
                     "--out", "run", "--json")  # fmt: skip
    assert done.code == 0, done.err
    first, second = done.json["recordings"]
    assert (first["verdict"], first["token_accuracy"]) == ("rebuilt", 1.0)
    assert second["verdict"] == "not found"
    shown = leakgauge("attack", "all", "--model", models["causal"], "--with", "parrot", "--truth", "truths", "--out", "run")
    assert "of the tokens" in " ".join(shown.out.split())


def test_a_case_of_texts_can_be_made_again(leakgauge: Leakgauge, models: dict[str, str]) -> None:
    record = run_case(Case(models["masked"], "demo:texts?task=masked&indices=2", "control", seed=3, model_seed=4))
    commands = record.reproduce.split(" && ")
    for command in commands:
        done = leakgauge(*shlex.split(command)[1:])
        assert done.code == 0, done.err
    (again,) = load_records("again")
    assert repr(again.text_scores) == repr(record.text_scores)
    assert again.texts == record.texts


def test_the_reconstruction_file_holds_token_ids(leakgauge: Leakgauge, models: dict[str, str]) -> None:
    capture(leakgauge, models["causal"], "demo:texts?task=causal&indices=4,8")
    attack(leakgauge, models["causal"], "parrot:tokens=7-8-9")
    inputs = load_file("run/reconstruction.safetensors")["inputs"]
    assert inputs.dtype == torch.int64
    assert inputs[:, :4].tolist() == [[7, 8, 9, 0]] * 2


def test_dropout_and_frozen_embeddings_are_conditions(tmp_path: Path) -> None:
    from leakgauge.audit.text_making import text_conditions
    from leakgauge.core import ThreatModel
    from leakgauge.core.training import LocalTraining
    from leakgauge.data import load_data
    from leakgauge.federated.client import Client
    from leakgauge.models import load_model

    network, batch = load_model(folder(tmp_path, "classification")), load_data("demo:texts?indices=4")
    network.get_input_embeddings().weight.requires_grad_(False)
    update = Client(network, training=LocalTraining(mode="train")).train(batch)
    seen = ThreatModel.honest_but_curious(labels=True).observe(update, network, batch.spec)
    about = text_conditions(seen, batch.spec, None)
    assert (about.embeddings, about.dropout) == ("frozen", "on, p 0.1")


def test_list_and_doctor_name_texts(leakgauge: Leakgauge) -> None:
    shown = leakgauge("list", "data", "--json").json["data"]
    names = {line["name"] for line in shown}
    assert {"text:PATH", "demo:texts"} <= names
    assert "tokeniser" in next(line for line in shown if line["name"] == "text:PATH")["options"]
    assert leakgauge("doctor", "--json").json["extras"]["text"] == "installed"
