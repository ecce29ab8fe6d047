"""`bn-matching` on clients that train as real ones do: BatchNorm in training mode, weight changes, several steps, noise.

Parts: `shallow` (one picture, 32x32, against the same attack without statistics and under the eval-mode assumption), `xray`
(the same at 64x64 on radiographs, with RDLV and identification), `trained` (after ten rounds of federated training), `batch`
(2, 4 and 8 pictures), `steps` (2, 5 and 10 local steps, replay against the surrogate), `noise` (defences, plain and adaptive
attack), `statistics` (recovered BatchNorm statistics), `deep` (a ResNet-18 type of network, ten minutes a picture). Labels are
granted throughout. Grey CIFAR-10 pictures are the mean of the three channels, and so not on the 8-bit grid.

    LEAKGAUGE_DATA=... python -m benchmarks.realistic --part NAME [--pictures N] [--seeds S] [--budget B]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import Tensor

import leakgauge as lg
from benchmarks import realistic_protocol as protocol
from benchmarks.common import Clock, data_root, machine, table
from benchmarks.realistic_cases import (
    ATTACKS,
    GREY,
    HEADER,
    Row,
    auxiliary,
    cifar,
    gate,
    grey,
    living,
    middle,
    network,
    observed,
    run,
    spread,
    summary,
)

Budget = str | int


def claim(rows: dict[str, list[Row]]) -> str:
    """The paper's claim on one run, figure by figure."""
    ours, blind, eval_mode = (rows[attack] for attack in ATTACKS)
    with_it, without = middle(ours, "psnr"), middle(blind, "psnr")
    return "\n".join([
        gate("bn-matching, median PSNR dB", with_it, 40),
        gate("bn-matching, median SSIM", middle(ours, "ssim"), 0.98),
        gate("dB above bn-matching-no-statistics", with_it - without, 10),
        gate("SSIM above bn-matching-eval-mode", middle(ours, "ssim") - middle(eval_mode, "ssim"), 0.3),
        gate("bn-matching, highest CPU s", max(row.seconds for row in ours), most=15),
        gate("highest CPU s of any", max(row.seconds for found in rows.values() for row in found), most=15),
    ])  # fmt: skip


def shallow(pictures: int, seeds: int, budget: Budget) -> None:
    """One picture of 32x32, untrained network."""
    rows: dict[str, list[Row]] = {attack: [] for attack in ATTACKS}
    for place in spread(pictures):
        batch = cifar([place], classes=2)
        for seed in range(seeds):
            seen = observed(network(batch, 2, seed), batch, seed)
            for attack in ATTACKS:
                rows[attack].append(run(batch, seen, attack, f"grey {place} seed {seed}", seed, budget=budget))
    lines = [summary("grey 1x32x32, 2 classes", attack, found) for attack, found in rows.items()]
    print(f"\n### shallow-resnet, one picture, untrained, {pictures} pictures x {seeds} seeds\n\n{table(HEADER, lines)}\n")
    print(claim(rows), flush=True)
    colour: dict[str, list[Row]] = {attack: [] for attack in ATTACKS}
    for place in spread(min(6, pictures), first=7):
        batch = cifar([place], colour=True)
        seen = observed(network(batch, 10), batch)
        for attack in ATTACKS:
            colour[attack].append(run(batch, seen, attack, f"colour {place}", budget=budget))
    lines = [summary("colour 3x32x32, 10 classes", attack, found) for attack, found in colour.items()]
    print(f"\n### The same in colour, one seed\n\n{table(HEADER, lines)}", flush=True)


