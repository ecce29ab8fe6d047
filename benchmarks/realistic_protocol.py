"""Parts of `benchmarks.realistic` about the protocol: several local steps, defences, recovered BatchNorm statistics."""

from __future__ import annotations

import copy
import math
import statistics as stats
import time
from collections.abc import Sequence
from typing import Any

import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

import leakgauge as lg
from benchmarks.common import table
from benchmarks.realistic_cases import Row, cifar, decibels, gate, network, observed, run, spread
from leakgauge.attacks.base import Limits
from leakgauge.attacks.bn_presets import bn_matching
from leakgauge.attacks.matching.labelling import settle_labels
from leakgauge.core.batch_statistics import batch_norm_layers
from leakgauge.defences import Defence
from leakgauge.local.network import Network
from leakgauge.local.replay import replay

MULTISTEP = ("replay", "surrogate")
NOISE = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)  # standard deviation over the root mean square of the update's entries
SIGMA0 = (1e-3, 1e-2, 0.1, 1.0)
STATISTICS = (  # momentum, batch counter before, local steps, learning rate
    (0.1, 0, 1, 0.01), (0.1, 0, 2, 1e-3), (0.1, 0, 5, 1e-3), (0.1, 0, 10, 1e-3), (0.1, 50, 1, 0.01), (0.1, 50, 5, 1e-3),
    (None, 0, 1, 0.01), (None, 7, 1, 0.01), (None, 7, 5, 1e-3),
)  # fmt: skip
RESNETS = ("shallow-resnet", "resnet20", "resnet18-cifar:width=16")


def seconds_per_evaluation(seen: lg.Observation, multistep: str, repeats: int = 5) -> float:
    """CPU seconds of one objective and its gradient at the attack's start, the median of a few."""
    attack, limits = bn_matching(multistep=multistep), Limits()
    problem = attack._problem(seen, settle_labels(seen, "auto"), limits)
    points = attack._starting_points(problem, seen, lg.rng(0, "cost"), limits)
    problem.evaluate(points)
    spent = []
    for _ in range(repeats):
        began = time.process_time()
        problem.evaluate(points)
        spent.append(time.process_time() - began)
    return stats.median(spent)


def steps(pictures: int, seeds: int, budget: str | int) -> None:
    """Local steps on different mini-batches, in the order of the batch; `pictures` counts clients for each setting."""
    lines, goals = [], []
    for size, settings in ((1, ((2, 2), (5, 5), (10, 10))), (2, ((2, 4), (5, 4), (10, 4)))):
        for count, examples in settings:
            rows: dict[str, list[Row]] = {name: [] for name in MULTISTEP}
            costs: dict[str, list[float]] = {name: [] for name in MULTISTEP}
            losses = ""
            for index in range(pictures):
                batch = cifar(spread(examples, first=3 + index))
                for seed in range(seeds):
                    model = network(batch, 10, seed)
                    seen = observed(model, batch, seed, lr=1e-4, steps=count, batch_size=size, shuffle=False)
                    done = replay(
                        Network(model, "train"), batch.inputs, batch.labels, loss="cross_entropy", training=seen.training,
                        graph="none",
                    )  # fmt: skip
                    losses = losses or " ".join(f"{value:.2f}" for value in done.losses.tolist())
                    for name in MULTISTEP:
                        setting = f"{count} steps, mini-batches of {size}"
                        rows[name].append(run(batch, seen, "bn-matching", setting, seed, budget=budget, multistep=name))
                        costs[name].append(seconds_per_evaluation(seen, name))
            ratio = stats.median(costs["replay"]) / stats.median(costs["surrogate"])
            for name, found in rows.items():
                lines.append([
                    f"{count} steps on mini-batches of {size}, {examples} pictures", name,
                    f"{stats.mean(row.ssim for row in found):.3f}", decibels(stats.mean(row.psnr for row in found)),
                    f"{stats.mean(row.evaluations for row in found):.0f}", f"{stats.mean(row.seconds for row in found):.1f}",
                    f"{1000 * stats.median(costs[name]):.1f}", f"{ratio:.2f}" if name == "surrogate" else "1", losses,
                ])  # fmt: skip
            if count == 10:
                goals.append(gate(f"times faster in an evaluation, 10 steps, mini-batches of {size}", ratio, 3))
                whole = stats.mean(row.seconds for row in rows["replay"]) / stats.mean(row.seconds for row in rows["surrogate"])
                goals.append(gate(f"times faster in all, 10 steps, mini-batches of {size}", whole, 3))
    header = ("setting", "multistep", "SSIM mean", "PSNR dB mean", "evaluations", "CPU s in all", "ms per evaluation",
              "times faster", "loss per step (first client)")  # fmt: skip
    print(f"\n### Several local steps, shallow-resnet, 10 classes, lr 1e-4, budget {budget}\n\n{table(header, lines)}\n")
    print("\n".join(goals), flush=True)


