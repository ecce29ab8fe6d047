"""Captures of ordinary PyTorch loops by `lg.record`: what `validate` finds, and what recording costs.

    python -m benchmarks.capture_matrix

The loops are those of tests/integrations/loop_cases.py, ten examples each. The residual is ||recomputed - captured|| /
||captured|| over all shared tensors, whatever the tolerance; where it is not rounding, the cause that `validate` names follows.
Costs are process CPU time of a short and a long training, recorded and not, in turns; the median of each is taken. From their
differences follow what recording adds to one step (it hashes each row of the inputs), and what it costs once (it copies the
weights on entry, and writes the file on exit).
"""

from __future__ import annotations

import math
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

import leakgauge as lg
from benchmarks.common import machine, table

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "integrations"))

ROUNDS = 5
SIZE = 32
NETWORKS = (("lenet-dlg", 20), ("mlp:hidden=512-256", 20), ("resnet18-cifar", 2))  # name, steps of the short training
LONGER = 4


def matrix() -> str:
    from loop_cases import CASES, verdict

    rows = []
    for name, case in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            found, seen = verdict(case, Path(folder))
        assert seen.provenance is not None
        buffers = "" if math.isnan(found.buffers_residual) else f"{found.buffers_residual:.1e}"
        answer = "agrees" if found.agrees else found.cause
        right = "yes" if found.hypothesis == case.cause and (bool(case.cause) or found.residual <= 1e-5) else "NO"
        rows.append([name, f"{found.residual:.1e}", buffers, answer, len(seen.provenance.notes), right])
    header = ["loop", "residual", "of the buffers", "`validate` says", "recorder's notes", "<= 1e-5 or the right cause"]
    return "## What was captured, recomputed\n\n" + table(header, rows)


def spent(name: str, steps: int, folder: Path, recording: bool) -> float:
    """CPU seconds of some steps of SGD on mini-batches of 32 pictures of 3x32x32."""
    model = lg.load_model(name, num_classes=10, input_shape=(3, 32, 32), seed=0).train()
    inputs = torch.rand(steps * SIZE, 3, 32, 32, generator=lg.rng(0, "cost"))
    labels = torch.arange(len(inputs)) % 10
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01)

    def train() -> None:
        for rows in torch.arange(len(inputs)).split(SIZE):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(model(inputs[rows]), labels[rows]).backward()
            optimiser.step()

    began = time.process_time()
    if recording:
        with lg.record(model, spec=lg.ImageSpec((3, 32, 32)), out=folder / "seen.safetensors"):
            train()
    else:
        train()
    return time.process_time() - began


def cost() -> str:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, steps in NETWORKS:
            times: dict[tuple[int, bool], list[float]] = {}
            for index in range(ROUNDS + 1):
                for count in (steps, LONGER * steps):
                    for recording in (False, True):
                        seconds = spent(name, count, Path(folder), recording)
                        if index:
                            times.setdefault((count, recording), []).append(seconds)
            middle = {key: statistics.median(values) for key, values in times.items()}
            more = (LONGER - 1) * steps
            plain, recorded = ((middle[LONGER * steps, on] - middle[steps, on]) / more for on in (False, True))
            once = middle[steps, True] - middle[steps, False] - steps * (recorded - plain)
            size = (Path(folder) / "seen.safetensors").stat().st_size / 1e6
            share = f"{100 * (recorded / plain - 1):.0f} %"
            rows.append([name, f"{1e3 * plain:.2f}", f"{1e3 * recorded:.2f}", share, f"{1e3 * once:.0f}", f"{size:.1f}"])
    header = ["network", "one step of 32 examples (ms)", "recorded (ms)", "more", "once per recording (ms)", "file (MB)"]
    return "## What recording costs\n\n" + table(header, rows)


def main() -> None:
    torch.set_num_threads(1)
    print(f"{machine()}\n\n{matrix()}\n\n{cost()}")


if __name__ == "__main__":
    main()
