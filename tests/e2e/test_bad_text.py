"""Wrong use and bad input for texts: each gives one sentence that says what to do, exit code 2, and no traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from leakgauge.cli import main

transformers = pytest.importorskip("transformers")
Refused = Callable[..., str]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """Runs a command that must fail, through the same `main` as the installed one, and returns its sentence."""

    def run(*arguments: object) -> str:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert code == 2, (code, captured.out, captured.err)
        assert "Traceback" not in captured.err
        told = [line for line in captured.err.strip().splitlines() if not line.startswith("Expected time")]
        assert len(told) == 1, captured.err
        return told[0]

    return run


def bert(place: Path, head: str, size: int, **changes: object) -> str:
    small = {
        "vocab_size": size, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
        "max_position_embeddings": 32, "num_labels": 2,
    }  # fmt: skip
    config = transformers.BertConfig(**{**small, **changes})
    config.architectures = [f"BertFor{head}"]
    config.save_pretrained(place / head)
    return f"hf:{place / head}"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    from leakgauge.data.tokeniser import load_tokeniser

    place, size = tmp_path_factory.mktemp("models"), load_tokeniser("demo").size
    small = transformers.GPT2Config(
        vocab_size=size, n_embd=16, n_layer=1, n_head=2, n_positions=32, bos_token_id=2, eos_token_id=3
    )
    small.architectures = ["GPT2ForSequenceClassification"]
    small.save_pretrained(place / "gpt")
    heads = {head: bert(place, head, size) for head in ("MaskedLM", "SequenceClassification")}
    return {**heads, "gpt": f"hf:{place / 'gpt'}", "tiny": bert(place / "tiny", "MaskedLM", 20)}


@pytest.fixture(scope="module")
def observed(models: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with o.safetensors, one gradient of two texts, p.safetensors, one of a picture, and their truths."""
    folder = tmp_path_factory.mktemp("observed")
    text = [
        "capture",
        models["SequenceClassification"],
        "--data",
        "demo:texts?indices=0-1",
        "--out",
        str(folder / "o.safetensors"),
    ]
    assert main(text) == 0
    assert main(["capture", "mlp", "--data", "demo:cat?size=8", "--out", str(folder / "p.safetensors")]) == 0
    return folder


def capture(models: dict[str, str], model: str, data: str, tmp_path: Path) -> tuple[object, ...]:
    return ("capture", models.get(model, model), "--data", data, "--out", tmp_path / "x.safetensors")


def test_a_vocabulary_that_is_too_small(refused: Refused, models: dict[str, str], tmp_path: Path) -> None:
    sentence = refused(*capture(models, "tiny", "demo:texts?task=masked&indices=0", tmp_path))
    assert "has 20 token ids" in sentence
    assert "tokeniser=FOLDER" in sentence


def test_a_text_longer_than_the_models_positions(refused: Refused, models: dict[str, str], tmp_path: Path) -> None:
    sentence = refused(*capture(models, "MaskedLM", "demo:texts?task=masked&indices=0&length=40", tmp_path))
    assert "padded to 40 tokens" in sentence
    assert "at most 32" in sentence


def test_an_empty_text_and_an_empty_file(refused: Refused, models: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "notes.tsv").write_text("label\tsentence\n1\tfine\n0\t\n")
    (tmp_path / "empty.txt").write_text("\n\n")
    assert "Text 1 of" in refused(*capture(models, "SequenceClassification", f"text:{tmp_path}/notes.tsv", tmp_path))
    assert refused(*capture(models, "SequenceClassification", f"text:{tmp_path}/empty.txt", tmp_path))
    assert "cannot be read" in refused(*capture(models, "SequenceClassification", f"text:{tmp_path}/none.txt", tmp_path))