def xray(pictures: int, seeds: int, budget: Budget) -> None:
    """One radiograph of 64x64, untrained network, against the mean of the other radiographs of its class."""
    folder = data_root() / "chest_xray"
    known = grey(lg.load_data(f"folder:{folder}?size=64"), 3)
    assert isinstance(known.inputs, Tensor)
    rows: dict[str, list[Row]] = {attack: [] for attack in ATTACKS}
    lines: dict[str, list[list[float]]] = {attack: [] for attack in ATTACKS}
    for place in spread(pictures, total=len(known)):
        truth, others = known.inputs[place : place + 1], torch.arange(len(known)) != place
        prior = known.inputs[others & (known.labels == known.labels[place])].mean(0)
        batch = lg.Batch(truth, known.labels[place : place + 1], known.spec)
        alone = float(lg.rdlv(truth, prior[None], None)[0])
        for seed in range(seeds):
            seen = observed(network(batch, 3, seed), batch, seed)
            for attack in ATTACKS:
                row = run(batch, seen, attack, f"radiograph {place} seed {seed}", seed, budget=budget)
                variants = [float(lg.rdlv(truth, row.pixels, prior, name)[0]) for name in ("default", "released")]
                rank = int(lg.identification(truth, row.pixels, known.inputs[others]).rank[0])
                rows[attack].append(row)
                lines[attack].append([alone, *variants, float(rank == 1)])
    print(f"\n### shallow-resnet, one radiograph of 64x64, 3 classes, untrained, {pictures} x {seeds}\n")
    print(table(HEADER, [summary("1x64x64", attack, found) for attack, found in rows.items()]))
    shown = []
    for attack, found in lines.items():
        mean, default, released, first = torch.tensor(found, dtype=torch.float64).T
        shown.append([
            attack, f"{middle(rows[attack], 'ssim'):.3f}", f"{mean.median():.3f} ({mean.min():.3f} to {mean.max():.3f})",
            f"{default.nanmedian():.3f}", f"{default.min():.3f}", f"{released.nanmedian():.3f}", f"{released.min():.3f}",
            f"{int(first.sum())}/{len(first)}",
        ])  # fmt: skip
    header = ("attack", "SSIM median", "SSIM of the class mean, median (range)", "RDLV median", "lowest", "RDLV released median",
              "lowest", "first of 30")  # fmt: skip
    print(f"\n{table(header, shown)}\n")
    print("The class mean is that of the other radiographs of the class, resized alike. Identification: the 29 other radiographs")
    print("of all classes are the decoys, because the 9 of the same class are fewer than the 19 that a test needs.\n")
    print(claim(rows))
    print(gate("bn-matching, median RDLV", float(torch.tensor(lines[ATTACKS[0]])[:, 1].nanmedian()), 0.5), flush=True)


def trained(pictures: int, seeds: int, budget: Budget) -> None:
    """One picture of a new client, after ten rounds of three members."""
    pool, validation = auxiliary("train", 192), auxiliary("test", 300)
    training = lg.LocalTraining(epochs=1, batch_size=8, lr=0.01, mode="train")
    assert isinstance(pool.inputs, Tensor)
    members = tuple(
        lg.Member(f"client {index + 1}", lg.Batch(pool.inputs[part], pool.labels[part], GREY), training)
        for index, part in enumerate(torch.arange(192).chunk(3))
    )
    print("\n### shallow-resnet, one picture of a new client after ten rounds (animals against vehicles, 3 members x 64)\n")
    rows: dict[str, list[Row]] = {attack: [] for attack in (*ATTACKS, "control")}
    for seed in range(seeds):
        model = network(pool, 2, seed)
        for done in lg.Federation(model, members, validation=validation).run(10, seed=seed):
            if done.index in (1, 5, 10):
                print(f"- seed {seed}, round {done.index}: accuracy {done.accuracy:.3f}, loss {done.loss:.3f}")
        model.load_state_dict(done.state)
        for place in spread(pictures):
            batch = cifar([place])
            batch = lg.Batch(batch.inputs, living(batch.labels), batch.spec)
            seen = observed(model, batch, seed)
            for attack, found in rows.items():
                options = {} if attack == "control" else {"budget": budget}
                found.append(run(batch, seen, attack, f"trained {place} seed {seed}", seed, **options))
    share = float(validation.labels.double().mean())
    print(f"- always 'animal' would be right on {share:.3f} of the 300 validation pictures\n")
    print(table(HEADER, [summary("after 10 rounds", attack, found) for attack, found in rows.items()]), flush=True)


