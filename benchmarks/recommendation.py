"""Does the change that `recommendations` names first make a network leak less, at what accuracy, and is a picture left?

Three leaking networks for 32x32 colour pictures are rebuilt as the first sufficient recommendation says. Both versions are
trained alike on 1,800 CIFAR-10 pictures (Adam, cross-entropy, flips and shifts, stopped early by the loss on 200 others), from
three seeds, and tested on 500. Then single-example float32 gradients of five other pictures are attacked, of both versions,
untrained and trained (first seed), labels granted. The best of all attacks is picked by the truth: an oracle, and the
measurement, no attack. A median of 20 dB or more counts as recognisable. `--ladder` looks which share has to stay open: every
sufficient change at larger thresholds, trained from one seed, with two attacks at half the budget on three
pictures. `--out` keeps every result, and a second call goes on from there.

    python -m benchmarks.recommendation [--quick] [--ladder] [--out DIR] [--workers 2]
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import time
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import leakgauge as lg
from benchmarks.common import data_root, machine, observe, say, table
from benchmarks.recommendation_networks import NETWORKS, SHAPE, Version, versions

PICTURES = (0, 60, 120, 160, 180)  # aeroplane, cat, frog, ship, truck of the shared folder; none of them is in aux.npz
BUDGET = 1000  # gradient evaluations of each matching attack; recursive and hybrid take what they take
ATTACKS = ("recursive", "hybrid", "idlg", "idlg:tv=0.001", "inverting-gradients")
LADDER_ATTACKS = ("hybrid", "inverting-gradients")  # hybrid starts with recursive
EXACT = 60.0  # dB: further attacks on the picture are left out, since none could matter
RECOGNISABLE = 20.0  # dB
EPOCHS, PATIENCE, RATE, SIZE = 60, 10, 2e-3, 50
SEEDS = 3
STATES = ("untrained", "trained")


def picture(index: int) -> lg.Batch:
    return lg.load_data(f"folder:{data_root() / 'cifar10'}?indices={index}&size={SHAPE[1]}")


@cache
def auxiliary() -> dict[str, Tensor]:
    """Pictures in [0, 1], channels first, and labels, by name."""
    with np.load(data_root() / "cifar10" / "aux.npz", allow_pickle=False) as file:
        data = {key: torch.from_numpy(file[key]) for key in ("x_train", "y_train", "x_test", "y_test")}
    return {key: value.permute(0, 3, 1, 2).float() / 255 if key[0] == "x" else value.long() for key, value in data.items()}


def augmented(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Flipped with probability one half and shifted by up to three pixels, edges repeated."""
    count, side = len(pictures), SHAPE[1]
    flip = torch.rand(count, generator=generator) < 0.5
    padded = nn.functional.pad(torch.where(flip[:, None, None, None], pictures.flip(3), pictures), (3, 3, 3, 3), "replicate")
    down, right = torch.randint(0, 7, (2, count), generator=generator).tolist()
    return torch.stack([one[:, i : i + side, j : j + side] for one, i, j in zip(padded, down, right, strict=True)])


def train(version: Version, seed: int, out: Path) -> dict[str, Any]:
    """Trains one network, keeps the weights of the lowest validation loss, and tests them once."""
    began, data, model = time.process_time(), auxiliary(), version.network.build(seed)
    generator = lg.rng(seed, "recommendation")  # the same pictures in the same order for every network
    order = torch.randperm(len(data["x_train"]), generator=generator)
    held, used = order[:200], order[200:]
    loss = nn.CrossEntropyLoss()
    search = torch.optim.Adam(model.parameters(), lr=RATE)
    lowest, waited, epochs = math.inf, 0, 0
    best = {key: value.clone() for key, value in model.state_dict().items()}
    while epochs < EPOCHS and waited < PATIENCE:
        epochs += 1
        for chosen in used[torch.randperm(len(used), generator=generator)].split(SIZE):
            search.zero_grad()
            loss(model(augmented(data["x_train"][chosen], generator)), data["y_train"][chosen]).backward()
            search.step()
        with torch.no_grad():
            now = float(loss(model(data["x_train"][held]), data["y_train"][held]))
        waited += 1
        if now < lowest:
            lowest, waited = now, 0
            best = {key: value.clone() for key, value in model.state_dict().items()}
    model.load_state_dict(best)
    if seed == 0:
        save_file(best, out / version.file)
    with torch.no_grad():
        right = (model(data["x_test"]).argmax(1) == data["y_test"]).int().tolist()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {"right": right, "epochs": epochs, "parameters": parameters, "seconds": time.process_time() - began}


