"""Picture files into pixels, and cropping and resizing."""

import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from leakgauge.data import pictures
from leakgauge.data.pictures import read_picture, resized, with_channels
from leakgauge.errors import DataError


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp"])
@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
def test_lossless_files_come_back(tmp_path, noise, suffix, shape):
    array = noise(*shape)
    Image.fromarray(array).save(tmp_path / f"a.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
    pixels = read_picture(tmp_path / f"a.{suffix}")
    expected = array[:, :, None] if array.ndim == 2 else array
    if suffix == "webp" and array.ndim == 2:  # WebP has no grey
        expected = expected.repeat(3, axis=2)
    assert torch.equal((pixels * 255).round().to(torch.uint8), torch.from_numpy(expected).permute(2, 0, 1))
    assert pixels.dtype == torch.float32


def test_jpeg_is_close(tmp_path):
    ramp = np.linspace(0, 255, 64).astype(np.uint8)[None, :].repeat(64, axis=0)
    Image.fromarray(ramp).save(tmp_path / "a.jpg", quality=95)
    assert (read_picture(tmp_path / "a.jpg")[0] * 255 - torch.from_numpy(ramp)).abs().max() < 4


def test_sixteen_bit_grey(tmp_path):
    array = np.array([[0, 65535], [13107, 40000]], dtype=np.uint16)
    for name in ("a.png", "a.tif"):
        Image.fromarray(array).save(tmp_path / name)
        assert torch.allclose(read_picture(tmp_path / name)[0], torch.tensor(array / 65535.0, dtype=torch.float32))


def test_float_grey(tmp_path):
    Image.fromarray(np.array([[0.25, 1.0]], dtype=np.float32)).save(tmp_path / "a.tif")
    assert read_picture(tmp_path / "a.tif").tolist() == [[[0.25, 1.0]]]
    Image.fromarray(np.array([[0.25, 7.0]], dtype=np.float32)).save(tmp_path / "b.tif")
    with pytest.raises(DataError, match="values outside its range"):
        read_picture(tmp_path / "b.tif")


def test_other_modes(tmp_path):
    Image.new("RGBA", (2, 2), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert read_picture(tmp_path / "clear.png").min() == 1  # transparent is white
    Image.new("LA", (2, 2), (0, 255)).save(tmp_path / "la.png")
    assert read_picture(tmp_path / "la.png").shape == (1, 2, 2)
    Image.new("1", (2, 2), 1).save(tmp_path / "bit.png")
    assert read_picture(tmp_path / "bit.png").tolist() == [[[1.0, 1.0], [1.0, 1.0]]]
    palette = Image.new("RGB", (2, 2), (0, 255, 0)).convert("P", palette=Image.Palette.ADAPTIVE)
    palette.save(tmp_path / "p.png")
    assert read_picture(tmp_path / "p.png")[:, 0, 0].tolist() == [0, 1, 0]
    Image.new("CMYK", (2, 2), (0, 0, 0, 0)).save(tmp_path / "c.jpg")
    assert read_picture(tmp_path / "c.jpg").shape == (3, 2, 2)


def test_orientation(tmp_path):
    exif = Image.Exif()
    exif[274] = 6  # turn a quarter to the right to show it upright
    Image.fromarray(np.array([[0, 255]], dtype=np.uint8)).save(tmp_path / "a.png", exif=exif)
    assert read_picture(tmp_path / "a.png").tolist() == [[[0.0], [1.0]]]


def test_files_that_are_no_pictures(tmp_path, monkeypatch):
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(DataError, match=r"text\.png cannot be read"):
        read_picture(tmp_path / "text.png")
    Image.new("L", (64, 64)).save(tmp_path / "whole.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "whole.png").read_bytes()[:60])
    with pytest.raises(DataError, match=r"half\.png cannot be read"):
        read_picture(tmp_path / "half.png")
    with pytest.raises(DataError, match="There is no picture"):
        read_picture(tmp_path / "none.png")
    monkeypatch.setattr(pictures, "MAX_PIXELS", 1000)
    with pytest.raises(DataError, match=r"whole\.png has 64x64 pixels"):
        read_picture(tmp_path / "whole.png")


def test_a_decompression_bomb_is_not_unpacked(tmp_path):
    def chunk(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")

    header = (20_000).to_bytes(4, "big") * 2 + bytes((8, 0, 0, 0, 0))
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    with pytest.raises(DataError, match=r"bomb\.png"):
        read_picture(tmp_path / "bomb.png")


def test_resizing_crops_the_centre_first():
    picture = torch.zeros(1, 4, 8)
    picture[:, :, 2:6] = 1
    assert torch.equal(resized(picture, (4, 4)), torch.ones(1, 4, 4))
    assert torch.allclose(resized(picture, (2, 2)), torch.ones(1, 2, 2))
    assert resized(picture, (3, 5)).shape == (1, 3, 5)
    assert resized(torch.rand(3, 9, 5), (20, 20)).shape == (3, 20, 20)


def test_resizing_stays_in_range_and_keeps_the_mean():
    picture = (torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    small, large = resized(picture, (16, 16)), resized(picture, (100, 100))
    for changed in (small, large):
        assert changed.min() >= 0
        assert changed.max() <= 1
    assert torch.allclose(small.mean(), picture.mean(), atol=0.02)
    assert torch.equal(resized(picture, (64, 64)), picture)


def test_channels():
    picture = torch.tensor([1.0, 0.0, 0.0]).reshape(3, 1, 1)
    assert with_channels(picture, 1).item() == pytest.approx(0.299)
    assert with_channels(torch.ones(3, 1, 1), 1).item() == 1.0
    assert with_channels(torch.full((1, 1, 1), 0.5), 3).flatten().tolist() == [0.5, 0.5, 0.5]
