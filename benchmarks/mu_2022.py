"""Mu 2022 on cats and dogs at 64x64, batch 1, by matching alone: widths, activations, depth, untrained and trained.

    python -m benchmarks.mu_2022 [--pictures 20] [--series-pictures 3]

Prints the counting bound of each network, the mean squared error on the 0-255 scale (clamped) and PSNR; then the main row,
width 24 with tanh, on all pictures, untrained and after five epochs of training. The limit is an error of 5.
"""

from __future__ import annotations

import argparse
import copy
import statistics

import torch
from torch import nn

import leakgauge as lg
from benchmarks.common import Clock, data_root, machine, observe, say, table

MAIN = "mu-cnn:width=24,activation=tanh"
SHAPE = (3, 64, 64)


def load(indices: str) -> lg.Batch:
    return lg.load_data(f"cats-dogs:{data_root() / 'cats_dogs'}?indices={indices}&size=64")


def trained(model: nn.Module, epochs: int) -> tuple[nn.Module, float]:
    """Trained on all 40 pictures by Adam with mini-batches of 8; returns the model and its training accuracy."""
    batch, model = load("0-39"), copy.deepcopy(model)
    assert isinstance(batch.inputs, torch.Tensor)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    generator = lg.rng(0, "mu", "training")
    for _ in range(epochs):
        for rows in torch.split(torch.randperm(len(batch), generator=generator), 8):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(batch.inputs[rows]), batch.labels[rows]).backward()
            optimiser.step()
    with torch.no_grad():
        accuracy = float((model(batch.inputs).argmax(1) == batch.labels).double().mean())
    return model.eval(), accuracy


def rebuild(name: str, model: nn.Module, index: int, budget: str | int = "fast") -> tuple[float, float, float, str]:
    batch = load(str(index))
    clock = Clock.start()
    guess = lg.attack(observe(model, batch), "mu-2022", seed=0, budget=budget)
    seconds, scores = clock.seconds, lg.score(batch, guess)
    error = float(scores.mse[0]) * 255**2
    say({"model": name, "picture": index, "mse255": error, "psnr": float(scores.psnr[0]), "cpu": seconds,
         "outcome": guess.outcome.name, "evaluations": guess.stats.evaluations})  # fmt: skip
    return error, float(scores.psnr[0]), seconds, guess.outcome.name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=20)
    parser.add_argument("--series-pictures", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"Machine: {machine()}\n")
    half = arguments.pictures // 2
    chosen = [*range(half), *range(20, 20 + arguments.pictures - half)]
    rows = []
    for state in ("untrained", "after 5 epochs") if chosen else ():
        model = lg.load_model(MAIN, num_classes=2, input_shape=SHAPE, seed=0)
        told = state
        if state != "untrained":
            model, accuracy = trained(model, 5)
            told = f"{state} (training accuracy {accuracy:.2f})"
        results = [rebuild(f"{MAIN} {told}", model, index) for index in chosen]
        errors = [result[0] for result in results]
        rows.append([
            told, len(errors), f"{sum(error <= 5 for error in errors) / len(errors):.0%}", f"{statistics.mean(errors):.3g}",
            f"{statistics.median(errors):.2g}", f"{statistics.median(r[1] for r in results):.1f}",
            f"{statistics.median(r[2] for r in results):.0f}",
        ])  # fmt: skip
    header = ["state", "pictures", "MSE <= 5", "mean MSE (0-255)", "median MSE", "median PSNR (dB)", "median CPU-s"]
    print(f"## {MAIN}, all pictures\n\n{table(header, rows)}\n")
    rows = []
    names = ["mu-fc", *(f"{MAIN},convolutions={count}" for count in (1, 2, 3))]
    names += [f"mu-cnn:width={width},activation={kind}" for width in (12, 16, 24) for kind in ("sigmoid", "tanh")]
    for name in dict.fromkeys(names) if arguments.series_pictures else ():
        model = lg.load_model(name, num_classes=2, input_shape=SHAPE, seed=0)
        bound = lg.counting_bound(model, SHAPE, 1)
        results = [rebuild(name, model, index) for index in range(arguments.series_pictures)]
        rows.append([
            name, bound.unknowns, bound.equations, "yes" if bound.determinable else "no",
            f"{statistics.mean(r[0] for r in results):.3g}", f"{statistics.median(r[1] for r in results):.1f}",
            f"{statistics.median(r[2] for r in results):.0f}", results[0][3],
        ])  # fmt: skip
    header = ["network", "unknowns", "equations", "determinable", "mean MSE (0-255)", "median PSNR", "median CPU-s", "outcome"]
    print(f"## From fully connected to convolutional\n\n{table(header, rows)}")


if __name__ == "__main__":
    main()
