"""What all tests share: one thread, so that numbers repeat, and the place of the shared test data."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of shared test data: $LEAKGAUGE_DATA, else shared/data beside the checkout; skipped where it is missing."""
    place = Path(os.environ.get("LEAKGAUGE_DATA") or ROOT.parent / "shared" / "data")
    if not place.is_dir():
        pytest.skip(f"The shared test data is not at {place}; set LEAKGAUGE_DATA to its folder.")
    return place
