"""Records on disk come back as they were, in their order, and damage is named."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from leakgauge.audit import folder
from leakgauge.audit.folder import load_records, record_to_json, save_record
from leakgauge.audit.record import Conditions, Control, ExampleScore, Pictures, Record, Series
from leakgauge.core.reconstruction import LayerReport
from leakgauge.errors import DataError


def make(key: str = "one", **changes: Any) -> Record:
    conditions = Conditions(
        model="lenet-dlg",
        model_state="untrained",
        shape=(3, 8, 8),
        input_range="[0, 1]",
        batch_size=2,
        training="one gradient",
        mode="eval",
        batch_norm="none in the network",
        labels="known",
        defence="none",
        dtype="float32",
        threat="honest-but-curious server",
        knowledge=("the labels of the batch",),
        realistic=False,
        budget="fast",
        seeds={"client": 0, "attack": 1},
        versions={"torch": "2.8.0"},
    )
    scores = (
        ExampleScore(0, "a.png", 0.0, math.inf, 1.0, 0.0, 3, 3, 1, True),
        ExampleScore(1, "b <ü>.png", 0.01, 20.0, 0.5, math.nan, None, None, 0, False),
    )
    settings: dict[str, Any] = {
        "title": "Two pictures",
        "attack": "dlg",
        "outcome": "CONVERGED",
        "outcome_text": "It stopped.",
        "explains": True,
        "certified": 1,
        "evaluations": 300,
        "restarts": 2,
        "objective": math.nan,
        "residual": 0.1 + 0.2,
        "curve": ((1, 2.0), (2, math.nan), (3, math.inf)),
        "frame_evaluations": (0, 100),
        "cause": "",
        "notes": ("a", "b"),
        "seconds": 1.25,
        "conditions": conditions,
        "bound": "bounded",
        "determinable": False,
        "scores": scores,
        "control": Control("mid-grey", scores[1:]),
        "series": Series("noise", 1e-3, "0.001"),
        "reproduce": "leakgauge demo",
        "layers": (
            LayerReport("conv2", "gradient equations", 30, 90, 30, 4.5, 1e-7, 2e-9),
            LayerReport("conv1", "weight equations", 20, 18, 17, math.nan, 0.1, math.inf),
        ),
        "radius": 3e-6,
        "pictures": Pictures(torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8).double(), None, torch.rand(2, 2, 3, 8, 8)),
    }
    return Record(key=key, **{**settings, **changes})


def assert_same(one: Record, other: Record) -> None:
    assert repr(one) == repr(other)  # NaN is not equal to itself; pictures are not in it
    assert (one.pictures is None) == (other.pictures is None)
    for name in ("guess", "truth", "control", "frames"):
        before, after = (getattr(record.pictures, name, None) for record in (one, other))
        assert (before is None) == (after is None)
        if before is not None:
            assert before.dtype == after.dtype
            assert torch.equal(before, after)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"pictures": None},
        {"scores": (), "control": None, "series": None},
        {"curve": (), "notes": (), "frame_evaluations": ()},
        {"layers": (), "radius": math.nan},
    ],
)
def test_a_saved_record_loads_back_equal(tmp_path: Path, changes: dict[str, Any]) -> None:
    record = make(**changes)
    save_record(record, tmp_path / "run")
    assert_same(load_records(tmp_path / "run")[0], record)


def test_a_folder_of_an_earlier_version_loads_without_a_table_of_layers(tmp_path: Path) -> None:
    record = make()
    path = save_record(record, tmp_path) / "record.json"
    entries = json.loads(path.read_text(encoding="utf-8"))
    assert entries["layers"][1]["predicted_error"] == "inf"
    del entries["layers"], entries["radius"]
    path.write_text(json.dumps(entries), encoding="utf-8")
    (loaded,) = load_records(tmp_path)
    assert loaded.layers == ()
    assert math.isnan(loaded.radius)
    assert_same(loaded, replace(record, layers=(), radius=math.nan))


@pytest.mark.parametrize("layers", [[{"name": "conv"}], ["conv"], 3, [{"rank": "many"}]])
def test_a_damaged_table_of_layers_is_named(tmp_path: Path, layers: object) -> None:
    path = save_record(make(), tmp_path) / "record.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), "layers": layers}), encoding="utf-8")
    with pytest.raises(DataError, match="damaged"):
        load_records(tmp_path)


def test_the_order_of_saving_is_kept_and_saving_again_replaces(tmp_path: Path) -> None:
    for key in ("zebra", "apple", "mole"):
        save_record(make(key), tmp_path)
    save_record(make("apple", title="new", pictures=None), tmp_path)
    loaded = load_records(tmp_path)
    assert [record.key for record in loaded] == ["zebra", "apple", "mole"]
    assert loaded[1].title == "new"
    assert not (tmp_path / "records" / "apple" / "pictures.safetensors").exists()
    assert sorted(entry.name for entry in (tmp_path / "records").iterdir()) == ["apple", "mole", "zebra"]


def test_a_given_order_wins(tmp_path: Path) -> None:
    save_record(make("late"), tmp_path, order=7)
    save_record(make("early"), tmp_path, order=2)
    assert [record.key for record in load_records(tmp_path)] == ["early", "late"]


def test_json_is_strict_and_times_and_versions_have_telling_names(tmp_path: Path) -> None:
    def refuse(text: str) -> float:
        raise AssertionError(f"not strict: {text}")

    path = save_record(make(), tmp_path) / "record.json"
    entries = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    assert entries["scores"][0]["psnr"] == "inf"
    assert entries["objective"] is None
    assert record_to_json(make(seconds=1.0)).keys() == record_to_json(make(seconds=2.0)).keys()
    first, second = (record_to_json(make(seconds=seconds, pictures=None)) for seconds in (1.0, 2.0))
    assert [key for key in first if first[key] != second[key]] == ["seconds"]


def test_an_interruption_leaves_the_old_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_record(make(title="old"), tmp_path)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    for step in ("_swap", "save_file"):
        with monkeypatch.context() as patch:
            patch.setattr(folder, step, interrupted)
            with pytest.raises(KeyboardInterrupt):
                save_record(make(title="new"), tmp_path)
        assert [record.title for record in load_records(tmp_path)] == ["old"]
        assert [entry.name for entry in (tmp_path / "records").iterdir()] == ["one"]


def test_an_interruption_between_two_renames_puts_the_old_record_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_record(make(title="old"), tmp_path)
    rename, calls = Path.rename, []

    def second_fails(self: Path, target: Path) -> Path:
        calls.append(self)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", second_fails)
    with pytest.raises(KeyboardInterrupt):
        save_record(make(title="new"), tmp_path)
    assert [record.title for record in load_records(tmp_path)] == ["old"]


def test_leftovers_of_a_killed_process_are_ignored(tmp_path: Path) -> None:
    save_record(make(), tmp_path)
    (tmp_path / "records" / ".two.new-1").mkdir()
    assert [record.key for record in load_records(tmp_path)] == ["one"]


def test_missing_and_empty_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="There is no folder '.*nowhere'"):
        load_records(tmp_path / "nowhere")
    with pytest.raises(DataError, match="There are no records in"):
        load_records(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("record.json", "{", "damaged"),
        ("record.json", "[]", "damaged"),
        ("record.json", '{"format": 1, "key": "one"}', "is missing"),
        ("record.json", '{"format": 99}', "newer leakgauge"),
        ("record.json", None, "damaged"),
        ("pictures.safetensors", "junk", "damaged"),
        ("pictures.safetensors", None, "damaged"),
    ],
)
def test_a_damaged_record_is_named(tmp_path: Path, name: str, content: str | None, reason: str) -> None:
    path = save_record(make(), tmp_path) / name
    path.unlink() if content is None else path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=reason) as caught:
        load_records(tmp_path)
    assert "'one'" in str(caught.value)


def test_a_record_under_another_name_is_damaged(tmp_path: Path) -> None:
    save_record(make(), tmp_path).rename(tmp_path / "records" / "two")
    with pytest.raises(DataError, match="calls itself 'one'"):
        load_records(tmp_path)


def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(DataError, match="cannot be written to '.*file'"):
        save_record(make(), tmp_path / "file")


@pytest.mark.parametrize("key", ["", "../out", "a/b", ".hidden", "a b"])
def test_a_key_cannot_leave_the_folder(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match=r"Record\.key"):
        save_record(replace(make(), key=key), tmp_path)