def test_a_tokeniser_without_padding(refused: Refused, models: dict[str, str], tmp_path: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    inner = Tokenizer(WordLevel({"a": 0, "b": 1, "c": 2}, unk_token="c"))
    inner.pre_tokenizer = Whitespace()
    (tmp_path / "bare").mkdir()
    transformers.PreTrainedTokenizerFast(tokenizer_object=inner).save_pretrained(tmp_path / "bare")
    (tmp_path / "notes.txt").write_text("a b\na b a\n")
    data = f"text:{tmp_path}/notes.txt?tokeniser={tmp_path}/bare"
    assert "has no padding token" in refused(*capture(models, "SequenceClassification", data, tmp_path))
    assert main([str(part) for part in capture(models, "SequenceClassification", f"{data}&indices=0", tmp_path)]) == 0


@pytest.mark.parametrize(
    ("model", "data", "words"),
    [
        ("MaskedLM", "demo:texts?indices=0", "the task 'classification' needs (N, classes)"),
        ("SequenceClassification", "demo:texts?task=causal&indices=0", "the task 'causal' needs"),
        ("gpt", "demo:texts?indices=0-1", "padding token"),
        ("lenet-dlg", "demo:texts?indices=0", "does not take texts"),
        ("MaskedLM", "demo:cat?size=8", "does not take inputs of shape"),
        ("MaskedLM", "demo:texts?task=masked&tokeniser=nowhere", "no folder 'nowhere'"),
        ("MaskedLM", "demo:texts?task=masked&indices=99", "99"),
        ("MaskedLM", "demo:texts?taks=masked", "Did you mean 'task'"),
        ("hf:nowhere", "demo:texts?task=masked", "no config"),
    ],
)
def test_models_and_data_that_do_not_fit(
    model: str, data: str, words: str, refused: Refused, models: dict[str, str], tmp_path: Path
) -> None:
    assert words in refused(*capture(models, model, data, tmp_path))


def test_a_label_without_an_output(refused: Refused, models: dict[str, str], tmp_path: Path) -> None:
    for label, words in ((2, "give --classes 3"), (-1, "has 2, from 0")):
        (tmp_path / "notes.csv").write_text(f"label,text\n{label},fine\n")
        assert words in refused(*capture(models, "SequenceClassification", f"text:{tmp_path}/notes.csv", tmp_path))


@pytest.mark.parametrize(
    "name", ["idlg", "dlg", "inverting-gradients", "bn-matching", "mu-2022", "linear-layer", "recursive", "hybrid"]
)
def test_an_attack_on_pictures_on_texts(
    name: str, refused: Refused, models: dict[str, str], observed: Path, tmp_path: Path
) -> None:
    done = refused(
        "attack", observed / "o.safetensors", "--model", models["SequenceClassification"], "--with", name, "--out", tmp_path
    )
    assert "ImageSpec" in done


def test_an_attack_on_texts_on_a_picture(refused: Refused, observed: Path, tmp_path: Path) -> None:
    from leakgauge.registry import entry_names

    known = [
        name
        for name in ("bag-of-tokens", "span-check", "dlg-text", "tag", "lamp", "april", "embedding-rows")
        if name in entry_names("attacks")
    ]
    for name in known:
        done = refused("attack", observed / "p.safetensors", "--model", "mlp", "--with", name, "--out", tmp_path)
        expected = "patches" if name == "april" else "needs a textspec; the observation is of pictures. use one of"
        assert expected in done.lower()  # april reads pictures of vision transformers, too


def test_truth_and_tokeniser_of_another_kind(refused: Refused, models: dict[str, str], observed: Path, tmp_path: Path) -> None:
    text = (
        "attack",
        observed / "o.safetensors",
        "--model",
        models["SequenceClassification"],
        "--with",
        "control",
        "--out",
        tmp_path,
    )
    picture = ("attack", observed / "p.safetensors", "--model", "mlp", "--with", "control", "--out", tmp_path)
    assert "the observation is of texts" in refused(*text, "--truth", observed / "truth/p.safetensors")
    assert "holds texts of" in refused(*picture, "--truth", observed / "truth/o.safetensors")
    assert "no folder 'nowhere'" in refused(*text, "--tokeniser", "nowhere")
    assert "is for texts" in refused(*picture, "--tokeniser", "demo")
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIAL, "a"]))
    assert "the one that made them" in refused(*text, "--tokeniser", tmp_path)


def test_another_model_and_a_prior_picture(refused: Refused, models: dict[str, str], observed: Path, tmp_path: Path) -> None:
    attack = ("attack", observed / "o.safetensors", "--out", tmp_path, "--model")
    assert "Is it the right model?" in refused(*attack, models["MaskedLM"], "--with", "control")
    assert "pictures" in refused(*attack, models["SequenceClassification"], "--with", "bn-matching:prior=demo:cat")


def test_a_bad_pattern(refused: Refused, models: dict[str, str], observed: Path, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("name = (")
    assert main(["attack", str(observed / "o.safetensors"), "--model", models["SequenceClassification"], "--with", "control",
                 "--out", str(tmp_path / "run")]) == 0  # fmt: skip
    assert "line 1" in refused("report", tmp_path / "run", "--patterns", tmp_path / "p.txt")
    assert "cannot be read" in refused("report", tmp_path / "run", "--patterns", tmp_path / "none.txt")


def test_without_the_extra(refused: Refused, models: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from leakgauge.data.tokeniser import load_tokeniser

    load_tokeniser.cache_clear()
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert "leakgauge[text]" in refused(*capture(models, "MaskedLM", "demo:texts?task=masked", tmp_path))
