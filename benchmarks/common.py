"""Shared by the benchmarks: where the data is, which pictures, and how to write a table."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import leakgauge as lg

CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def data_root() -> Path:
    """The shared data folder, or an end with a sentence that says what is missing."""
    root = Path(os.environ.get("LEAKGAUGE_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    if not root.is_dir():
        sys.exit(f"This benchmark needs the shared data folder; there is none at {root}. Set LEAKGAUGE_DATA.")
    return root


def cifar_first() -> list[lg.Batch]:
    """The first CIFAR-10 picture of each of the ten classes, one batch each."""
    root = data_root() / "cifar10"
    return [lg.load_data(f"folder:{root}?indices={20 * index}&size=32") for index in range(10)]


@dataclass
class Clock:
    """CPU seconds of this process since the start."""

    began: float

    @staticmethod
    def start() -> Clock:
        return Clock(time.process_time())

    @property
    def seconds(self) -> float:
        return time.process_time() - self.began


def observe(model: torch.nn.Module, batch: lg.Batch, seed: int = 0, labels: bool = False, **training: Any) -> lg.Observation:
    """One client's update under an honest-but-curious server."""
    client = lg.Client(model, training=lg.LocalTraining(**training))
    return lg.ThreatModel.honest_but_curious(labels=labels).observe(client.train(batch, seed=seed), model, batch.spec)


def table(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(header) + " |"]
    lines.append("|" + " --- |" * len(lines[0].strip("| ").split(" | ")))
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def machine() -> str:
    """What the figures were measured on."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        model = f"{len(names)} x {names[0]}" if names else model
    return f"{model}, torch {torch.__version__}, {torch.get_num_threads()} thread(s)"


def say(record: dict[str, Any]) -> None:
    """One JSON line of progress on standard error."""
    print(json.dumps(record), file=sys.stderr, flush=True)
