"""Does the leakage score predict leakage? 31 small networks, three pictures, several attacks at equal budget.

Leakage of a network and picture is the lowest mean squared error of all attacks (the truth picks: this is the measurement, no
attack). Scores are compared by Spearman's correlation over the medians of the networks; intervals resample networks and
pictures. The leakage score runs at its defaults, which stand for a gradient with relative noise of 1e-3. Attacks see the
gradient once as computed in float32 (there the score is also shown at noise 1e-7, about the rounding), once with that noise.
`--out` keeps every result, and a second call goes on from there.

    python -m benchmarks.score_predicts --out DIR [--quick] [--budget 1000] [--workers 2] [--attacks NAME,..] [--noises 0,0.001]
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import time
from pathlib import Path
from typing import Any

import torch

import leakgauge as lg
from benchmarks.architectures import ARCHITECTURES, SHAPE, Architecture, build
from benchmarks.common import data_root, say
from benchmarks.score_tables import DEFICIT, DRAWN, ERROR, METRIC, NORM, ROUNDED, WHITE, Results, show

PICTURES = (0, 60, 160)  # an aeroplane, a cat, a ship of the shared CIFAR-10 files
ATTACKS = ("idlg", "idlg:tv=0.001", "mu-2022", "inverting-gradients", "hybrid")  # hybrid starts with recursive
NOISE = 1e-3  # relative, of the noisy gradient; the score's default
ROUNDING = 1e-7

Task = tuple[str, int, int, str, int, float]  # kind, network, picture, attack, budget, noise


def picture(index: int) -> lg.Batch:
    """One CIFAR-10 picture at 16x16."""
    return lg.load_data(f"folder:{data_root() / 'cifar10'}?indices={index}&size={SHAPE[1]}")


def gradient_norm(update: lg.Update) -> float:
    return math.sqrt(sum(float(tensor.double().square().sum()) for tensor in update.tensors.values()))


def run_attack(architecture: Architecture, index: int, name: str, budget: int, noise: float) -> dict[str, Any]:
    """One attack on one picture; an attack that cannot treat the network is recorded as such."""
    batch, model = picture(index), build(architecture)
    update = lg.Client(model).train(batch, seed=0)
    if noise:
        entries = sum(tensor.numel() for tensor in update.tensors.values())
        defence = lg.GaussianNoise(std=noise * gradient_norm(update) / math.sqrt(entries))
        update = defence.protect(update, generator=lg.rng(0, "score_predicts", architecture.name, index))
    seen = lg.ThreatModel.honest_but_curious(labels=True).observe(update, model, batch.spec)
    plain, _, options = name.partition(":")
    chosen = {key: float(value) for key, _, value in (part.partition("=") for part in options.split(":") if part)}
    began = time.process_time()
    try:
        guess = lg.attack(seen, plain, seed=0, budget=budget, **chosen)
    except lg.LeakgaugeError as error:
        return {"mse": None, "outcome": str(error).splitlines()[0], "seconds": 0.0}
    seconds = time.process_time() - began
    mse = float(lg.score(batch, guess).mse[0]) if len(guess.inputs) else None
    return {"mse": mse, "outcome": guess.outcome.name, "seconds": seconds, "evaluations": guess.stats.evaluations}


def run_scores(architecture: Architecture, index: int) -> dict[str, Any]:
    """All scores at one picture."""
    batch, model = picture(index), build(architecture)
    began = time.process_time()
    at_picture = lg.leakage_score(model, batch.inputs, label=batch.labels)
    seconds = time.process_time() - began
    rounded = lg.leakage_score(model, batch.inputs, label=batch.labels, noise=ROUNDING)
    white = lg.leakage_score(model, batch.inputs, label=batch.labels, prior="white")
    return {
        ERROR: at_picture.posterior_error,
        ROUNDED: rounded.posterior_error,
        WHITE: white.posterior_error,
        DEFICIT: at_picture.joint_deficit,
        NORM: gradient_norm(lg.Client(model).train(batch, seed=0)),
        "bottleneck": at_picture.bottleneck,
        "seconds": seconds,
    }


def run_drawn(architecture: Architecture) -> dict[str, Any]:
    """The leakage score without a picture: what is known before there is any data."""
    return {DRAWN: lg.leakage_score(build(architecture), input_shape=SHAPE).posterior_error}


def run_metric(architecture: Architecture) -> dict[str, Any]:
    """The published metric with the rank for generic output gradients; None where it is not defined for the network."""
    try:
        return {METRIC: lg.security(build(architecture), input_shape=SHAPE).deficit}
    except lg.LeakgaugeError as error:
        return {METRIC: None, "reason": str(error).splitlines()[0]}


def work(task: Task) -> dict[str, Any]:
    """One task's row of the results."""
    torch.set_num_threads(1)
    kind, number, index, name, budget, noise = task
    architecture = ARCHITECTURES[number]
    row = {"kind": kind, "network": architecture.name, "picture": index, "attack": name, "budget": budget, "noise": noise}
    if kind == "attack":
        return {**row, **run_attack(architecture, index, name, budget, noise)}
    if kind == "scores":
        return {**row, **run_scores(architecture, index)}
    return {**row, **(run_metric(architecture) if kind == "metric" else run_drawn(architecture))}


