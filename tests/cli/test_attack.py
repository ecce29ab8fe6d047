"""`attack` and `report` on one small observation."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import torch
from cli_run import MODEL, Leakgauge
from safetensors.torch import load_file

from leakgauge.audit.case import Case, run_case


def attack(captured: Path, name: str, *more: object) -> tuple[object, ...]:
    return ("attack", captured / "o.safetensors", "--model", MODEL, "--with", name, "--out", "run", *more)


def test_a_closed_form_is_certified(leakgauge: Leakgauge, captured: Path) -> None:
    done = leakgauge(*attack(captured, "linear-layer", "--truth", captured / "truth/o.safetensors", "--json"))
    assert done.code == 0, done.err
    assert done.json["outcome"] == "DETERMINED"
    assert done.json["certified"] == 1
    assert done.json["conditions"]["model_state"] == "untrained"
    assert done.json["scores"][0]["psnr"] == "inf" or done.json["scores"][0]["psnr"] > 100
    assert load_file("run/reconstruction.safetensors")["certified"].tolist() == [True]


def test_a_closed_form_layer_by_layer_prints_its_table_and_its_certificate(leakgauge: Leakgauge) -> None:
    made = leakgauge("capture", "lenet-dlg", "--data", "demo:cat?size=16", "--out", "o.safetensors")
    assert made.code == 0, made.err
    words = ("attack", "o.safetensors", "--model", "lenet-dlg", "--with", "recursive", "--out", "run")
    done = leakgauge(*words)
    assert done.code == 0, done.err
    for part in (
        "In the end none of them lacked equations.",
        "Layer by layer: recursive",
        "gradient equations",
        "conv1",
        "3,600",
    ):
        assert part in done.out
    assert "Certified: the update determines this picture up to an error radius of 0.000" in done.out
    exported = leakgauge(*words, "--json").json
    assert [layer["name"] for layer in exported["layers"]] == ["conv3", "conv2", "conv1"]
    assert 0 < exported["radius"] < 1e-3
    assert leakgauge("report", "run", "--html", "page.html", "--redact").code == 0
    page = Path("page.html").read_text()
    assert "gradient and weight equations" in page
    assert "data:image/png" not in page


def test_json_is_one_object_and_nothing_is_scored_without_the_truth(leakgauge: Leakgauge, captured: Path) -> None:
    done = leakgauge(*attack(captured, "idlg:refine=false,restarts=1", "--budget", 12, "--json"))
    assert done.code == 0, done.err
    assert done.json["attack"] == "idlg"
    assert done.json["scores"] == []
    assert done.json["control"] is None
    assert done.json["restarts"] == 1
    assert done.json["expected_seconds"] > 0
    assert "Expected time" in done.err
    assert Path(done.json["reconstruction"]).is_file()


def test_another_seed_is_another_search(leakgauge: Leakgauge, captured: Path) -> None:
    found = []
    for seed in (1, 2, 1):
        assert leakgauge(*attack(captured, "idlg:start=uniform", "--budget", 6, "--seed", seed)).code == 0
        found.append(load_file("run/reconstruction.safetensors")["inputs"])
    assert torch.equal(found[0], found[2])
    assert not torch.equal(found[0], found[1])


def test_a_time_limit_keeps_the_best_so_far(leakgauge: Leakgauge, captured: Path) -> None:
    done = leakgauge(*attack(captured, "inverting-gradients", "--budget", 10_000_000, "--time-limit", 0.5, "--json"))
    assert done.code == 0, done.err
    assert done.json["outcome"] == "TIMEOUT"
    assert done.json["evaluations"] > 0


def test_number_of_classes_and_shape_come_from_the_observation(leakgauge: Leakgauge) -> None:
    made = leakgauge("capture", MODEL, "--data", "demo:digit?size=8", "--classes", 7, "--out", "o.safetensors")
    assert made.code == 0, made.err
    done = leakgauge("attack", "o.safetensors", "--model", MODEL, "--with", "linear-layer", "--out", "run", "--json")
    assert done.code == 0, done.err
    assert done.json["conditions"]["shape"] == [1, 8, 8]


def test_the_command_of_a_record_makes_it_again(leakgauge: Leakgauge) -> None:
    case = Case(
        MODEL, "demo:cat?size=8", "linear-layer", num_classes=3, defences=("half-precision",), seed=4, attack_seed=5, model_seed=6
    )
    record = run_case(case)
    for command in record.reproduce.split(" && "):
        words = shlex.split(command)
        assert words[0] == "leakgauge"
        done = leakgauge(*words[1:])
        assert done.code == 0, done.err
    again = json.loads(next(Path("again/records").glob("*/record.json")).read_text())
    assert again["scores"][0]["mse"] == pytest.approx(record.scores[0].mse, rel=1e-12)
    assert again["conditions"]["defence"] == record.conditions.defence == "half-precision"


def test_a_folder_of_an_attack_can_be_reported_and_judged(leakgauge: Leakgauge, captured: Path) -> None:
    assert leakgauge(*attack(captured, "linear-layer", "--truth", captured / "truth/o.safetensors")).code == 0
    done = leakgauge(
        "report", "run", "--html", "page.html", "--json", "page.json", "--fail-if", "psnr < 10", "--fail-if", "mse > 1"
    )
    assert done.code == 0, done.err
    assert "No rule broken" in done.out
    assert "data:image/png;base64," in Path("page.html").read_text()
    assert set(json.loads(Path("page.json").read_text())) == {"verdict", "records"}
    broken = leakgauge("report", "run", "--fail-if", "certified > 0")
    assert broken.code == 1
    assert "Rule broken: certified > 0" in broken.out


def test_controls_break_no_rule(leakgauge: Leakgauge, captured: Path) -> None:
    assert leakgauge(*attack(captured, "control", "--truth", captured / "truth/o.safetensors")).code == 0
    assert "cannot be judged" in leakgauge("report", "run", "--fail-if", "psnr > 0").sentence


def test_a_redacted_page_leaves_out_the_original(leakgauge: Leakgauge, captured: Path) -> None:
    assert leakgauge(*attack(captured, "linear-layer", "--truth", captured / "truth/o.safetensors")).code == 0
    assert leakgauge("report", "run", "--html", "whole.html").code == 0
    assert leakgauge("report", "run", "--html", "redacted.html", "--redact").code == 0
    whole, redacted = (Path(name).read_text().count("data:image/png") for name in ("whole.html", "redacted.html"))
    assert whole > redacted
