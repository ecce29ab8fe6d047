"""Who stands in a line-up: others of the same class, and nobody who would make it unfair."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from leakgauge.audit.plan.cell import Cell
from leakgauge.audit.text_case import load_batch
from leakgauge.audit.verdict.decoys import Decoys, decoys_of, seen_in
from leakgauge.audit.verdict.look_alikes import MOST, private_pictures, spread
from leakgauge.errors import OptionError


def folder(place: Path, rows: list[tuple[str, int, str]], column: str = "patient", size: int = 8) -> str:
    """Pictures of noise with a labels.csv; the same name before '+' makes the same picture."""
    place.mkdir()
    lines = [f"file,label,{column}"]
    for name, label, patient in rows:
        generator = np.random.default_rng(list(name.partition("+")[0].encode()))
        Image.fromarray(generator.integers(0, 256, (size, size), dtype=np.uint8)).save(place / f"{name}.png")
        lines.append(f"{name}.png,{label},{patient}")
    (place / "labels.csv").write_text("\n".join(lines), encoding="utf-8")
    return f"folder:{place}"


def made(data: str, decoys: str = "auto", **fields: object) -> Decoys:
    return decoys_of(data, decoys, load_batch(data, ""), **fields)  # type: ignore[arg-type]


def chosen(found: Decoys, place: int = 0) -> list[str]:
    pool, rows = found.rows[place]
    return [found.pools[pool].records[row] for row in rows]


def hashes(data: str) -> list[str]:
    return [entry.record for entry in private_pictures(data)]


def test_others_of_the_class_that_are_not_in_the_batch(tmp_path: Path) -> None:
    data = folder(tmp_path / "x", [(f"p{k:02d}", k % 2, "") for k in range(12)])
    everything = hashes(data)
    found = made(f"{data}?indices=0-2")
    assert chosen(found, 0) == chosen(found, 2) == [everything[k] for k in (4, 6, 8, 10)]
    assert chosen(found, 1) == [everything[k] for k in (3, 5, 7, 9, 11)]
    assert found.words.startswith("4 to 5 other pictures of the same class and source; none that is in the batch or a copy.")
    assert "Not testable for 3 of 3: fewer than 19." in found.words


@pytest.mark.parametrize("column", ["patient", "subject"])
def test_nobody_of_the_same_patient_and_one_of_each_other(tmp_path: Path, column: str) -> None:
    rows = [("p0", 0, "ann"), ("p1", 0, "ann"), ("p2", 0, "bob"), ("p3", 0, "bob"), ("p4", 0, ""), ("p5", 0, "")]
    data = folder(tmp_path / "x", rows, column)
    everything = hashes(data)
    found = made(f"{data}?indices=0")
    assert [entry.patient for entry in found.private] == ["ann"]
    assert chosen(found) == [everything[2], everything[4], everything[5]]


def test_copies_of_the_private_example_and_of_decoys_are_left_out(tmp_path: Path) -> None:
    data = folder(tmp_path / "x", [("a", 0, ""), ("a+copy", 0, ""), ("b", 0, ""), ("b+copy", 0, ""), ("c", 0, "")])
    everything = hashes(data)
    assert everything[0] == everything[1]
    assert sorted(chosen(made(f"{data}?indices=0"))) == sorted({everything[2], everything[4]})


def test_the_hash_does_not_depend_on_size_and_normalisation(tmp_path: Path) -> None:
    data = folder(tmp_path / "x", [(f"p{k}", 0, "") for k in range(4)])
    first, second = made(f"{data}?indices=1"), made(f"{data}?indices=1&size=16&mean=0.5&std=0.25&channels=3")
    assert first.private[0].record == second.private[0].record
    assert chosen(first) == chosen(second)
    assert second.pools[0].pixels is not None
    assert tuple(second.pools[0].pixels.shape) == (4, 3, 16, 16)


def test_a_decoy_was_seen_by_priors_and_training_just_as_the_private_example(tmp_path: Path) -> None:
    data = folder(tmp_path / "x", [(f"p{k}", 0, "") for k in range(8)])
    everything = hashes(data)
    assert chosen(made(f"{data}?indices=0", seen=(f"{data}?indices=4-7",))) == everything[1:4]
    assert chosen(made(f"{data}?indices=4", seen=(f"{data}?indices=4-7",))) == everything[5:]
    given = Cell(f"{data}?indices=0", "lenet-dlg", f"bn-matching:prior={data}?indices=6-7", 0, prior=f"{data}?indices=5")
    assert seen_in(given, "") == (f"{data}?indices=5", f"{data}?indices=6-7")
    assert chosen(made(given.data, seen=seen_in(given))) == everything[1:5]


def test_a_source_that_the_plan_names(tmp_path: Path) -> None:
    data = folder(tmp_path / "x", [(f"p{k}", k % 2, "") for k in range(4)])
    other = folder(tmp_path / "y", [(f"q{k}", k % 2, "") for k in range(8)])
    found = made(f"{data}?indices=1", f"{other}?indices=0-5")
    assert chosen(found) == [hashes(other)[k] for k in (1, 3, 5)]
    assert "from the source that the plan names" in found.words
    with pytest.raises(OptionError, match="are texts"):
        made(f"{data}?indices=0", "demo:texts")


def test_pictures_of_another_size_are_no_decoys_unless_a_size_is_asked_for(tmp_path: Path) -> None:
    data = folder(tmp_path / "x", [("a", 0, ""), ("b", 0, "")])
    Image.fromarray(np.zeros((9, 9), dtype=np.uint8)).save(tmp_path / "x" / "c.png")
    (tmp_path / "x" / "labels.csv").write_text("file,label\na.png,0\nb.png,0\nc.png,0", encoding="utf-8")
    assert len(chosen(made(f"{data}?indices=0"))) == 1
    assert len(chosen(made(f"{data}?indices=0&size=8"))) == 2


def test_demo_pictures_have_decoys_where_there_are_many_of_a_kind() -> None:
    found = made("demo:cat,face,digit?size=8")
    assert [len(rows) for _, rows in found.rows] == [0, 99, 177]
    assert chosen(found, 2) == chosen(made("demo:digits?indices=0&size=8"))
    only = made("demo:cat")
    assert only.words == "Not testable: there are no other pictures of the same class and source."
    assert made("demo:digits?indices=0", "none").words == "No decoys were asked for."


def test_texts_have_decoys_of_their_class_and_about_their_length(tmp_path: Path) -> None:
    lines = [f"{'no ' * count}pain\t{label}" for count, label in ((8, 0), (6, 0), (7, 1), (2, 0), (14, 0), (40, 0))]
    table = tmp_path / "notes.tsv"
    table.write_text("\n".join(["sentence\tlabel", *lines]), encoding="utf-8")
    found = made(f"text:{table}?indices=0")
    everyone = [len(tokens) for tokens in found.pools[0].tokens]
    assert len(everyone) == 5
    assert [found.rows[0][1]] == [(1, 3)]
    assert "of half to twice the length" in found.words
    assert len(made(f"text:{table}?indices=0&task=causal").rows[0][1]) == 3


def test_of_a_large_source_the_start_and_a_spread_over_the_rest() -> None:
    places = spread(list(range(50_000)), MOST)
    assert len(set(places)) == MOST
    assert places[:199] == list(range(199))
    assert places[-1] > 49_000
    assert spread([1, 2, 3], MOST) == [1, 2, 3]


def test_words_name_no_file(tmp_path: Path) -> None:
    data = folder(tmp_path / "secret", [(f"p{k}", 0, "ann") for k in range(4)])
    assert "secret" not in made(f"{data}?indices=0").words
