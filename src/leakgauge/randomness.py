"""Random generators keyed by a seed and names: the only source of randomness in leakgauge."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derived_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed that depends on `seed` and every name, and on nothing else."""
    key = "\x1f".join([str(int(seed)), *(str(name) for name in names)])
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 1


def rng(seed: int, *names: str | int) -> torch.Generator:
    """A CPU generator keyed by (seed, *names).

    Draws are made on the CPU and moved, so that a seed means the same on every device.

    Args:
        seed: any integer.
        names: what the draws are for; different names give independent streams.
    """
    import torch

    return torch.Generator().manual_seed(derived_seed(seed, *names))
