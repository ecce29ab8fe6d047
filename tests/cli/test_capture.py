"""`capture`, `pack` and `validate`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from cli_run import MODEL, Leakgauge
from safetensors.torch import load_file, save_file


def gradient_of(path: Path) -> dict[str, torch.Tensor]:
    return {name.removeprefix("tensor/"): tensor for name, tensor in load_file(path).items() if name.startswith("tensor/")}


def test_the_truth_is_kept_apart_and_its_place_is_printed(leakgauge: Leakgauge) -> None:
    done = leakgauge("capture", MODEL, "--data", "demo:cat?size=8", "--out", "o.safetensors")
    assert done.code == 0, done.err
    assert "truth/o.safetensors" in done.out
    picture = load_file("truth/o.safetensors")["inputs"]
    assert all(tensor.shape != picture.shape for tensor in load_file("o.safetensors").values())


def test_every_part_of_the_protocol_can_be_given(leakgauge: Leakgauge) -> None:
    done = leakgauge(
        "capture", "mu-cnn:width=2", "--data", "demo:cat,retina,coffee,rocket?size=8", "--classes", 5, "--out", "a/o.safetensors",
        "--truth", "b/t.safetensors", "--lr", 0.1, "--epochs", 2, "--batch-size", 2, "--momentum", 0.5, "--nesterov",
        "--no-shuffle",
        "--mode", "train", "--dtype", "float64", "--defence", "gaussian-noise:std=0.001", "--defence", "half-precision", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert done.json["kind"] == "delta"
    assert done.json["training"] == "2 epochs of SGD, lr 0.1, mini-batches of 2, Nesterov momentum 0.5"
    assert done.json["defence"] == "gaussian-noise (std 0.001), then half-precision"
    assert done.json["truth"] == "b/t.safetensors"
    assert done.json["labels_granted"] is False


def test_a_protocol_file_does_the_same(leakgauge: Leakgauge) -> None:
    Path("p.toml").write_text("[training]\nlr = 0.1\nsteps = 2\n")
    options = ("capture", MODEL, "--data", "demo:cat?size=8")
    assert leakgauge(*options, "--out", "a.safetensors", "--protocol", "p.toml").code == 0
    assert leakgauge(*options, "--out", "b.safetensors", "--lr", 0.1, "--steps", 2).code == 0
    first, second = load_file("a.safetensors"), load_file("b.safetensors")
    assert all(torch.equal(first[name], second[name]) for name in first)
    both = leakgauge(*options, "--out", "c.safetensors", "--protocol", "p.toml", "--lr", 0.1)
    assert "--lr is given beside --protocol" in both.sentence


def test_labels_are_granted_only_when_asked(leakgauge: Leakgauge) -> None:
    for flag, held in (("--labels", True), ("--no-labels", False)):
        assert leakgauge("capture", MODEL, "--data", "demo:cat?size=8", "--out", "o.safetensors", flag).code == 0
        assert ("labels" in load_file("o.safetensors")) is held


def test_without_the_state_the_weights_are_asked_for(leakgauge: Leakgauge) -> None:
    from leakgauge import load_model

    state = load_model(MODEL, input_shape=(3, 8, 8), seed=9).state_dict()
    save_file(state, "w.safetensors")
    made = leakgauge(
        "capture", MODEL, "--weights", "w.safetensors", "--data", "demo:cat?size=8", "--out", "o.safetensors", "--no-state"
    )
    assert made.code == 0, made.err
    attack = ("attack", "o.safetensors", "--model", MODEL, "--with", "linear-layer", "--out", "run")
    assert "--weights FILE" in leakgauge(*attack).sentence
    done = leakgauge(*attack, "--weights", "w.safetensors", "--json")
    assert done.code == 0, done.err
    assert done.json["conditions"]["model_state"] == "as given"
    checked = leakgauge(
        "validate", "o.safetensors", "--model", MODEL, "--weights", "w.safetensors", "--truth", "truth/o.safetensors", "--json"
    )
    assert checked.json["agrees"] is True


def test_a_label_without_an_output_is_named(leakgauge: Leakgauge) -> None:
    sentence = leakgauge("capture", "mu-fc", "--data", "demo:coffee?size=8", "--out", "o.safetensors").sentence
    assert "label 2 of 'coffee'" in sentence
    assert "--classes 3" in sentence


def test_validate_without_the_truth_says_what_it_did_not_check(leakgauge: Leakgauge, captured: Path) -> None:
    done = leakgauge("validate", captured / "o.safetensors", "--model", MODEL)
    assert done.code == 0, done.err
    assert "Structure only" in done.out
    assert "is not known" in done.out
    assert leakgauge("validate", captured / "o.safetensors", "--model", MODEL, "--json").json["agrees"] is None


def test_pack_and_validate_name_the_likely_cause(leakgauge: Leakgauge, captured: Path) -> None:
    made = leakgauge("capture", MODEL, "--data", "demo:cat?size=8", "--out", "o.safetensors", "--label-smoothing", 0.1)
    assert made.code == 0, made.err
    save_file(gradient_of(Path("o.safetensors")), "gradient.safetensors")
    pack = ("pack", "--gradient", "gradient.safetensors", "--model", MODEL, "--out", "p.safetensors")
    assert "number of examples" in leakgauge(*pack, "--input", "3x8x8").sentence
    packed = leakgauge(*pack, "--input", "3x8x8", "--examples", 1, "--json")
    assert packed.code == 0, packed.err
    assert packed.json["kind"] == "gradient"
    done = leakgauge("validate", "p.safetensors", "--model", MODEL, "--truth", captured / "truth/o.safetensors", "--json")
    assert done.code == 0, done.err
    assert done.json["agrees"] is False
    assert "label smoothing" in done.json["cause"].lower()
    shown = leakgauge("validate", "p.safetensors", "--model", MODEL, "--truth", captured / "truth/o.safetensors")
    assert "Likely cause" in shown.out
    assert "linear1.weight" in shown.out


def test_pack_of_weights_before_and_after(leakgauge: Leakgauge) -> None:
    from leakgauge import load_model

    made = leakgauge("capture", MODEL, "--data", "demo:cat?size=8", "--classes", 3, "--out", "o.safetensors", "--lr", 0.1)
    assert made.code == 0, made.err
    before = load_model(MODEL, num_classes=3, input_shape=(3, 8, 8)).state_dict()
    change = gradient_of(Path("o.safetensors"))
    save_file(before, "before.safetensors")
    save_file({f"module.{name}": before[name] + change[name] for name in before}, "after.safetensors")
    Path("p.toml").write_text("num_examples = 1\nlr = 0.1\nshape = [3, 8, 8]\n")
    done = leakgauge(
        "pack", "--before", "before.safetensors", "--after", "after.safetensors", "--model", MODEL, "--protocol", "p.toml",
        "--out", "p.safetensors",
    )  # fmt: skip
    assert done.code == 0, done.err
    packed = gradient_of(Path("p.safetensors"))
    for name, tensor in change.items():
        assert packed[name] == pytest.approx(tensor, abs=1e-6)
    assert (
        "Give either --before" in leakgauge("pack", "--model", MODEL, "--protocol", "p.toml", "--out", "x.safetensors").sentence
    )
