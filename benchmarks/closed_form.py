"""The closed forms `recursive` and `hybrid` on the shared pictures: accuracy, verdicts, CPU seconds, peak memory.

Parts: `cnn6` (ten classes with a bias on the last layer, and the published single logit), `cnn6-d`, `sides` (CNN6 on larger
pictures), `lenet` (five activations), `deficient` (a first layer short of equations, and nets that only a joint solution
opens), `logit` (fully connected and convolutional, one logit, both labels), `noise` (relative noise on each tensor). PSNR is
that of pixels clamped to [0, 1]; the mean squared error beside it is unclamped.

    python -m benchmarks.closed_form [--pictures N] [--part NAME]
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import resource
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

import leakgauge as lg
from benchmarks.common import Clock, data_root, machine, say, table
from leakgauge.registry import parse_call

SHAPE = (3, 32, 32)
ACTIVATIONS: dict[str, nn.Module] = {
    "tanh": nn.Tanh(),
    "sigmoid": nn.Sigmoid(),
    "LeakyReLU(0.2)": nn.LeakyReLU(0.2),
    "ELU": nn.ELU(),
    "Softplus": nn.Softplus(),
}
LENET = ((12, 5, 2, 2), (12, 5, 2, 2), (12, 5, 1, 2))
HEADER = ("setting", "pictures", "PSNR dB median", "lowest", "share >= {level:g} dB", "MSE unclamped median", "highest",
          "CPU s median", "highest", "certified", "label right", "outcomes")  # fmt: skip


UNROUNDED = "10 classes, bias last, float32, not rounded to the 8-bit grid"


@dataclass(frozen=True)
class Row:
    """One attack on one picture."""

    psnr: float
    mse: float
    seconds: float
    certified: bool
    label: bool
    outcome: str


def pictures(name: str, count: int, side: int) -> list[lg.Batch]:
    """`count` pictures of a shared folder, spread over it (and so over its classes)."""
    total = {"cifar10": 200, "mnist": 200, "kodak": 12}[name]
    step = max(total // count, 1)
    return [lg.load_data(f"folder:{data_root() / name}?indices={step * i % total}&size={side}") for i in range(count)]


def network(
    layers: Iterable[tuple[int, int, int, int]], activation: nn.Module, shape: tuple[int, ...] = SHAPE, seed: int = 0
) -> nn.Sequential:
    """Convolutions (channels, kernel, stride, padding) with biases, activations and ten classes; torch's own weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts: list[nn.Module] = []
        channels = shape[0]
        for outputs, kernel, stride, padding in layers:
            parts += [nn.Conv2d(channels, outputs, kernel, stride, padding), activation]
            channels = outputs
        width = nn.Sequential(*parts, nn.Flatten())(torch.zeros(1, *shape)).shape[1]
        return nn.Sequential(*parts, nn.Flatten(), nn.Linear(width, 10))


def observe(model: nn.Module, batch: lg.Batch, dtype: str, loss: str = "cross_entropy") -> lg.Observation:
    """One client's gradient, labels not granted."""
    client = lg.Client(model, loss=loss, training=lg.LocalTraining(dtype=dtype))
    return lg.ThreatModel.honest_but_curious().observe(client.train(batch, seed=0), model, batch.spec)


def run(batch: lg.Batch, seen: lg.Observation, attack: str, setting: str) -> Row:
    """Attacks one observation and scores it; the attack sees nothing of the batch."""
    clock = Clock.start()
    name, options = parse_call(attack)
    guess = lg.attack(seen, name, seed=0, device="cpu", **options)
    seconds = clock.seconds
    scores = lg.score(batch, guess)
    right = guess.labels is not None and int(guess.labels[max(int(scores.order[0]), 0)]) == int(batch.labels[0])
    psnr, mse = float(scores.psnr[0]), float(scores.mse_unclamped[0])
    row = Row(psnr, mse, seconds, bool(guess.certified.all()), right, guess.outcome.name)
    say({"setting": setting, **dataclasses.asdict(row), "residual": guess.stats.residual, "cause": guess.stats.cause})
    return row


def summary(setting: str, rows: list[Row], level: float) -> list[str]:
    """A line of a table."""
    psnrs, errors, spent = ([getattr(row, name) for row in rows] for name in ("psnr", "mse", "seconds"))
    outcomes = Counter(row.outcome for row in rows)
    return [
        setting, str(len(rows)), decibels(statistics.median(psnrs)), decibels(min(psnrs)),
        f"{sum(value >= level for value in psnrs)}/{len(rows)}", f"{statistics.median(errors):.1e}", f"{max(errors):.1e}",
        f"{statistics.median(spent):.2f}", f"{max(spent):.2f}",
        f"{sum(row.certified for row in rows)}/{len(rows)}", f"{sum(row.label for row in rows)}/{len(rows)}",
        ", ".join(f"{name} {count}" for name, count in outcomes.most_common()),
    ]  # fmt: skip


