"""Small files in the formats that the loaders read, and the place of the real ones."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The shared folder of real pictures; tests that need it are skipped where it is missing."""
    place = Path(os.environ.get("LEAKGAUGE_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
    if not (place / "cifar10").is_dir():
        pytest.skip(f"no real pictures at {place}; set LEAKGAUGE_DATA")
    return place


@pytest.fixture
def noise():
    """Random bytes of a shape, the same in every run."""
    generator = np.random.default_rng(0)
    return lambda *shape: generator.integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def write_picture(noise):
    """Writes a random picture of (height, width[, channels]) and returns its bytes as an array."""

    def write(path: Path, *shape: int) -> np.ndarray:
        array = noise(*shape)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)
        return array

    return write
