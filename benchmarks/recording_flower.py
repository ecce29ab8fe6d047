"""What recording a Flower job costs, as a share of the round's time: with and without, in turns, in one process.

    python -m benchmarks.recording_flower

A round is federated averaging over two clients of `run_in_process`: messages, local training with plain SGD, aggregation. Times
are CPU time of the process, the kernel's part for writing files included; the median over the rounds of each kind.
"""

from __future__ import annotations

import logging
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import leakgauge as lg
from benchmarks.common import machine, say, table

CLIENTS = 2
LIMIT = 0.10
SHAPE = (3, 32, 32)
CASES = (  # network, examples per client, mini-batch, turns
    ("resnet20", 256, 32, 7),
    ("resnet18-cifar", 256, 32, 3),
    ("lenet-dlg", 2048, 32, 9),
    ("resnet20", 8, 8, 9),  # a single small step: what recording costs by itself
)


def client_app(name: str, examples: int, batch_size: int, mods: list[Any]) -> Any:
    """A ClientApp that trains one epoch of random pictures."""
    from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp

    model = lg.load_model(name, num_classes=10, input_shape=SHAPE)
    inputs = torch.rand(examples, *SHAPE, generator=lg.rng(0, "flower"))
    labels = torch.arange(examples) % 10
    app = ClientApp(mods=mods)

    @app.train()
    def train(message: Any, _: Any) -> Any:
        model.load_state_dict(message.content["arrays"].to_torch_state_dict())
        model.train()
        optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
        for pictures, wanted in zip(inputs.split(batch_size), labels.split(batch_size), strict=True):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(pictures), wanted).backward()
            optimiser.step()
        metrics = MetricRecord({"num-examples": examples})
        return Message(RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics}), reply_to=message)

    return app


def one_round(name: str, app: Any, recorder: lg.Recorder | None) -> float:
    """CPU seconds of one round; with a recorder, on the server."""
    from flwr.app import ArrayRecord, ConfigRecord
    from flwr.serverapp.strategy import FedAvg

    from leakgauge.integrations.flower import RecordingGrid, run_in_process

    arrays = ArrayRecord(lg.load_model(name, num_classes=10, input_shape=SHAPE).state_dict())

    def main(grid: Any, context: Any) -> float:
        outer = grid if recorder is None else RecordingGrid(grid, recorder, context.run_config)
        strategy = FedAvg(fraction_evaluate=0.0)
        began = time.process_time()
        replies = outer.send_and_receive(strategy.configure_train(1, arrays, ConfigRecord({}), outer))
        strategy.aggregate_train(1, replies)
        return time.process_time() - began

    return run_in_process(main, app, CLIENTS, {"lr": 0.01, "local-epochs": 1})


def case(name: str, examples: int, batch_size: int, turns: int) -> list[object]:
    """A row of the table."""
    from leakgauge.integrations.flower import RecordingMod

    folder = Path(tempfile.mkdtemp(prefix="leakgauge-bench-"))
    made: list[lg.Recorder] = []

    def recorder() -> lg.Recorder:
        made.append(lg.Recorder(folder / str(len(made)), name, spec=lg.ImageSpec(SHAPE), num_classes=10))
        return made[-1]

    plain = client_app(name, examples, batch_size, [])
    modded = client_app(name, examples, batch_size, [RecordingMod(recorder())])
    kinds: dict[str, Callable[[], float]] = {
        "plain": lambda: one_round(name, plain, None),
        "mod": lambda: one_round(name, modded, None),
        "grid": lambda: one_round(name, plain, recorder()),
    }
    spent: dict[str, list[float]] = {kind: [] for kind in kinds}
    for turn in range(turns + 1):
        for kind, run in kinds.items():
            seconds = run()
            spent[kind] += [seconds] if turn else []  # the first turn warms up
    written = sum(one.recorded for one in made)
    assert written == 2 * CLIENTS * (turns + 1), f"{written} recordings"
    size = sum(path.stat().st_size for path in folder.rglob("*.safetensors")) / written / 1e6
    shutil.rmtree(folder)
    median = {kind: statistics.median(times) for kind, times in spent.items()}
    shares = [median[kind] / median["plain"] - 1 for kind in ("mod", "grid")]
    say({"network": name, "examples": examples, "spent": spent})
    parameters = sum(parameter.numel() for parameter in lg.load_model(name, num_classes=10, input_shape=SHAPE).parameters())
    return [
        name, f"{parameters:,}", examples, batch_size, f"{median['plain']:.3f}", f"{size:.1f}",
        *(f"{1e3 * (median[kind] - median['plain']) / CLIENTS:.0f}" for kind in ("mod", "grid")),
        *(f"{100 * share:.1f} %" for share in shares), "yes" if max(shares) <= LIMIT else "NO",
    ]  # fmt: skip


def imported() -> str:
    """What `import leakgauge` loads of the engines."""
    code = (
        "import sys, time; began = time.perf_counter(); import leakgauge; spent = time.perf_counter() - began\n"
        "names = {'flwr', 'ray', 'nvflare', 'opacus', 'transformers', 'mlflow', 'torch'} & set(sys.modules)\n"
        "print(f'{1e3 * spent:.0f} ms; of flwr, ray, nvflare, opacus, transformers, mlflow, torch it loads: {sorted(names)}')"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def main() -> None:
    import flwr.serverapp  # noqa: F401 - sets its own logger's level

    torch.set_num_threads(1)
    logging.getLogger("flwr").setLevel(logging.ERROR)
    print(f"Machine: {machine()}\n\n## Recording a Flower round ({CLIENTS} clients, 3x32x32, one local epoch)\n")
    header = ["network", "parameters", "examples per client", "mini-batch", "round without (CPU-s)", "MB per recording",
              "mod: CPU-ms per update", "grid: CPU-ms per update", "mod: share of the round", "grid: share of the round",
              f"both <= {100 * LIMIT:.0f} %"]  # fmt: skip
    print(table(header, [case(*row) for row in CASES]))
    print(f"\n`import leakgauge`: {imported()}")


if __name__ == "__main__":
    main()