def load(version: Version, state: str, out: Path) -> nn.Sequential:
    model = version.network.build()
    if state == "trained":
        model.load_state_dict(load_file(out / version.file))
    return model


def assail(version: Version, state: str, index: int, attacks: tuple[str, ...], budget: int, out: Path) -> dict[str, Any]:
    """Every attack on one picture until one is exact."""
    batch, began = picture(index), time.process_time()
    seen = observe(load(version, state, out), batch, labels=True)
    guesses: dict[str, dict[str, Any]] = {}
    for name in attacks:
        plain, _, option = name.partition(":")
        options = {key: float(value) for key, _, value in [option.partition("=")] if key}
        limit: str | int = "fast" if plain in ("recursive", "hybrid") else budget
        try:
            guess = lg.attack(seen, plain, seed=0, budget=limit, **options)
        except lg.LeakgaugeError as error:
            guesses[name] = {"psnr": None, "outcome": str(error).splitlines()[0]}
            continue
        psnr = float(lg.score(batch, guess).psnr[0]) if len(guess.inputs) else None
        guesses[name] = {"psnr": psnr, "outcome": guess.outcome.name, "certified": bool(guess.certified.any())}
        if psnr is not None and psnr >= EXACT:
            break
    return {"guesses": guesses, "seconds": time.process_time() - began}


def references(index: int) -> dict[str, Any]:
    """The control, with all training pictures as public ones, and the true picture itself after pooling by 2, 3 and 4."""
    batch = picture(index)
    seen = observe(NETWORKS[1].build(), batch, labels=True)
    guess = lg.attack(seen, "control", public=auxiliary()["x_train"])
    row: dict[str, Any] = {"control": float(lg.score(batch, guess).psnr[0])}
    for side in (2, 3, 4):
        small = nn.functional.avg_pool2d(batch.inputs, side)
        large = nn.functional.interpolate(small, scale_factor=side, mode="bilinear").clamp(0, 1)
        lacks = SHAPE[1] - large.shape[2]  # of 32 pixels, pooling by 3 leaves two at the border out
        large = nn.functional.pad(large, (0, lacks, 0, lacks), "replicate")
        row[f"pool {side}"] = -10 * math.log10(float((large - batch.inputs).square().mean()))
    return row


def rate(version: Version, state: str, index: int, out: Path) -> dict[str, Any]:
    """The leakage score at one picture, at its defaults, as a PSNR and in leaked dimensions."""
    batch, began = picture(index), time.process_time()
    score = lg.leakage_score(load(version, state, out), batch.inputs, label=batch.labels)
    return {
        "psnr": -10 * math.log10(max(score.posterior_error, 1e-30)),
        "dimensions": score.leaked_dimensions,
        "method": score.method,
        "seconds": time.process_time() - began,
    }


Task = tuple[
    str, Version | None, str, int, tuple[str, ...], int, Path
]  # kind, version, state, picture or seed, attacks, budget, folder


def key_of(task: Task) -> str:
    kind, version, state, index, attacks, budget, _ = task
    return json.dumps([kind, version and (version.number, version.change), state, index, attacks, budget])


def work(task: Task) -> dict[str, Any]:
    torch.set_num_threads(1)
    kind, version, state, index, attacks, budget, out = task
    if version is None:
        row = references(index)
    elif kind == "train":
        row = train(version, index, out)
    elif kind == "score":
        row = rate(version, state, index, out)
    else:
        row = assail(version, state, index, attacks, budget, out)
    return {"key": key_of(task), **row}


