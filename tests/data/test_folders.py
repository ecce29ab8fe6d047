"""Folders of pictures, cats and dogs."""

import pytest
import torch

from leakgauge.data import load_data
from leakgauge.errors import DataError, ShapeError


def test_loose_pictures_in_name_order(tmp_path, write_picture):
    arrays = {name: write_picture(tmp_path / name, 4, 5, 3) for name in ("b.png", "a.png", "c.png")}
    (tmp_path / "notes.txt").write_text("not a picture")
    batch = load_data(f"folder:{tmp_path}")
    assert batch.names == ("a.png", "b.png", "c.png")
    assert batch.labels.tolist() == [0, 0, 0]
    assert batch.labels.dtype == torch.int64
    assert batch.spec.shape == (3, 4, 5)
    assert torch.equal((batch.inputs[1] * 255).round().to(torch.uint8), torch.from_numpy(arrays["b.png"]).permute(2, 0, 1))
    assert load_data(f"folder:{tmp_path}?indices=2,0").names == ("c.png", "a.png")


def test_normalisation(tmp_path, write_picture):
    write_picture(tmp_path / "a.png", 4, 4, 3)
    plain, changed = load_data(f"folder:{tmp_path}"), load_data(f"folder:{tmp_path}?mean=0.5,0.4,0.3&std=0.25")
    assert torch.allclose(changed.inputs, (plain.inputs - torch.tensor([0.5, 0.4, 0.3]).reshape(3, 1, 1)) / 0.25)
    assert torch.allclose(changed.spec.denormalise(changed.inputs), plain.inputs, atol=1e-6)
    with pytest.raises(Exception, match="expected 1 or 1"):
        load_data(f"folder:{tmp_path}?mean=0.5,0.4,0.3&grey=true")


def test_labels_from_a_table(tmp_path, write_picture):
    for name in ("a.png", "b.png", "c.png"):
        write_picture(tmp_path / name, 4, 4)
    (tmp_path / "labels.csv").write_text("file,label,width\nc.png,7,4\na.png,2,4\nb.png,2,4\n")
    batch = load_data(f"folder:{tmp_path}")
    assert batch.names == ("a.png", "b.png", "c.png")
    assert batch.labels.tolist() == [2, 2, 7]
    (tmp_path / "labels.csv").write_text("file,label\nc.png,cat\na.png,dog\nb.png,ant\n")
    assert load_data(f"folder:{tmp_path}").labels.tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("file,label\na.png,1\n", "has no row for b.png"),
        ("file,label\na.png,1\nb.png,2\nz.png,3\n", "names 'z.png', which is not there"),
        ("file,label\na.png,1\nb.png,2\n../a.png,3\n", "lies outside the folder"),
        ("file,label\na.png,1\na.png,2\n", "names a file twice"),
        ("name,class\na.png,1\n", "expected a header with the columns file,label"),
        ("", "has no rows"),
    ],
)
def test_tables_that_do_not_agree(tmp_path, write_picture, table, words):
    folder = tmp_path / "pictures"
    write_picture(tmp_path / "a.png", 4, 4)
    write_picture(folder / "a.png", 4, 4)
    write_picture(folder / "b.png", 4, 4)
    (folder / "labels.csv").write_text(table)
    with pytest.raises(DataError) as caught:
        load_data(f"folder:{folder}")
    assert words in str(caught.value)


def test_labels_from_class_folders(tmp_path, write_picture):
    for name in ("dog/2.png", "cat/1.png", "dog/1.png", "empty/notes.txt"):
        if name.endswith("png"):
            write_picture(tmp_path / name, 4, 4)
    batch = load_data(f"folder:{tmp_path}")
    assert batch.names == ("cat/1.png", "dog/1.png", "dog/2.png")
    assert batch.labels.tolist() == [0, 1, 1]
    write_picture(tmp_path / "loose.png", 4, 4)
    with pytest.raises(DataError, match="holds both pictures and class folders"):
        load_data(f"folder:{tmp_path}")


