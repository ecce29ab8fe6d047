"""`inspect`: a table, the metric, recommendations and one verdict; JSON; bad input."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from cli_run import Leakgauge

NETS = """
from torch import nn

def odd(num_classes=4):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.GELU(), nn.MaxPool2d(2), nn.Flatten(), nn.LayerNorm(512), nn.Linear(512, num_classes)
    )

def dynamic(num_classes=4):
    class Dynamic(nn.Linear):
        def forward(self, inputs):
            return super().forward(inputs.flatten(1)) if inputs.sum() > -1 else None
    return nn.Sequential(Dynamic(768, num_classes))

def nothing():
    return nn.Flatten()
"""


@pytest.fixture(autouse=True)
def networks(tmp_path: Path) -> None:
    """Some networks in the current folder."""
    (tmp_path / "inspected_nets.py").write_text(NETS)


def test_a_person_reads_a_table_and_one_verdict(leakgauge: Leakgauge) -> None:
    done = leakgauge("inspect", "cnn6-d", "--input", "3x32x32")
    assert done.code == 0, done.err
    lines = done.out.strip().splitlines()
    (row,) = (line for line in lines if line.split()[:1] == ["conv2"])
    assert row.split()[1:6] == ["Conv2d", "3,468", "3,780", "3,188", "280"]
    assert any(line.startswith("Security metric") and "deficit 233 (published sign -233)" in line for line in lines)
    assert any(line.startswith("Recommendation: ") for line in lines)
    assert lines[-1].startswith("The architecture does not protect the input: layer conv2 is 280 equations short")
    assert not done.err


def test_json_is_one_object(leakgauge: Leakgauge) -> None:
    found = leakgauge("inspect", "cnn6-d", "--input", "3x32x32", "--json").json
    assert [layer["name"] for layer in found["layers"]] == [*(f"conv{number}" for number in range(1, 7)), "linear"]
    assert [layer["rank_deficiency"] for layer in found["layers"]] == [0, 280, 0, 0, 0, 0, 0]
    assert found["security"]["deficit"] == -found["security"]["total"] == pytest.approx(280 * 5 / 6)
    assert found["recommendations"][0]["sufficient"]
    assert (found["undetermined"], found["index"], found["inputs"]) == (0, 0, 3072)
    assert found["verdict"].count(".") == 1


def test_unsupported_layers_stand_in_the_json_with_reasons(leakgauge: Leakgauge) -> None:
    found = leakgauge("inspect", "inspected_nets:odd", "--input", "3x16x16", "--json").json
    reasons = {layer["type"]: layer["reason"] for layer in found["layers"] if layer["reason"]}
    assert set(reasons) == {"GELU", "MaxPool2d", "LayerNorm"}
    assert all(len(reason) > 20 for reason in reasons.values())
    assert len(found["reasons"]) == 3
    done = leakgauge("inspect", "inspected_nets:odd", "--input", "3x16x16")
    assert "not counted" in done.out


@pytest.mark.parametrize("name", ["dynamic", "nothing"])
def test_a_network_without_a_layer_to_count(leakgauge: Leakgauge, name: str) -> None:
    done = leakgauge("inspect", f"inspected_nets:{name}", "--input", "3x16x16", "--json")
    assert done.code == 0, done.err
    assert done.json["security"] is None
    assert done.json["index"] is None
    assert leakgauge("inspect", f"inspected_nets:{name}", "--input", "3x16x16").code == 0


def test_numerical_ranks_on_request(leakgauge: Leakgauge) -> None:
    found = leakgauge("inspect", "lenet-dlg", "--input", "3x12x12", "--numerical", "--json").json
    assert {layer["method"] for layer in found["layers"] if layer["type"] == "Conv2d"} == {"numerical"}


@pytest.mark.parametrize("model", ["resnet18-cifar", "resnet20"])
def test_residual_networks_are_quick(leakgauge: Leakgauge, model: str) -> None:
    started = time.process_time()
    found = leakgauge("inspect", model, "--input", "3x32x32", "--json").json
    assert time.process_time() - started < 5
    assert any("shortcut" in layer["name"] and layer["side"] for layer in found["layers"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("cnn6", "--input", "3x32"), "is no shape"),
        (("nothing-like-this", "--input", "3x32x32"), "no network 'nothing-like-this'"),
        (("inspected_nets:odd", "--input", "1x16x16"), "does not accept inputs of shape"),
        (("cnn6", "--input", "3x32x32", "--threshold", "2"), "--threshold is 2.0"),
        (("cnn6",), "--input"),
    ],
)
def test_bad_input_is_one_sentence(leakgauge: Leakgauge, arguments: tuple[str, ...], words: str) -> None:
    assert words in leakgauge("inspect", *arguments).sentence