def collect(tasks: list[Task], out: Path, workers: int) -> dict[str, dict[str, Any]]:
    """Every result by its key, those of an earlier call read from the file."""
    file = out / "results.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    found = {row["key"]: row for row in rows}
    missing = [task for task in tasks if key_of(task) not in found]
    say({"done": len(tasks) - len(missing), "missing": len(missing)})
    with multiprocessing.get_context("spawn").Pool(workers) as pool, file.open("a") as stream:
        for count, row in enumerate(pool.imap_unordered(work, missing), start=1):
            found[row["key"]] = row
            stream.write(json.dumps(row) + "\n")
            stream.flush()
            if count % 10 == 0 or count == len(missing):
                say({"finished": count, "of": len(missing)})
    return found


@dataclass(frozen=True)
class Leak:
    """The best of all attacks on each picture, best by the truth."""

    each: tuple[float, ...]
    winners: str
    certified: int

    @property
    def middle(self) -> float:
        return median(self.each)

    @property
    def text(self) -> str:
        return decibels(self.middle)


def decibels(value: float) -> str:
    return "exact" if value == math.inf else f"{value:.1f}"


@dataclass(frozen=True)
class Tables:
    """Looks results up and writes tables and sentences."""

    found: dict[str, dict[str, Any]]
    pictures: tuple[int, ...]
    attacks: tuple[str, ...]
    budget: int
    seeds: int
    out: Path

    def row(self, kind: str, version: Version | None, state: str = "", index: int = -1) -> dict[str, Any]:
        attacks, budget = (self.attacks, self.budget) if kind == "attack" else ((), 0)
        return self.found[key_of((kind, version, state, index, attacks, budget, self.out))]

    def leak(self, version: Version, state: str) -> Leak:
        best = []
        for index in self.pictures:
            guesses = self.row("attack", version, state, index)["guesses"]
            tried = {name: one for name, one in guesses.items() if one["psnr"] is not None}
            name = max(tried, key=lambda name: tried[name]["psnr"])
            best.append((tried[name]["psnr"], name, tried[name]["certified"]))
        winners = Counter(name for _, name, _ in best).most_common()
        words = ", ".join(f"{name} {count}/{len(best)}" for name, count in winners)
        return Leak(tuple(psnr for psnr, _, _ in best), words, sum(certified for _, _, certified in best))

    def right(self, version: Version) -> Tensor:
        """Whether each test picture was classified rightly, (seeds, 500), in points."""
        return 100 * torch.tensor([self.row("train", version, "", seed)["right"] for seed in range(self.seeds)]).double()

    def accuracy(self, version: Version) -> str:
        return points(self.right(version)) + " %"

    def reference(self, name: str) -> float:
        return median(self.row("reference", None, "", index)[name] for index in self.pictures)

    def score(self, version: Version, state: str) -> str:
        try:
            row = self.row("score", version, state, self.pictures[0])
        except KeyError:
            return "-"
        return f"{row['psnr']:.1f} dB, {row['dimensions']:,.0f} dimensions"

    def show(self, pairs: list[tuple[Version, Version]]) -> None:
        rows = []
        for now, changed in pairs:
            for state in STATES:
                for version in (now, changed):
                    leak = self.leak(version, state)
                    change = "as it is" if version is now else f"{changed.change} ({changed.share:.0%} open)"
                    accuracy = self.accuracy(version) if state == "trained" else "-"
                    spread = f"{decibels(min(leak.each))} to {decibels(max(leak.each))}"
                    certified = f"{leak.certified}/{len(leak.each)}"
                    cells = (state, accuracy, leak.text, spread, leak.winners, certified, self.score(version, state))
                    rows.append((now.network.name, change, *cells))
        head = ("network", "version", "state", "test accuracy", "median best PSNR, dB (oracle)", "range", "best attack")
        print(table((*head, "certified", "leakage score at the first picture"), rows) + "\n")
        self.show_references()
        for now, changed in pairs:
            print("- " + self.sentence(now, changed))

    def show_references(self) -> None:
        pooled = ", ".join(f"by {side} {self.reference(f'pool {side}'):.1f} dB" for side in (2, 3, 4))
        print(f"Control, without any gradient: median {self.reference('control'):.1f} dB.")
        print(f"The true picture itself, averaged and enlarged again: {pooled} (medians).\n")

    def sentence(self, now: Version, changed: Version) -> str:
        parts = []
        for state in STATES:
            before, after = self.leak(now, state), self.leak(changed, state)
            lower = sum(b < a for a, b in zip(before.each, after.each, strict=True))
            less = f"leaks less ({lower} of {len(after.each)} pictures)" if lower > len(after.each) / 2 else "does not leak less"
            left = "still recognisable" if after.middle >= RECOGNISABLE else "no longer recognisable"
            parts.append(f"{state}, it {less}: {before.text} -> {after.text} dB, {left}")
        gained = self.right(changed) - self.right(now)
        within = "within 2 points" if abs(float(gained.mean())) <= 2 else "not within 2 points"
        seeds = ", ".join(f"{float(one.mean()):+.1f}" for one in gained)
        cost = f"the accuracy changes by {points(gained, '+')} points ({within}; by seed {seeds})"
        return f"{now.network.name}, {changed.change}: {'; '.join(parts)}; {cost}."

    def show_ladder(self, versions: list[Version]) -> None:
        rows, needed = [], []
        for number, network in enumerate(NETWORKS):
            now, *changes = sorted((one for one in versions if one.number == number), key=lambda one: one.share)
            leaks = {one.change: self.leak(one, "trained") for one in (now, *changes)}
            for one in (now, *changes):
                leak, cost = leaks[one.change], "-" if one is now else points(self.right(one) - self.right(now), "+")
                rows.append((network.name, one.change, f"{one.share:.1%}", leak.text, leak.winners, self.accuracy(one), cost))
            hidden = [f"{one.share:.1%} ({one.change})" for one in changes if leaks[one.change].middle < RECOGNISABLE]
            shown = [f"{one.share:.1%} ({one.change})" for one in changes if leaks[one.change].middle >= RECOGNISABLE]
            lowest = f"lowest share that hides the pictures {hidden[0]}" if hidden else "no change hides the pictures"
            highest = f"highest share that still shows them {shown[-1]}" if shown else "no change still shows them"
            needed.append(f"- {network.name}: {lowest}; {highest}.")
        head = ("network", "first layer", "share open", "trained: median best PSNR, dB (oracle)", "best attack", "test accuracy")
        print(table((*head, "change in points"), rows) + "\n")
        self.show_references()
        print("\n".join(needed))


