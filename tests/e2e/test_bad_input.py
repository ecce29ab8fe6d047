"""Wrong use and bad input: each gives one sentence that says what to do, exit code 2, and no traceback."""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from e2e_run import Leakgauge
from safetensors.torch import load_file, save_file

from leakgauge.cli import main

Refused = Callable[..., str]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """Runs a command that must fail, through the same `main` as the installed one, and returns its sentence."""

    def run(*arguments: object) -> str:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert code == 2, (code, captured.out, captured.err)
        assert "Traceback" not in captured.err
        lines = captured.err.strip().splitlines()
        assert len(lines) == 1, captured.err
        assert captured.out == ""
        return lines[0]

    return run


@pytest.fixture
def attack(captured: Path, tmp_path: Path) -> Callable[..., tuple[object, ...]]:
    """The arguments of an attack, with parts replaced."""

    def arguments(
        *more: object, file: object = captured / "client.safetensors", model: str = "lenet-dlg", name: str = "idlg"
    ) -> tuple[object, ...]:
        return ("attack", file, "--model", model, "--with", name, "--budget", 4, "--out", tmp_path / "run", *more)

    return arguments


def altered(captured: Path, path: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    """A copy of the observation with its tensors changed and its manifest kept."""
    from safetensors import safe_open

    with safe_open(captured / "client.safetensors", framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(captured / "client.safetensors")
    change(tensors)
    save_file(tensors, path, metadata=metadata)
    return path


def test_the_installed_command_does_the_same(leakgauge: Leakgauge, tmp_path: Path) -> None:
    done = leakgauge("report", tmp_path / "nowhere")
    assert done.code == 2
    assert done.out == ""
    assert done.err.startswith("There is no folder ")
    assert done.err.count("\n") == 1


def test_the_wrong_model_for_an_observation(refused: Refused, attack: Callable[..., tuple[object, ...]]) -> None:
    assert "Is it the right model?" in refused(*attack(model="mlp"))
    assert "right number of classes" in refused(*attack("--classes", 3))


def test_other_weights(refused: Refused, attack: Callable[..., tuple[object, ...]], tmp_path: Path) -> None:
    from leakgauge import load_model

    save_file(load_model("lenet-dlg", input_shape=(3, 8, 8), seed=1).state_dict(), tmp_path / "w.safetensors")
    assert "not those that the update" in refused(*attack("--weights", tmp_path / "w.safetensors"))


def test_a_missing_a_truncated_and_a_foreign_file(
    refused: Refused, attack: Callable[..., tuple[object, ...]], captured: Path, tmp_path: Path
) -> None:
    assert "There is no file" in refused(*attack(file=tmp_path / "none.safetensors"))
    whole = (captured / "client.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    assert "truncated" in refused(*attack(file=tmp_path / "cut.safetensors"))
    (tmp_path / "text.safetensors").write_text("not a tensor in sight")
    assert "cannot be read as safetensors" in refused(*attack(file=tmp_path / "text.safetensors"))
    save_file({"a": torch.zeros(1)}, tmp_path / "bare.safetensors")
    assert "leakgauge pack" in refused(*attack(file=tmp_path / "bare.safetensors"))


@pytest.mark.parametrize("kind", ["pickle", "torch"])
def test_a_pickle_is_never_loaded(kind: str, refused: Refused, attack: Callable[..., tuple[object, ...]], tmp_path: Path) -> None:
    held = io.BytesIO()
    if kind == "pickle":
        held.write(pickle.dumps({"linear.weight": [1.0]}))
    else:
        torch.save({"linear.weight": torch.zeros(1)}, held)
    (tmp_path / "evil.safetensors").write_bytes(held.getvalue())
    assert "never unpickles" in refused(*attack(file=tmp_path / "evil.safetensors"))


def test_a_missing_tensor(refused: Refused, attack: Callable[..., tuple[object, ...]], captured: Path, tmp_path: Path) -> None:
    path = altered(captured, tmp_path / "o.safetensors", lambda tensors: tensors.__delitem__("tensor/conv1.bias"))
    sentence = refused(*attack(file=path))
    assert "lacks the tensor(s) 'conv1.bias'" in sentence
    assert "withheld" in sentence


def test_values_that_are_not_finite(
    refused: Refused, attack: Callable[..., tuple[object, ...]], captured: Path, tmp_path: Path
) -> None:
    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors["tensor/conv1.bias"][0] = float("nan")

    sentence = refused(*attack(file=altered(captured, tmp_path / "o.safetensors", spoil)))
    assert "'conv1.bias'" in sentence
    assert "NaN" in sentence


def test_a_wrong_shape(refused: Refused, attack: Callable[..., tuple[object, ...]], captured: Path, tmp_path: Path) -> None:
    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors["tensor/conv1.weight"] = torch.zeros(12, 3, 3, 3)

    sentence = refused(*attack(file=altered(captured, tmp_path / "o.safetensors", spoil)))
    assert "'conv1.weight'" in sentence
    assert "(12, 3, 3, 3)" in sentence


def test_a_truth_of_another_shape(
    refused: Refused, attack: Callable[..., tuple[object, ...]], captured: Path, tmp_path: Path
) -> None:
    from leakgauge import load_data

    load_data("demo:cat?size=16").save(tmp_path / "t.safetensors")
    assert "Is it the right file?" in refused(*attack("--truth", tmp_path / "t.safetensors"))
    assert "no saved batch" in refused(*attack("--truth", captured / "client.safetensors"))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("idgl", "Did you mean 'idlg'"),
        ("idlg:restart=2", "Did you mean 'restarts'"),
        ("idlg:restarts", "has no value"),
        ("idlg:start=nowhere", "nowhere"),
        ("dlg:labels=maybe", "expected one of"),
        ("idlg:seed=3", "beside the attack"),
    ],
)
def test_an_unknown_attack_or_option(name: str, words: str, refused: Refused, attack: Callable[..., tuple[object, ...]]) -> None:
    assert words in refused(*attack(name=name))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--budget", "huge"), "expected fast, paper, max or a number"),
        (("--time-limit", "-1"), "expected seconds > 0"),
        (("--device", "tpu0"), "cannot be used here"),
        (("--seed", "one"), "--seed"),
        (("--bogus",), "--bogus"),
        (("--model", "lenet"), "Did you mean 'lenet-dlg'"),
        (("--model", "lenet-dlg:widht=3"), "Did you mean 'width'"),
        (("--model", "nowhere.models:net"), "neither installed nor in the current folder"),
    ],
)
def test_wrong_options(more: tuple[str, ...], words: str, refused: Refused, attack: Callable[..., tuple[object, ...]]) -> None:
    assert words in refused(*attack(*more))


