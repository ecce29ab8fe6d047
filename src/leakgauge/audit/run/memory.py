"""How much memory there is, and how much a process uses, as Linux tells it."""

from __future__ import annotations

import os
from pathlib import Path

SHARE = 0.8  # of the machine's memory, for all workers together
GIGABYTE = 1 << 30
LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def machine_memory() -> int:
    """Bytes of memory that this process may count on: the machine's, or its container's where that is less."""
    found = []
    try:
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (ValueError, OSError, AttributeError):
        found.append(8 * GIGABYTE)
    for limit in LIMITS:
        try:
            found.append(int(Path(limit).read_text(encoding="ascii")))
        except (OSError, ValueError):
            continue
    return min(found)


def bound_for(workers: int, gigabytes: float | None) -> int:
    """Bytes that each worker may use.

    Args:
        workers: how many share the machine.
        gigabytes: what the plan says; None for an equal part of 80 % of the memory.
    """
    return int(gigabytes * GIGABYTE) if gigabytes is not None else int(SHARE * machine_memory() / workers)


def memory_of(process: int) -> int:
    """Bytes that a process holds in memory; 0 where that cannot be known."""
    try:
        pages = Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def in_words(size: int) -> str:
    """'1.5 GB'."""
    return f"{size / GIGABYTE:.3g} GB"
