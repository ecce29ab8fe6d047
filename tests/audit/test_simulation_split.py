"""Pictures of a simulation: shared out without overlap, priors that never hold the picture, and where they come from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from simulation_plans import tiny

from leakgauge.audit.simulation.pictures import places
from leakgauge.audit.simulation.split import Pictures, share_out
from leakgauge.errors import DataError


def all_places(pictures: Pictures) -> list[int]:
    clients = [place for places in pictures.clients.values() for place in places]
    return [*clients, *pictures.validation, *pictures.public, *pictures.decoys]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("classes", [2, 5, 10])
def test_no_picture_stands_in_two_places(seed: int, classes: int) -> None:
    pictures = share_out(tiny(seed=seed, classes=classes, data__decoys=20))
    places = all_places(pictures)
    assert len(places) == len(set(places)) == 1 + 3 + 3 + 10 + 4 + 20
    pixels = pictures.pool.pixels[places].flatten(1)
    assert len(torch.unique(pixels, dim=0)) == len(places)
    assert pictures.pool.bundled
    assert set(pictures.pool.labels.tolist()) == set(range(classes))


def test_the_split_depends_on_the_seed_alone() -> None:
    first, again, other = (share_out(tiny(seed=seed)) for seed in (1, 1, 2))
    assert first.clients == again.clients
    assert first.clients != other.clients


def test_the_prior_never_holds_the_picture_itself() -> None:
    pictures = share_out(tiny())
    (place,) = pictures.clients["single"]
    same = [index for index, label in enumerate(pictures.pool.labels.tolist()) if label == int(pictures.pool.labels[place])]
    others = [index for index in same if index != place]
    assert torch.allclose(pictures.left_out_mean(place), pictures.pool.pixels[others].mean(0))
    before = pictures.left_out_mean(place)
    pictures.pool.pixels[place] = 1.0
    assert torch.equal(pictures.left_out_mean(place), before)


def test_what_is_public_holds_nothing_private() -> None:
    pictures = share_out(tiny())
    before = pictures.public_mean(0)
    for shares in pictures.clients.values():
        pictures.pool.pixels[list(shares)] = 0.0
    after = pictures.public_mean(0)
    assert before is not None
    assert after is not None
    assert torch.equal(before, after)


def test_decoys_are_of_the_same_class() -> None:
    pictures = share_out(tiny(data__decoys=30))
    for label in (0, 1):
        count = sum(int(pictures.pool.labels[place]) == label for place in pictures.decoys)
        place = next(
            place for places in pictures.clients.values() for place in places if int(pictures.pool.labels[place]) == label
        )
        assert len(pictures.line_up(place)) == count


def test_too_few_pictures_are_named_with_the_numbers(tmp_path: Path) -> None:
    folder = pictures_in(tmp_path / "scans", 9)
    plan = tiny(data__source=f"folder:{folder}")
    with pytest.raises(
        DataError, match=r"The plan needs 21 pictures \(7 for clients, 10 validation, 4 public, 0 decoys\)"
    ) as error:
        share_out(plan)
    assert "9" in str(error.value)
    with pytest.raises(DataError, match="bundled crops can be made"):
        share_out(tiny(data__decoys=5000))


def test_relative_folders_are_looked_for_in_three_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEAKGAUGE_DATA", str(tmp_path / "shared"))
    monkeypatch.chdir(tmp_path)
    plan = tiny(data__source="folder:scans", data__validation=1, data__public=1)
    with pytest.raises(DataError, match="There is no 'scans' for data.source"):
        share_out(plan, tmp_path / "plans")
    for place, count in (("shared", 9), ("plans", 10), (".", 11)):
        pictures_in(tmp_path / place / "scans", count)
        found = share_out(plan, tmp_path / "plans")
        assert len(found.pool.labels) == count
        assert found.pool.source == "folder: scans"
    assert not found.pool.bundled


def test_a_missing_source_is_replaced_only_where_the_plan_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEAKGAUGE_DATA", str(tmp_path))
    found = share_out(tiny(data__source="folder:nowhere", data__otherwise="bundled"))
    assert found.pool.bundled
    assert "since there is no folder:nowhere" in found.pool.source


def test_labels_beyond_the_classes_are_refused() -> None:
    with pytest.raises(DataError, match="labels up to 9; classes is 2, expected 10"):
        share_out(tiny(data__source="demo:digits"))


def pictures_in(folder: Path, count: int) -> Path:
    """So many random pictures with labels 0 and 1."""
    folder.mkdir(parents=True)
    rows = ["file,label"]
    for index in range(count):
        pixels = torch.randint(0, 256, (20, 20), generator=torch.Generator().manual_seed(index), dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(folder / f"p{index:02d}.png")
        rows.append(f"p{index:02d}.png,{index % 2}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


def test_the_shared_folder_is_looked_for_beside_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LEAKGAUGE_DATA", raising=False)
    assert places(None)[-1] == Path(__file__).resolve().parents[2].parent / "shared" / "data"