def decibels(value: float) -> str:
    """'exact' for identical pictures."""
    return "exact" if math.isinf(value) else f"{value:.1f}"


def show(title: str, lines: list[list[str]], level: float) -> None:
    """Prints a table."""
    header = [cell.format(level=level) for cell in HEADER]
    print(f"\n### {title}\n\n{table(header, lines)}", flush=True)


def binary(batch: lg.Batch, label: int) -> lg.Batch:
    """The same picture with label 0 or 1."""
    return lg.Batch(batch.inputs, torch.tensor([label]), batch.spec)


def cnn6(count: int) -> None:
    """Ten classes with a bias on the last layer, and the published single logit."""
    lines, batches = [], pictures("cifar10", count, 32)
    for dtype in ("float32", "float64"):
        model = lg.load_model("cnn6:bias=last", num_classes=10, input_shape=SHAPE, seed=0)
        setting = f"10 classes, bias last, {dtype}"
        rows = [run(batch, observe(model, batch, dtype), "recursive", setting) for batch in batches]
        lines.append(summary(setting, rows, 100))
        model = lg.load_model("cnn6", num_classes=1, input_shape=SHAPE, seed=0)
        setting = f"one logit, no bias, {dtype}"
        ones = [binary(batch, index % 2) for index, batch in enumerate(batches)]
        rows = [run(batch, observe(model, batch, dtype, "binary_cross_entropy"), "recursive", setting) for batch in ones]
        lines.append(summary(setting, rows, 100))
    model, setting = lg.load_model("cnn6:bias=last", num_classes=10, input_shape=SHAPE, seed=0), UNROUNDED
    rows = [run(batch, observe(model, batch, "float32"), "recursive:grid=false", setting) for batch in batches]
    show("CNN6, CIFAR-10", [*lines, summary(setting, rows, 100)], 100)
    child = [sys.executable, "-m", "benchmarks.closed_form", "--part", "memory", "--pictures", "1"]
    print("\n" + subprocess.run(child, check=True, capture_output=True, text=True).stdout.strip())


def memory(count: int) -> None:
    """Peak memory of this process, after one attack on CNN6."""
    before = peak_memory()
    (batch,) = pictures("cifar10", count, 32)
    model = lg.load_model("cnn6:bias=last", num_classes=10, input_shape=SHAPE, seed=0)
    seen = observe(model, batch, "float32")
    ready = peak_memory()
    lg.attack(seen, "recursive", seed=0, device="cpu")
    peak = peak_memory()
    print(
        f"Peak resident memory of one attack on CNN6 in a fresh process: {peak:.0f} MiB, of which {before:.0f} are "
        f"imports and {ready - before:.0f} network, picture and update."
    )


def peak_memory() -> float:
    """Largest resident memory of this process in MiB; getrusage alone would count what its parent held when it was started."""
    status = Path("/proc/self/status")
    if status.is_file():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def cnn6_d(count: int) -> None:
    """CNN6-d, whose second layer is 280 equations short."""
    model = lg.load_model("cnn6-d:bias=last", num_classes=10, input_shape=SHAPE, seed=0)
    single = lg.load_model("cnn6-d", num_classes=1, input_shape=SHAPE, seed=0)
    batches = pictures("cifar10", count, 32)
    setting = "10 classes, bias last, float32"
    lines = [summary(setting, [run(batch, observe(model, batch, "float32"), "recursive", setting) for batch in batches], 50)]
    setting = "one logit, no bias, float32"
    ones = [binary(batch, index % 2) for index, batch in enumerate(batches)]
    rows = [run(batch, observe(single, batch, "float32", "binary_cross_entropy"), "recursive", setting) for batch in ones]
    lines.append(summary(setting, rows, 50))
    rows = [run(batch, observe(model, batch, "float32"), "recursive:grid=false", UNROUNDED) for batch in batches]
    show("CNN6-d, CIFAR-10", [*lines, summary(UNROUNDED, rows, 50)], 50)


def sides(count: int) -> None:
    """CNN6 on pictures of more than 32 pixels a side."""
    lines = []
    for side in (48, 64):
        model = lg.load_model("cnn6:bias=last", num_classes=10, input_shape=(3, side, side), seed=0)
        setting = f"{side}x{side}, float32"
        batches = pictures("kodak", min(count, 3), side)
        rows = [run(batch, observe(model, batch, "float32"), "recursive", setting) for batch in batches]
        lines.append(summary(setting, rows, 90))
    show("CNN6 on larger pictures (Kodak, ten classes, bias last)", lines, 90)


def lenet(count: int) -> None:
    """LeNet of 12-12-12 channels with torch's default weights and biases."""
    lines = []
    batches = pictures("cifar10", count, 32)
    for name, activation in ACTIVATIONS.items():
        model = network(LENET, activation)
        for dtype, level in (("float64", 150.0), ("float32", 80.0)):
            setting = f"{name}, {dtype}"
            rows = [run(batch, observe(model, batch, dtype), "recursive", setting) for batch in batches]
            lines.append(summary(f"{setting} (>= {level:g} dB)", rows, level))
    header = [cell.replace("{level:g} dB", "the level") for cell in HEADER]
    print(f"\n### LeNet 12-12-12, 5x5, strides 2, 2, 1, CIFAR-10\n\n{table(header, lines)}", flush=True)