def test_an_attack_that_does_not_apply(refused: Refused, attack: Callable[..., tuple[object, ...]]) -> None:
    assert "Use a matching attack" in refused(*attack(name="linear-layer"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("atack",), "Did you mean 'attack'"),
        (("list", "atacks"), "attacks"),
        (("attack",), "Missing argument"),
        (("check", "lenet-dlg", "--input", "32"), "such as 3x32x32"),
        (("check", "lenet-dlg", "--input", "3x0x32"), "such as 3x32x32"),
        (("check", "lenet-dlg", "--input", "3x4x4"), "at least 8"),
        (("check", "mlp", "--input", "3x8x8", "--lr", "-1"), "LocalTraining.lr"),
        (("capture", "lenet-dlg", "--data", "demo:dog", "--out", "o.safetensors"), "no demo picture 'dog'"),
        (("capture", "lenet-dlg", "--data", "cats", "--out", "o.safetensors"), "names no source"),
        (("capture", "lenet-dlg", "--data", "demo:cat", "--out", "o.safetensors", "--optimiser", "sdg"), "sgd, adam, adamw"),
        (("capture", "lenet-dlg", "--data", "demo:cat", "--out", "o.safetensors", "--steps", "3"), "give lr"),
        (("capture", "lenet-dlg", "--data", "demo:cat", "--out", "o.safetensors", "--betas", "a,b"), "numbers joined by"),
        (("capture", "lenet-dlg", "--data", "demo:cat", "--out", "o.safetensors", "--loss", "hinge"), "no loss 'hinge'"),
        (
            ("capture", "lenet-dlg", "--data", "demo:cat", "--out", "o.safetensors", "--defence", "gausian-noise:std=1"),
            "Did you mean 'gaussian-noise'",
        ),
        (
            ("capture", "lenet-dlg", "--data", "demo:cat", "--out", "o.safetensors", "--defence", "gaussian-noise"),
            "needs the option",
        ),
        (("capture", "lenet-dlg", "--data", "demo:cat", "--out", "o.safetensors", "--withhold", "fc"), "no parameter"),
        (("capture", "lenet-dlg", "--data", "demo:cat", "--out", "o.safetensors", "--protocol", "none.toml"), "none.toml"),
        (("capture", "lenet-dlg", "--data", "demo:cat", "--out", "o.safetensors", "--truth", "o.safetensors"), "same file"),
        (("report", ".", "--fail-if", "sim > 1"), "Did you mean 'ssim'"),
        (("report", "."), "no records"),
    ],
)
def test_wrong_words(
    arguments: tuple[str, ...], words: str, refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert words in refused(*arguments)


def test_an_unreadable_picture(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing more")
    sentence = refused("capture", "lenet-dlg", "--data", f"folder:{tmp_path}", "--out", tmp_path / "o.safetensors")
    assert "broken.png cannot be read" in sentence
    assert "There is no" in refused("capture", "lenet-dlg", "--data", f"folder:{tmp_path}/x", "--out", tmp_path / "o.safetensors")


def test_a_place_that_cannot_be_written_to(refused: Refused, attack: Callable[..., tuple[object, ...]], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    below = tmp_path / "file" / "x"
    assert "cannot be written to" in refused("capture", "mlp", "--data", "demo:cat", "--out", below / "o.safetensors")
    assert "cannot be written to" in refused(*attack("--out", below))
    assert "cannot be written to" in refused("demo", "--quick", "--out", below)
    assert "cannot be written to" in refused("check", "mlp", "--input", "3x8x8", "--out", below)
    assert "is a folder" in refused("capture", "mlp", "--data", "demo:cat", "--out", tmp_path)


def test_a_read_only_folder(
    refused: Refused, attack: Callable[..., tuple[object, ...]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whoever runs as root may write everywhere, so the refusal itself is made here."""
    import tempfile

    def deny(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", deny)
    assert "cannot be written to (Permission denied)" in refused(*attack())


def test_a_full_disk(refused: Refused, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from leakgauge.truth import Batch

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Batch, "save", full)
    sentence = refused("capture", "mlp", "--data", "demo:cat?size=8", "--out", tmp_path / "o.safetensors")
    assert sentence == "No space left on device."


def test_a_missing_extra(refused: Refused, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    sentence = refused("check", "timm:resnet18", "--input", "3x32x32", "--out", tmp_path)
    assert "leakgauge[vision]" in sentence
    assert "'timm'" in sentence


def test_a_broken_torchvision(refused: Refused, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    sentence = refused("check", "torchvision:resnet18", "--input", "3x32x32", "--out", tmp_path / "out")
    assert "installed but cannot be imported" in sentence
    assert "nms does not exist" in sentence


def test_a_model_that_does_not_take_the_input(refused: Refused, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "fixed_net.py").write_text(
        "from torch import nn\n"
        "def net():\n    return nn.Sequential(nn.Flatten(), nn.Linear(7, 2))\n"
        "def segment():\n    return nn.Conv2d(3, 2, 1)\n"
        "def broken():\n    raise KeyError('no weights here')\n"
    )
    monkeypatch.chdir(tmp_path)
    check = ("--input", "3x8x8", "--out", "out")
    assert "does not take inputs of shape (3, 8, 8)" in refused("check", "fixed_net:net", *check)
    assert "expected (2, classes)" in refused("check", "fixed_net:segment", *check)
    assert "raised KeyError" in refused("check", "fixed_net:broken", *check)