def test_numbered_class_folders_are_their_labels(tmp_path, write_picture):
    for name in ("10/a.png", "2/a.png"):
        write_picture(tmp_path / name, 4, 4)
    assert load_data(f"mnist:{tmp_path}").labels.tolist() == [10, 2]


def test_parts(tmp_path, write_picture):
    write_picture(tmp_path / "train/a/1.png", 4, 4)
    write_picture(tmp_path / "test/a/2.png", 4, 4)
    assert load_data(f"folder:{tmp_path}?split=test").names == ("a/2.png",)
    with pytest.raises(DataError, match="has the parts train, test; say split=train"):
        load_data(f"folder:{tmp_path}")


def test_shapes_and_channels_become_one(tmp_path, write_picture):
    write_picture(tmp_path / "a.png", 4, 4)
    write_picture(tmp_path / "b.png", 4, 4, 3)
    assert load_data(f"folder:{tmp_path}").inputs.shape == (2, 3, 4, 4)
    assert load_data(f"folder:{tmp_path}?channels=1").inputs.shape == (2, 1, 4, 4)
    write_picture(tmp_path / "c.png", 6, 9, 3)
    with pytest.raises(ShapeError, match=r"c\.png is 6x9 .* and a\.png is 4x4; say size=32"):
        load_data(f"folder:{tmp_path}")
    assert load_data(f"folder:{tmp_path}?size=8x10").inputs.shape == (3, 3, 8, 10)


def test_nothing_to_read(tmp_path):
    with pytest.raises(DataError, match="holds no files of the expected kind"):
        load_data(f"folder:{tmp_path}")
    with pytest.raises(DataError, match="There is no .* to read 'folder' from"):
        load_data(f"folder:{tmp_path}/none")
    (tmp_path / "a.png").write_text("broken")
    with pytest.raises(DataError, match=r"a\.png cannot be read"):
        load_data(f"folder:{tmp_path}")


@pytest.mark.parametrize(
    "layout",
    [
        ("cat.0.jpg", "cat.1.jpg", "dog.0.jpg"),
        ("Cat/0.jpg", "Cat/1.jpg", "Dog/0.jpg"),
        ("cats/0.jpg", "cats/1.jpg", "dogs/0.jpg"),
        ("training_set/cats/cat.1.jpg", "training_set/cats/cat.2.jpg", "training_set/dogs/dog.1.jpg"),
        ("train/cat.0.jpg", "train/cat.1.jpg", "train/dog.0.jpg"),
    ],
)
def test_cats_and_dogs(tmp_path, write_picture, layout):
    for name in layout:
        write_picture(tmp_path / name, 8, 8, 3)
    batch = load_data(f"cats-dogs:{tmp_path}")
    assert batch.labels.tolist() == [0, 0, 1]
    assert [name.split("/")[-1] for name in batch.names] == [name.split("/")[-1] for name in layout]


def test_neither_cat_nor_dog(tmp_path, write_picture):
    write_picture(tmp_path / "catalogue.jpg", 8, 8, 3)
    with pytest.raises(DataError, match=r"catalogue\.jpg is called neither cat nor dog"):
        load_data(f"cats-dogs:{tmp_path}")
    with pytest.raises(DataError, match="has no part 'test'; expected a folder test or test_set"):
        load_data(f"cats-dogs:{tmp_path}?split=test")


def test_real_folders(real_data):
    cats = load_data(f"cats-dogs:{real_data / 'cats_dogs'}?size=64&indices=0-1,38-39")
    assert cats.labels.tolist() == [0, 0, 1, 1]
    assert cats.inputs.shape == (4, 3, 64, 64)
    assert 0.2 < cats.inputs.mean() < 0.8
    x_rays = load_data(f"folder:{real_data / 'chest_xray'}?size=64")
    assert x_rays.inputs.shape == (30, 1, 64, 64)
    assert x_rays.labels.bincount().tolist() == [10, 10, 10]
    cifar = load_data(f"cifar10:{real_data / 'cifar10'}?indices=0-4")
    assert cifar.spec.shape == (3, 32, 32)
    assert cifar.names[0] == "airplane_01.png"
    assert load_data(f"mnist:{real_data / 'mnist'}?indices=20,199").labels.tolist() == [1, 9]
