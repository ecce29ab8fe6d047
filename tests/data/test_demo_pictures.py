"""The demo pictures and the public ones."""

import socket

import pytest
import torch

from leakgauge.data import bundled, demo_names, demo_pictures, load_data, names, public_pictures
from leakgauge.data.demo import DEMO
from leakgauge.data.public import COLOUR, GREY
from leakgauge.errors import DataError, OptionError, ShapeError


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Whatever asks for a connection fails: everything here is on the disk already."""

    def refuse(*_):
        raise AssertionError("a connection was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    bundled.bundled_picture.cache_clear()


def test_every_demo_picture():
    batch = load_data("demo:all?size=64")
    assert batch.names == tuple(DEMO)
    assert batch.labels.tolist() == list(range(7))
    assert batch.inputs.shape == (7, 3, 64, 64)
    assert batch.inputs.min() >= 0
    assert batch.inputs.max() <= 1
    assert (batch.inputs.flatten(1).std(dim=1) > 0.05).all()  # none is blank


def test_names_sizes_and_channels():
    assert load_data("demo:cat").inputs.shape == (1, 3, 32, 32)
    assert load_data("demo:face").inputs.shape == (1, 1, 32, 32)
    assert load_data("demo:face,cat").inputs.shape == (2, 3, 32, 32)
    assert load_data("demo:cat,astronaut?grey=true&size=16x24").inputs.shape == (2, 1, 16, 24)
    assert load_data("demo:faces?indices=0-3&channels=3").inputs.shape == (4, 3, 32, 32)
    assert torch.equal(load_data("demo:cat?size=64").inputs, demo_pictures(("cat",), 64).inputs)
    assert set(demo_names()) == {*DEMO, "faces", "digits", "all"}


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    batch, digits = load_data("demo:digits?size=8"), load_digits()
    assert torch.equal(batch.inputs[:, 0], torch.tensor(digits.images / 16, dtype=torch.float32))
    assert batch.labels.tolist() == digits.target.tolist()


def test_the_cat_is_scikit_images():
    from skimage.data import chelsea

    cat = demo_pictures(("cat",), (300, 451)).inputs[0]
    assert torch.equal((cat * 255).round().to(torch.uint8), torch.from_numpy(chelsea()).permute(2, 0, 1))


def test_what_is_wrong_is_said(monkeypatch, tmp_path):
    with pytest.raises(OptionError, match="There is no demo picture 'cta'. Did you mean 'cat'?"):
        load_data("demo:cat,cta")
    with pytest.raises(ShapeError, match="expected at least one name and positive sides"):
        demo_pictures(())
    with pytest.raises(OptionError, match="channels 2; expected 1 or 3"):
        demo_pictures(("cat",), 8, 2)
    with pytest.raises(DataError, match=r"lacks data/nothing\.png; nothing is downloaded in its place"):
        bundled.bundled_file("skimage", "data/nothing.png")
    with pytest.raises(DataError, match="'no_such_package', which is not installed"):
        bundled.bundled_file("no_such_package", "a.png")


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 32, 32), (3, 17, 40), (1, 8, 8), (3, 224, 224)])
def test_public_pictures(shape):
    pictures = public_pictures(shape, 9)
    assert pictures.shape == (9, *shape)
    assert pictures.min() >= 0
    assert pictures.max() <= 1
    assert torch.equal(pictures, public_pictures(shape, 9))
    assert torch.equal(pictures[:4], public_pictures(shape, 4))
    assert not torch.equal(pictures, public_pictures(shape, 9, seed=1))
    assert not torch.equal(pictures[0], pictures[1])


def test_public_pictures_are_none_of_the_demo_pictures():
    demo_files = {picture.file for picture in DEMO.values()}
    assert not demo_files & {file for _, file, _ in (*COLOUR, *GREY)}
    assert all(licence for _, _, licence in (*COLOUR, *GREY))


def test_public_pictures_of_no_shape():
    for shape, count in (((2, 8, 8), 1), ((3, 8, 8), 0), ((3, 0, 8), 1)):
        with pytest.raises(ShapeError, match="expected \\(1 or 3, H, W\\) and a positive count"):
            public_pictures(shape, count)


def test_listing_names_every_source_and_licence():
    entries = {entry.name: entry for entry in names()}
    assert {"folder:PATH", "cifar10:PATH", "dicom:PATH", "demo:cat", "demo:digits"} <= set(entries)
    assert all(entry.description and entry.source for entry in entries.values())
    assert "split" in entries["cifar10:PATH"].options
    assert "split" not in entries["demo:cat"].options