def key_of(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("kind", "network", "picture", "attack", "budget", "noise"))


def collect(out: Path, tasks: list[Task], workers: int) -> list[dict[str, Any]]:
    """Every result, those of an earlier call read from the file and not computed again."""
    out.mkdir(parents=True, exist_ok=True)
    file = out / "results.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    done = {key_of(row) for row in rows}
    wanted = {(task[0], ARCHITECTURES[task[1]].name, *task[2:]): task for task in tasks}
    missing = [task for key, task in wanted.items() if key not in done]
    say({"done": len(wanted) - len(missing), "missing": len(missing)})
    with multiprocessing.get_context("spawn").Pool(workers) as pool, file.open("a") as stream:
        for count, row in enumerate(pool.imap_unordered(work, missing), start=1):
            rows.append(row)
            stream.write(json.dumps(row) + "\n")
            stream.flush()
            if count % 50 == 0 or count == len(missing):
                say({"finished": count, "of": len(missing)})
    return [row for row in rows if key_of(row) in wanted]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("score_predicts"), help="folder for the results")
    parser.add_argument("--budget", type=int, default=1000, help="gradient evaluations of each attack")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--attacks", default=",".join(ATTACKS), help="names with options, joined by commas")
    parser.add_argument("--noises", default=f"0,{NOISE:g}", help="relative noise on the gradient, joined by commas")
    parser.add_argument("--quick", action="store_true", help="every third network, one picture, budget 500")
    given = parser.parse_args()
    budget, pictures = (500, PICTURES[:1]) if given.quick else (given.budget, PICTURES)
    numbers = range(0, len(ARCHITECTURES), 3) if given.quick else range(len(ARCHITECTURES))
    cells = [(number, index) for number in numbers for index in pictures]
    attacks, noises = given.attacks.split(","), [float(noise) for noise in given.noises.split(",")]
    tasks: list[Task] = [("metric", number, -1, "", 0, 0.0) for number in numbers]
    tasks += [("drawn", number, -1, "", 0, 0.0) for number in numbers]
    tasks += [("scores", *cell, "", 0, 0.0) for cell in cells]
    tasks += [("attack", *cell, name, budget, noise) for noise in noises for cell in cells for name in attacks]
    rows = collect(given.out, tasks, given.workers)
    found = {key_of(row): row for row in rows}
    networks = [ARCHITECTURES[number] for number in numbers]
    for noise in noises:
        show(Results(found, networks, pictures, attacks, budget, noise))


if __name__ == "__main__":
    main()
