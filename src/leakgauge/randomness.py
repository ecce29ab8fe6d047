"""Random generators keyed by a seed and names: the only source of randomness in leakgauge."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_thread = threading.local()


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


@contextmanager
def beside() -> Iterator[None]:
    """Marks this thread as one that works beside somebody else's training: `isolated` then leaves the global generator alone.

    Saving and putting back torch's global generator would rewind the draws that the other thread made meanwhile; noise for
    privacy could then be drawn twice.
    """
    earlier = getattr(_thread, "beside", False)
    _thread.beside = True
    try:
        yield
    finally:
        _thread.beside = earlier


@contextmanager
def isolated() -> Iterator[None]:
    """Puts torch's global generator back afterwards, except in a thread that works `beside` a training."""
    import torch

    if getattr(_thread, "beside", False):
        yield
        return
    with torch.random.fork_rng(devices=[]):
        yield