def rms(seen: lg.Observation) -> float:
    """Root mean square over all entries of the update."""
    flat = torch.cat([tensor.double().flatten() for tensor in seen.tensors.values()])
    return float(flat.square().mean().sqrt())


def grids(undefended: lg.Observation) -> dict[str, list[tuple[str, Defence]]]:
    """The defences, with the size of one client's update as the unit."""
    unit = rms(undefended)
    norm = math.sqrt(sum(float(tensor.double().square().sum()) for tensor in undefended.tensors.values()))
    return {
        "none": [("none", lg.GaussianNoise(0.0))],
        "gaussian-noise, std over the update's rms": [(f"{factor:g}", lg.GaussianNoise(factor * unit)) for factor in NOISE],
        "percentile-noise with buffers, sigma0": [(f"{factor:g}", lg.PercentileNoise(factor)) for factor in SIGMA0],
        "others": [
            ("sign", lg.Sign()), ("quantise, 8 bits", lg.Quantise(8)), ("quantise, 4 bits", lg.Quantise(4)),
            ("prune 0.9", lg.Prune(0.9)), ("clip to a tenth of the norm", lg.Clip(norm / 10)),
        ],
    }  # fmt: skip


def noise(pictures: int, seeds: int, budget: str | int) -> None:
    """Defences: the attack that ignores them and the one that knows them."""
    clients = [(cifar([place], classes=2), seed) for place in spread(pictures, first=3) for seed in range(seeds)]
    plans = [grids(observed(network(batch, 2, seed), batch, seed)) for batch, seed in clients]
    header = ("strength", "plain SSIM", "PSNR dB", "adaptive SSIM", "PSNR dB", "adaptive minus plain, SSIM", "standard error",
              "CPU s each")  # fmt: skip
    for title, listed in plans[0].items():
        lines, means, gains = [], [], []
        for index, (strength, _) in enumerate(listed):
            found: dict[bool, list[Row]] = {False: [], True: []}
            for (batch, seed), plan in zip(clients, plans, strict=True):
                seen = observed(network(batch, 2, seed), batch, seed, defences=(plan[title][index][1],))
                for adaptive, rows in found.items():
                    rows.append(
                        run(batch, seen, "bn-matching", f"{title} {strength} {adaptive}", seed, budget=budget, adaptive=adaptive)
                    )
            gain = [knows.ssim - ignores.ssim for ignores, knows in zip(found[False], found[True], strict=True)]
            means.append([stats.mean(row.ssim for row in found[kind]) for kind in (False, True)])
            gains += gain
            lines.append([
                strength, f"{means[-1][0]:.3f}", decibels(stats.mean(row.psnr for row in found[False])), f"{means[-1][1]:.3f}",
                decibels(stats.mean(row.psnr for row in found[True])), f"{stats.mean(gain):+.3f}", f"{error(gain):.3f}",
                f"{stats.mean(row.seconds for rows in found.values() for row in rows):.1f}",
            ])  # fmt: skip
        print(f"\n### {title}: shallow-resnet, 1x32x32, {len(clients)} client(s), budget {budget}\n\n{table(header, lines)}\n")
        if len(means) > 2 and title != "others":
            for kind, name in enumerate(("plain", "adaptive")):
                value = round(float(spearmanr(range(len(means)), [row[kind] for row in means]).statistic), 9)
                print(gate(f"Spearman of mean SSIM against strength, {name}", value, most=-0.8))
        if len(gains) > 1:
            upper = stats.mean(gains) + 2 * error(gains)
            print(gate(f"adaptive minus plain, SSIM {stats.mean(gains):+.4f}, plus two standard errors", upper, 0), flush=True)


def error(values: Sequence[float]) -> float:
    """Standard error of the mean; 0 for one value."""
    return stats.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0


Moments = dict[str, list[tuple[Tensor, Tensor]]]  # per layer and step: mean and biased variance of its input


def followed(model: nn.Module, batch: lg.Batch, lr: float, size: int, count: int, dtype: torch.dtype) -> Moments:
    """Plain torch training with hooks that note, in float64, the statistics of what each BatchNorm layer was given."""
    assert isinstance(batch.inputs, Tensor)
    module = copy.deepcopy(model).to(dtype).train()
    found: Moments = {name: [] for name in batch_norm_layers(module)}

    def note(name: str) -> None:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            rows = inputs[0].detach().double().transpose(0, 1).flatten(1)
            found[name].append((rows.mean(1), rows.var(1, unbiased=False)))

        layers[name].register_forward_pre_hook(hook)

    layers = batch_norm_layers(module)
    for name in layers:
        note(name)
    optimiser = torch.optim.SGD(module.parameters(), lr=lr)
    for step in range(count):
        rows = torch.arange(step * size, (step + 1) * size) % len(batch)
        loss = nn.functional.cross_entropy(module(batch.inputs[rows].to(dtype)), batch.labels[rows])
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
    return found