def deficient(count: int) -> None:
    """A first layer short of equations, where only a prior helps; and nets whose layers suffice together."""
    lines, batches = [], pictures("cifar10", count, 32)
    for name in ("tanh", "LeakyReLU(0.2)"):
        model = network([(6, 4, 2, 0)], ACTIVATIONS[name])
        for attack in ("recursive", "hybrid", "hybrid:variant=published"):
            setting = f"6,4,2,0 {name}: {attack}"
            rows = [run(batch, observe(model, batch, "float32"), attack, setting) for batch in batches]
            lines.append(summary(setting, rows, 25.5))
    model = network([(16, 3, 1, 1), (16, 3, 2, 1)], nn.Tanh())
    for attack in ("recursive", "hybrid"):
        for dtype in ("float64", "float32"):
            setting = f"16,3,1,1; 16,3,2,1 tanh, {dtype}: {attack}"
            rows = [run(batch, observe(model, batch, dtype), attack, setting) for batch in batches[: max(count // 3, 1)]]
            lines.append(summary(setting, rows, 25.5))
    show("Layers short of equations, CIFAR-10", lines, 25.5)


def logit(count: int) -> None:
    """One logit with the logistic loss: MNIST digits on the fully connected net, both labels; CNN6 the same."""
    lines = []
    model = lg.load_model("fcn3", num_classes=1, input_shape=(1, 28, 28), seed=0)
    for dtype in ("float64", "float32"):
        for label in (0, 1):
            setting = f"fcn3, label {label}, {dtype}"
            batches = [binary(batch, label) for batch in pictures("mnist", count, 28)]
            rows = [run(batch, observe(model, batch, dtype, "binary_cross_entropy"), "recursive", setting) for batch in batches]
            lines.append(summary(setting, rows, 140))
    model = lg.load_model("cnn6", num_classes=1, input_shape=SHAPE, seed=0)
    for label in (0, 1):
        setting = f"cnn6, CIFAR-10, label {label}, float64"
        batches = [binary(batch, label) for batch in pictures("cifar10", min(count, 10), 32)]
        rows = [run(batch, observe(model, batch, "float64", "binary_cross_entropy"), "recursive", setting) for batch in batches]
        lines.append(summary(setting, rows, 140))
    show("One logit, logistic loss", lines, 140)


def noised(seen: lg.Observation, level: float, seed: int) -> lg.Observation:
    """Gaussian noise on every tensor, `level` times the tensor's root mean square; the attacker is not told."""
    tensors = {}
    for name, tensor in seen.tensors.items():
        draw = torch.randn(tensor.shape, generator=lg.rng(seed, "noise", name), dtype=torch.float64)
        tensors[name] = (tensor.double() + level * float(tensor.double().square().mean().sqrt()) * draw).to(tensor.dtype)
    return dataclasses.replace(seen, tensors=tensors)


def halved(model: nn.Module, batch: lg.Batch) -> lg.Observation:
    """A gradient rounded to half precision, which the attacker is told."""
    client = lg.Client(model, defences=(lg.HalfPrecision(),))
    return lg.ThreatModel.honest_but_curious().observe(client.train(batch, seed=0), model, batch.spec)


def noise(count: int) -> None:
    """Noise on CNN6's gradient."""
    model = lg.load_model("cnn6:bias=last", num_classes=10, input_shape=SHAPE, seed=0)
    batches = pictures("cifar10", min(count, 5), 32)
    lines = []
    for attack in ("recursive", "hybrid"):
        for level in (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2):
            setting = f"{attack}, noise {level:g}"
            rows = [
                run(batch, noised(observe(model, batch, "float32"), level, index), attack, setting)
                for index, batch in enumerate(batches)
            ]
            lines.append(summary(setting, rows, 50))
        setting = f"{attack}, half precision"
        lines.append(summary(setting, [run(batch, halved(model, batch), attack, setting) for batch in batches], 50))
    show("Noise relative to each tensor's root mean square, CNN6, CIFAR-10", lines, 50)


PARTS = {  # each with its default number of pictures
    "cnn6": (cnn6, 50), "cnn6-d": (cnn6_d, 20), "lenet": (lenet, 5), "logit": (logit, 20), "sides": (sides, 3),
    "deficient": (deficient, 10), "noise": (noise, 5), "memory": (memory, 1),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, help="how many")
    parser.add_argument("--part", choices=PARTS, help="only this one")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.part != "memory":
        print(f"Machine: {machine()}")
    for name, (part, default) in PARTS.items():
        if name == arguments.part or (arguments.part is None and name != "memory"):
            part(arguments.pictures or default)


if __name__ == "__main__":
    main()
