"""What counting says of a network, beside the records of a run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from torch import nn

from leakgauge.audit.architecture import FILE, architecture_of, load_architectures, save_architectures
from leakgauge.errors import DataError
from leakgauge.models import load_model

DEFICIENT = "cnn6-d:bias=last"


def test_the_profile_of_a_deficient_network_survives_the_disk(tmp_path: Path) -> None:
    one = architecture_of(load_model(DEFICIENT, input_shape=(3, 32, 32)), DEFICIENT, (3, 32, 32))
    assert [layer.rank_deficiency for layer in one.layers] == [0, 280, 0, 0, 0, 0, 0]
    assert one.deficit is not None
    assert one.deficit > 0
    assert one.undetermined == 0
    assert one.inputs == 3072
    save_architectures([one, replace(one, model="again")], tmp_path)
    assert load_architectures(tmp_path) == (one, replace(one, model="again"))


def test_a_network_that_cannot_be_counted_comes_back_with_every_reason() -> None:
    network = nn.Sequential(nn.Flatten(1, 2), nn.TransformerEncoderLayer(8, 2, batch_first=True), nn.Flatten(), nn.Linear(64, 2))
    one = architecture_of(network, "mine", (1, 8, 8))
    assert one.reasons
    assert all(len(reason) > 10 for reason in one.reasons)


def test_a_shape_that_does_not_fit_is_no_error_here() -> None:
    one = architecture_of(nn.Linear(4, 2), "mine", (3, 8, 8))
    assert one.layers == ()
    assert one.deficit is None
    assert len(one.reasons) == 1


def test_a_folder_without_counts_has_none(tmp_path: Path) -> None:
    assert load_architectures(tmp_path) == ()


@pytest.mark.parametrize("damage", ["{", "3", '[{"model": "x"}]', "layer"])
def test_damage_is_named(tmp_path: Path, damage: str) -> None:
    if damage == "layer":
        save_architectures([architecture_of(load_model("mlp", input_shape=(1, 8, 8)), "mlp", (1, 8, 8))], tmp_path)
        entries = json.loads((tmp_path / FILE).read_text())
        entries[0]["layers"][0]["unknowns"] = "<script>"
        damage = json.dumps(entries)
    (tmp_path / FILE).write_text(damage, encoding="utf-8")
    with pytest.raises(DataError, match="damaged"):
        load_architectures(tmp_path)