def worst(seen: lg.Observation, truth: Moments, momentum: float | None) -> tuple[float, float, float]:
    """Largest relative error (2-norm over channels) over the layers: mean, variance, variance if only its buffer were rounded."""
    errors = []
    for name, found in seen.batch_norm.items():
        count = len(truth[name])
        weights = [1.0 if momentum is None else (1 - momentum) ** (count - step) for step in range(1, count + 1)]
        wanted = [
            torch.stack([w / sum(weights) * row[part] for w, row in zip(weights, truth[name], strict=True)]).sum(0)
            for part in (0, 1)
        ]
        running = seen.buffers[f"{name}.running_var"]
        rounding = torch.finfo(running.dtype).eps / 2 * running.double().norm() * found.amplification
        errors.append([
            float((found.mean - wanted[0]).norm() / wanted[0].norm()), float((found.var - wanted[1]).norm() / wanted[1].norm()),
            float(rounding / wanted[1].norm()),
        ])  # fmt: skip
    mean, var, alone = torch.tensor(errors, dtype=torch.float64).amax(0).tolist()
    return mean, var, alone


def with_momentum(model: nn.Module, momentum: float | None, counted: int = 0, pictures: int = 4) -> nn.Module:
    """A copy with this momentum whose layers have already seen so many mini-batches."""
    module = copy.deepcopy(model).train()
    for layer in batch_norm_layers(module).values():
        layer.momentum = momentum
    with torch.no_grad():
        for index in range(counted):
            module(cifar(spread(pictures, first=2 + index)).inputs)
    return module.eval()


def statistics(pictures: int, seeds: int, budget: str | int) -> None:  # noqa: ARG001 - no attack
    """Batch statistics from running ones: error in each arithmetic, and how noise on them grows. `pictures` per mini-batch."""
    lines, gates = [], []
    for name in RESNETS:
        for seed in range(seeds):
            base = network(cifar([0]), 10, seed, name)
            for momentum, counted, count, lr in STATISTICS:
                model = with_momentum(base, momentum, counted)
                batch = cifar(spread(pictures * count, first=1))
                cells = []
                for dtype in ("float32", "float64"):
                    truth = followed(model, batch, lr, pictures, count, getattr(torch, dtype))
                    seen = observed(model, batch, lr=lr, steps=count, batch_size=pictures, shuffle=False, dtype=dtype)
                    mean, var, alone = worst(seen, truth, momentum)
                    cells += [f"{mean:.1e}", f"{var:.1e}", f"{alone:.1e}"][: 3 if dtype == "float32" else 2]
                    if count == 1 and dtype == "float32":
                        setting = f"{name}, momentum {momentum}, counter {counted}, one step, worst layer"
                        gates.append(gate(setting, max(mean, var), most=1e-5))
                layer = next(iter(seen.batch_norm.values()))
                lines.append(
                    [name, len(seen.batch_norm), momentum, counted, layer.steps, lr, *cells, f"{layer.amplification:.2f}"]
                )
    header = ("network", "BatchNorm layers", "momentum", "counter before", "K read", "lr", "float32: mean", "variance",
              "variance, rounding of its buffer alone",
              "float64: mean", "variance", "amplification")  # fmt: skip
    print(
        f"\n### Recovered batch statistics, {pictures} grey pictures of 32x32 per step: largest relative error over the layers\n"
    )
    print(table(header, lines) + "\n\n" + "\n".join(gates), flush=True)
    amplification(pictures)


def amplification(pictures: int, std: float = 1e-3) -> None:
    """Noise on running statistics against the error of what is recovered from them."""
    lines: list[list[Any]] = []
    for momentum in (0.01, 0.1, 0.5, 1.0):
        for count in (1, 5):
            seed = len(lines)
            batch = cifar(spread(pictures * count, first=1))
            model = with_momentum(network(batch, 10, 0, "resnet20"), momentum)
            protocol: dict[str, Any] = {"lr": 1e-3, "steps": count, "batch_size": pictures, "shuffle": False}
            clean = observed(model, batch, seed, **protocol).batch_norm
            noisy = observed(model, batch, seed, defences=(lg.GaussianNoise(std, buffers=True),), **protocol).batch_norm
            off = torch.cat([noisy[name].mean - clean[name].mean for name in clean])
            stated = next(iter(clean.values())).amplification
            lines.append([momentum, count, f"{1 / momentum:.2f}", f"{stated:.2f}", f"{float(off.std()) / std:.2f}"])
    header = ("momentum", "K", "1 / momentum", "stated amplification", "measured")
    print(f"\n### Noise of std {std:g} on resnet20's running statistics, times its size on the recovered mean\n")
    print(table(header, lines), flush=True)
