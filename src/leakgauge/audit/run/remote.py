"""What runs inside a Ray actor: a player that can be asked how far it is while it plays."""

from __future__ import annotations

import os
import socket
from importlib.metadata import version
from typing import Any

from leakgauge.audit.run.memory import memory_of

PACKAGES = ("leakgauge", "torch")


def versions() -> dict[str, str]:
    """Of the packages that every worker must have alike, since a cell's key holds them."""
    return {name: version(name) for name in PACKAGES}


class RemotePlayer:
    """Plays cells; its methods run in two threads, so that `at` answers meanwhile."""

    def __init__(self, threads: int, device: str) -> None:
        from leakgauge.audit.run.worker import Player

        self.threads = threads
        self.player = Player(device)
        self.progress = (0, 0)

    def hello(self) -> tuple[str, str, dict[str, str]]:
        """What Ray calls this machine, who this is in words, and the versions of its packages."""
        import ray

        return ray.get_runtime_context().get_node_id(), f"process {os.getpid()} on {socket.gethostname()}", versions()

    def play(self, task: Any, content: bytes | None) -> tuple[str, Any]:
        """('done', result), or ('memory', reason) where this process is in no state to go on."""
        import torch

        from leakgauge.audit.run.play import OutOfMemory

        torch.set_num_threads(self.threads)
        self.progress = (0, 0)
        try:
            return "done", self.player.play(task, self._note, content)
        except OutOfMemory as error:
            return "memory", str(error)

    def at(self) -> tuple[int, int, int]:
        """Gradient evaluations spent and planned, and bytes of memory in use."""
        return (*self.progress, memory_of(os.getpid()))

    def _note(self, evaluations: int, planned: int) -> None:
        self.progress = (evaluations, planned)
