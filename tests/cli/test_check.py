"""`check`: networks of every kind, without data, within its minute."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from cli_run import Leakgauge

from leakgauge.cli import check
from leakgauge.cli.progress import Bar
from leakgauge.core.training import LocalTraining
from leakgauge.models import load_model
from leakgauge.registry import catalogue

NETS = """
from torch import nn

def usual(num_classes=4):
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.5),
                         nn.Flatten(), nn.Linear(4 * 6 * 5, num_classes))

def two_channels(num_classes=3):
    return nn.Sequential(nn.Flatten(), nn.Linear(2 * 8 * 8, num_classes))
"""


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The minute shortened, and some networks in the current folder."""
    monkeypatch.setattr(check, "SECONDS", check.RESERVE + 3.0)
    (tmp_path / "some_nets.py").write_text(NETS)


def test_a_network_with_everything_in_it(leakgauge: Leakgauge) -> None:
    done = leakgauge("check", "some_nets:usual", "--input", "1x12x10", "--batch", 3, "--out", "out", "--json")
    assert done.code == 0, done.err
    assert done.json["classes"] == 4
    assert set(done.json["bounds"]) == {"1", "3"}
    records = done.json["records"]
    assert [record["attack"] for record in records] == ["linear-layer", "recursive", "idlg", "inverting-gradients"] * 2
    assert all(record["control"]["scores"] for record in records)
    assert {entry["attack"] for entry in done.json["unsupported"]} >= {"linear-layer", "recursive"}
    reasons = {entry["batch_size"]: entry["reason"] for entry in done.json["unsupported"] if entry["attack"] == "recursive"}
    assert "'3'" in reasons[1], "the max-pooling is named"
    assert "one example" in reasons[3]
    assert not any("\n" in reason for reason in reasons.values())
    (architecture,) = done.json["verdict"]["architectures"]
    assert [layer["name"] for layer in architecture["layers"]] == ["0", "3", "6"]
    assert all(len(entry["reason"]) > 20 for entry in done.json["unsupported"])
    assert Path(done.json["page"]).read_text().count("data:image/png") > 3
    assert records[0]["reproduce"].startswith("leakgauge check some_nets:usual --input 1x12x10 --batch 3")


def test_a_linear_first_layer_is_seen_through_on_any_number_of_channels(leakgauge: Leakgauge) -> None:
    done = leakgauge("check", "some_nets:two_channels", "--input", "2x8x8", "--batch", 1, "--out", "out")
    assert done.code == 0, done.err
    assert "Batch of 1: " in done.out
    assert "determined" in done.out
    assert "rebuilt" in done.out
    assert "The page: " in done.out
    assert "one picture, one gradient, no data" in done.out
    assert "Security deficit (Chen & Campbell 2022) 0" in done.out


def test_a_network_whose_layers_can_be_solved_is_proven_open(leakgauge: Leakgauge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "SECONDS", check.RESERVE + 8.0)
    done = leakgauge("check", "lenet-dlg", "--input", "3x16x16", "--batch", 1, "--out", "out")
    assert done.code == 0, done.err
    assert "1 of 1 private picture was rebuilt." in done.out
    assert "certified by the attack itself, without the original: 'One bundled picture, closed form layer by layer" in done.out
    assert "That is proof" in done.out
    assert "The certified results took: " in done.out
    page = Path("out/report.html").read_text()
    assert "up to an error radius of" in page
    assert "gradient and weight equations" in page
    assert "What the networks give away by counting" in page
    again = leakgauge("report", "out", "--html", "again.html", "--json", "again.json")
    assert again.code == 0, again.err
    assert Path("again.html").read_text() == page
    assert "lenet-dlg" in json.loads(Path("again.json").read_text())["verdict"]["architectures"][0]["model"]


def test_what_the_first_layer_leaves_open_is_counted_and_never_certified(
    leakgauge: Leakgauge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "SECONDS", check.RESERVE + 8.0)
    done = leakgauge("check", "lenet-dlg:width=4", "--input", "3x16x16", "--batch", 1, "--out", "out", "--json")
    assert done.code == 0, done.err
    assert "cannot be determined" in done.json["verdict"]["architectures"][0]["verdict"]
    closed = [record for record in done.json["records"] if record["attack"] in ("recursive", "hybrid")]
    assert [record["certified"] for record in closed] == [0] * len(closed)
    assert closed[0]["outcome"] == "UNDERDETERMINED"
    assert closed[0]["layers"][-1]["rank"] < closed[0]["layers"][-1]["unknowns"]
    known = {entry.name for entry in catalogue("attacks")}
    assert [record["attack"] for record in closed] == [name for name in ("recursive", "hybrid") if name in known]


def test_a_closed_form_that_does_not_look_at_the_clock_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    from leakgauge.cli import checking

    def endless(*_: object, **__: object) -> None:
        while True:
            time.sleep(0.05)

    monkeypatch.setattr(checking, "run_case", endless)
    monkeypatch.setattr(checking, "LEAST", 0.2)
    network = load_model("lenet-dlg", input_shape=(3, 16, 16))
    planned = checking.planned_parts(network, "x", "untrained", (3, 16, 16), 1, 10, LocalTraining(), 0, "")
    parts = [part for part in planned if part.case.attack == "recursive"]
    begun = time.monotonic()
    (record,) = checking.run_parts(parts, begun + 5.0, lambda: False, Bar("check", True))
    assert time.monotonic() - begun < 8
    assert record.outcome == "UNSUPPORTED"
    assert "It did not end within" in record.cause


def test_several_local_steps(leakgauge: Leakgauge) -> None:
    made = ("check", "mlp:hidden=8", "--input", "1x8x8", "--batch", 2, "--steps", 2, "--out", "out", "--json")
    done = leakgauge(*made)
    assert done.code == 0, done.err
    assert {record["conditions"]["training"] for record in done.json["records"]} == {"2 SGD steps, lr 0.1"}


def test_what_would_take_too_long_is_left_out_with_the_reason(leakgauge: Leakgauge, monkeypatch: pytest.MonkeyPatch) -> None:
    from leakgauge.cli import checking

    monkeypatch.setattr(checking, "EVALUATION", 1e9)
    done = leakgauge("check", "mlp:hidden=8", "--input", "1x8x8", "--batch", 1, "--out", "out", "--json")
    assert done.code == 0, done.err
    assert all("There is no time for it here" in entry["reason"] for entry in done.json["unsupported"])
    assert {entry["attack"] for entry in done.json["unsupported"]} >= {"idlg", "inverting-gradients"}  # or more, if busy
