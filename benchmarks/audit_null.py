"""Does the verdict of an audit keep its false-alarm rate, and does it see what is there?

Reconstructions are made up, so that what they tell is known, and go through the line-ups and the judgement of an audit.
Guesses that know nothing: noise, low-frequency noise, and the mean of other pictures of the class. What knows something: the
picture up to rounding, and an 8x8 thumbnail of it under noise. The first table has 200 cells of one CIFAR-10 picture each,
judged one by one and then as one audit. The second has whole audits of scikit-learn's digits: sixteen of them, each alone and
all in one batch, under every guess.

    python -m benchmarks.audit_null [--quick]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import torch
from scipy.stats import binom
from torch import Tensor
from torch.nn import functional

import leakgauge as lg
from benchmarks.common import data_root, machine, table
from leakgauge.audit.making import control_of, example_scores, record_of
from leakgauge.audit.plan.cell import Cell
from leakgauge.audit.record import Pictures, Record
from leakgauge.audit.run.result import CellResult
from leakgauge.audit.verdict.decoys import decoys_of
from leakgauge.audit.verdict.judge import Judgement, judge
from leakgauge.audit.verdict.lineups import line_ups_of
from leakgauge.measures.score import score_tensor

RATE = 0.05
RESAMPLES = 2000
THUMBNAIL_NOISE = 0.5
MEAN_OF = "demo:digits?size=8&indices=1500-1796"
MODEL = "mlp:hidden=4,activation=sigmoid"
Guess = Callable[[lg.Batch, torch.Generator], Tensor]


@cache
def batch_of(data: str) -> lg.Batch:
    return lg.load_data(data)


@cache
def blank(shape: tuple[int, int, int]) -> Record:
    """A record whose conditions a made-up reconstruction can carry."""
    batch = lg.Batch(torch.zeros(1, *shape), torch.zeros(1, dtype=torch.long), lg.ImageSpec(shape))
    model = lg.load_model(MODEL, num_classes=10, input_shape=shape)
    seen = lg.ThreatModel.honest_but_curious().observe(lg.Client(model).train(batch, seed=0), model, batch.spec)
    return record_of(seen, lg.attack(seen, "control"))


@cache
def class_means() -> Tensor:
    """(10, 3, 32, 32): means of other CIFAR-10 pictures, by class."""
    with np.load(data_root() / "cifar10" / "aux.npz", allow_pickle=False) as file:
        pixels = torch.from_numpy(file["x_train"]).permute(0, 3, 1, 2).float() / 255
        labels = torch.from_numpy(file["y_train"]).long()
    return torch.stack([pixels[labels == label].mean(0) for label in range(10)])


def noise(batch: lg.Batch, generator: torch.Generator) -> Tensor:
    return torch.rand(batch.inputs.shape, generator=generator)


def low_frequency(batch: lg.Batch, generator: torch.Generator) -> Tensor:
    small = torch.rand(*batch.inputs.shape[:2], 4, 4, generator=generator)
    return functional.interpolate(small, size=batch.inputs.shape[2:], mode="bicubic").clamp(0, 1)


def class_mean(batch: lg.Batch, generator: torch.Generator) -> Tensor:  # noqa: ARG001
    return class_means()[batch.labels]


def digit_mean(batch: lg.Batch, generator: torch.Generator) -> Tensor:  # noqa: ARG001
    return digit_means()[batch.labels]


@cache
def digit_means() -> Tensor:
    """(10, 1, 8, 8), of the digits that no audit here draws private ones from."""
    batch = batch_of(MEAN_OF)
    return torch.stack([batch.inputs[batch.labels == label].mean(0) for label in range(10)])


def exact(batch: lg.Batch, generator: torch.Generator) -> Tensor:
    return (batch.inputs + 1e-6 * torch.randn(batch.inputs.shape, generator=generator)).clamp(0, 1)


def thumbnail(batch: lg.Batch, generator: torch.Generator) -> Tensor:
    small = functional.interpolate(functional.adaptive_avg_pool2d(batch.inputs, 8), size=batch.inputs.shape[2:])
    return (small + THUMBNAIL_NOISE * torch.randn(small.shape, generator=generator)).clamp(0, 1)


def cell_result(data: str, attack: str, guess: Tensor, seen: tuple[str, ...] = ()) -> CellResult:
    """What an audit would keep of a cell in which an attack returned these pixels."""
    batch = batch_of(data)
    scores = score_tensor(batch, guess)
    control, pixels = control_of_data(data)
    record = replace(
        blank(tuple(batch.inputs.shape[1:])),
        attack=attack,
        scores=example_scores(batch, scores, None, None),
        control=control,
        pictures=Pictures(guess=guess, truth=batch.inputs, control=pixels),
    )
    decoys = decoys_of(data, "auto", batch, seen=seen)
    return CellResult(
        Cell(data, MODEL, attack, 0), "ok", record=record, line_ups=line_ups_of(record, decoys), decoys=decoys.words
    )


@cache
def control_of_data(data: str) -> tuple[Any, Tensor]:
    return control_of(batch_of(data))


def judged(results: Sequence[CellResult], seed: int = 0) -> Judgement:
    return judge(results, false_alarm=RATE, resamples=RESAMPLES, seed=seed)


def cells_of(guess: Guess, count: int) -> list[CellResult]:
    """One cell for each of the first pictures of the shared folder."""
    results = []
    for place in range(count):
        data = f"folder:{data_root() / 'cifar10'}?indices={place}"
        results.append(cell_result(data, guess.__name__, guess(batch_of(data), lg.rng(place, guess.__name__))))
    return results


def cells_row(guess: Guess, count: int) -> tuple[list[Any], bool]:
    """A line of the first table, and whether its limits hold."""
    results = cells_of(guess, count)
    alone = sum(judged([result]).counts["identified"] for result in results)
    together = judged(results)
    (group,) = together.groups
    ssim = np.median([result.record.scores[0].ssim for result in results if result.record])
    row = [guess.__name__.replace("_", " "), f"{group.median:.1f}", f"{ssim:.2f}", alone, together.counts["identified"]]
    row += [f"{group.first} ({group.expected:.0f})", f"{group.p:.2g}", "yes" if group.identifying else "no"]
    if guess is exact:
        return row, alone == together.counts["identified"] == count
    if guess is thumbnail:
        return row, group.identifying and bool(ssim < 0.2)
    return row, alone <= limit(count)


def limit(count: int) -> int:
    """The largest number of alarms that a binomial at the stated rate exceeds with less than 1 %."""
    return int(binom.ppf(0.99, count, RATE))


def audit_of(run: int, guesses: Sequence[Guess]) -> Judgement:
    """Sixteen digits drawn at random, each alone and all in one batch, under every guess."""
    chosen = torch.randperm(1500, generator=lg.rng(run, "digits"))[:16].tolist()
    batches = [f"demo:digits?size=8&indices={place}" for place in chosen]
    batches.append("demo:digits?size=8&indices=" + ",".join(map(str, chosen)))
    results = []
    for data in batches:
        for guess in guesses:
            pixels = guess(batch_of(data), lg.rng(run, data, guess.__name__))
            results.append(cell_result(data, guess.__name__, pixels, (MEAN_OF,)))
    return judged(results, run)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer cells and audits")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    count, audits = (40, 10) if quick else (200, 200)
    print(
        f"{machine()}\n\n{count} cells, rate {RATE:g}; guesses that know nothing: at most {limit(count)} alarms, cell by cell\n"
    )
    made = [cells_row(guess, count) for guess in (noise, low_frequency, class_mean, thumbnail, exact)]
    held = [good for _, good in made]
    names = ("identified, cell by cell", "as one audit", "nearest of all (by chance)", "p", "group points to records")
    print(table(("reconstruction", "PSNR", "SSIM", *names), [row for row, _ in made]), flush=True)
    print(f"\n{audits} audits that tell nothing, rate {RATE:g}: at most {limit(audits)} with an alarm of each kind\n")
    lines = []
    for name, guesses in (("all three", (noise, low_frequency, digit_mean)), ("class mean", (digit_mean,))):
        found = [audit_of(run, guesses) for run in range(audits)]
        records = sum(one.counts["identified"] > 0 for one in found)
        groups = sum(any(group.identifying for group in one.groups) for one in found)
        lines.append([name, records, groups])
        held.append(max(records, groups) <= limit(audits))
    print(table(("guesses", "audits that identify a record", "audits with a group that points to records"), lines))
    print("\nAll limits hold." if all(held) else "\nNOT all limits hold.")


if __name__ == "__main__":
    main()