def deep(pictures: int, seeds: int, budget: Budget) -> None:
    """A ResNet-18 type of network (20 BatchNorm layers, strides, average pooling) from a class mean as prior: a goal, no gate."""
    rows: dict[str, list[Row]] = {"bn-matching": [], "control": []}
    for place in spread(pictures, first=3):
        batch, kind = cifar([place]), place // 20
        public = cifar([other for other in range(20 * kind, 20 * kind + 20) if other != place])
        assert isinstance(public.inputs, Tensor)
        for seed in range(seeds):
            seen = observed(network(batch, 10, seed, "resnet18-cifar:width=16"), batch, seed)
            prior, setting = public.inputs.mean(0), f"deep {place} seed {seed}"
            found = run(batch, seen, "bn-matching", setting, seed, budget=budget, time_limit=600.0, prior=prior)
            rows["bn-matching"].append(found)
            rows["control"].append(run(batch, seen, "control", setting, seed, rule="mean", public=public.inputs))
    print("\n### resnet18-cifar:width=16, 20 BatchNorm layers, one grey picture of 32x32, prior: mean of the class, 10 minutes\n")
    print(table(HEADER, [summary("1x32x32", attack, found) for attack, found in rows.items()]))
    print("\n" + gate("SSIM of bn-matching", middle(rows["bn-matching"], "ssim"), 0.5), flush=True)


def batch_sizes(pictures: int, seeds: int, budget: Budget) -> None:
    """Several pictures in one local step; `pictures` counts batches."""
    lines = []
    for count in (2, 4, 8):
        for kind in ("distinct", "repeated"):
            rows: dict[str, list[Row]] = {attack: [] for attack in ATTACKS[:2]}
            for index in range(pictures):
                repeated = [20 * (item // 2) + 2 * index + item % 2 for item in range(count)]
                batch = cifar(repeated if kind == "repeated" else [20 * item + index for item in range(count)])
                for seed in range(seeds):
                    seen = observed(network(batch, 10, seed), batch, seed)
                    for attack, found in rows.items():
                        found.append(run(batch, seen, attack, f"batch {count} {kind} {index}", seed, budget=budget))
            lines += [summary(f"{count} pictures, {kind} labels", attack, found) for attack, found in rows.items()]
    header = [cell.replace("pictures", "batches") for cell in HEADER]
    print("\n### shallow-resnet, 10 classes, 1x32x32, one step on several pictures (PSNR and SSIM: mean over the batch)\n")
    print(table(header, lines), flush=True)


Part = Callable[[int, int, Budget], None]
PARTS: dict[str, tuple[Part, int, int, Budget]] = {  # each with its default pictures, seeds and budget
    "shallow": (shallow, 20, 2, "fast"),
    "xray": (xray, 10, 1, "fast"),
    "trained": (trained, 6, 1, "fast"),
    "batch": (batch_sizes, 2, 1, "fast"),
    "steps": (protocol.steps, 1, 1, 800),
    "noise": (protocol.noise, 3, 1, "fast"),
    "statistics": (protocol.statistics, 4, 1, "fast"),
    "deep": (deep, 1, 1, 14_000),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, help="only this one")
    parser.add_argument("--pictures", type=int, help="how many")
    parser.add_argument("--seeds", type=int, help="how many")
    parser.add_argument("--budget", help="of each attack, as `leakgauge.attack` takes it")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"Machine: {machine()}")
    for name, (part, pictures, seeds, budget) in PARTS.items():
        if arguments.part in (None, name):
            clock = Clock.start()
            part(arguments.pictures or pictures, arguments.seeds or seeds, arguments.budget or budget)
            print(f"\nPart {name}: {clock.seconds:.0f} CPU seconds in all.", flush=True)


if __name__ == "__main__":
    main()