def points(right: Tensor, sign: str = "") -> str:
    """The mean with its standard error over the pictures, of (seeds, pictures)."""
    each = right.mean(0)
    return f"{float(each.mean()):{sign}.1f} ± {float(each.std() / math.sqrt(len(each))):.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("recommendation"), help="folder for the results")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="one seed, one picture, budget 200, no leakage scores")
    parser.add_argument("--ladder", action="store_true", help="all sufficient changes of all thresholds, instead of the first")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    attacks, pictures, states = (LADDER_ATTACKS, PICTURES[:3], STATES[1:]) if given.ladder else (ATTACKS, PICTURES, STATES)
    seeds, budget = (1, BUDGET // 2) if given.ladder else (SEEDS, BUDGET)
    if given.quick:
        pictures, budget, seeds = PICTURES[:1], 200, 1
    chosen = versions(given.ladder)
    began = time.time()
    training: list[Task] = [("train", one, "", seed, (), 0, given.out) for seed in range(seeds) for one in chosen]
    collect(training, given.out, given.workers)
    tasks: list[Task] = [("reference", None, "", index, (), 0, given.out) for index in pictures]
    if not (given.quick or given.ladder):
        tasks += [("score", one, "trained", pictures[0], (), 0, given.out) for one in chosen]
    tasks += [
        ("attack", one, state, index, attacks, budget, given.out) for one in chosen for state in states for index in pictures
    ]
    found = collect(tasks, given.out, given.workers)
    seconds = sum(found[key_of(task)].get("seconds", 0.0) for task in (*training, *tasks))
    tables = Tables(found, pictures, attacks, budget, seeds, given.out)
    print(f"{machine()}; {seconds / 60:.1f} CPU minutes in all, {(time.time() - began) / 60:.1f} by the clock of this call.")
    print(f"Attacks: {', '.join(attacks)}; {budget} gradient evaluations for each that matches; {len(pictures)} pictures.\n")
    if given.ladder:
        tables.show_ladder(chosen)
    else:
        tables.show(list(zip(chosen[::2], chosen[1::2], strict=True)))


if __name__ == "__main__":
    main()
