"""`check`: networks of every kind, without data, within its minute."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_run import Leakgauge

from leakgauge.cli import check

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
    assert [record["attack"] for record in records] == ["linear-layer", "idlg", "inverting-gradients"] * 2
    assert all(record["control"]["scores"] for record in records)
    assert {entry["attack"] for entry in done.json["unsupported"]} >= {"linear-layer"}
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
    assert len(done.json["unsupported"]) == 2
