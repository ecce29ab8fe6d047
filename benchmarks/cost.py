"""Cost, side by side in one process: a matching evaluation, batched restarts, the optimiser's overhead.

    python -m benchmarks.cost

All times are process CPU time; the pieces that are compared are run in turns, and the median of each is taken, so that
other load on the machine falls on both sides.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial

import torch

import leakgauge as lg
from benchmarks.common import cifar_first, machine, observe, table
from benchmarks.reference import reference_loop, training_step
from leakgauge.attacks.base import Limits
from leakgauge.attacks.matching.labelling import settle_labels
from leakgauge.attacks.matching.problem import Problem
from leakgauge.attacks.matching.search.gauss_newton import LevenbergMarquardt


def in_turns(pieces: dict[str, Callable[[], object]], rounds: int, warm: int = 2) -> dict[str, float]:
    """Median CPU seconds of each piece, run in turns."""
    spent: dict[str, list[float]] = {name: [] for name in pieces}
    for index in range(rounds + warm):
        for name, piece in pieces.items():
            began = time.process_time()
            piece()
            if index >= warm:
                spent[name].append(time.process_time() - began)
    return {name: statistics.median(values) for name, values in spent.items()}


def problem_of(attack: lg.GradientMatching, seen: lg.Observation) -> Problem:
    return attack._problem(seen, settle_labels(seen, attack.labels), Limits())


def evaluation_cost(rounds: int) -> str:
    rows = []
    cases = (("lenet-dlg", 1, 4.0), ("lenet-dlg", 4, 4.0), ("mlp:hidden=512-256", 1, 3.2), ("resnet18-cifar", 1, 3.2),
             ("resnet18-cifar", 4, 3.2))  # fmt: skip
    for name, count, limit in cases:
        model = lg.load_model(name, num_classes=10, input_shape=(3, 32, 32), seed=0)
        inputs = torch.rand(count, 3, 32, 32, generator=lg.rng(0, "cost"))
        batch = lg.Batch(inputs, torch.arange(count), lg.ImageSpec((3, 32, 32)))
        seen = observe(model, batch, labels=True)
        problem = problem_of(lg.GradientMatching(labels="known"), seen)
        point = torch.rand(1, problem.size, generator=lg.rng(1, "cost"))
        turns = rounds if sum(p.numel() for p in model.parameters()) < 1e6 else max(rounds // 4, 5)
        pieces = {
            "passes": training_step(model, inputs, batch.labels, update=False),
            "step": training_step(model, inputs, batch.labels),
            "evaluation": partial(problem.evaluate, point),
        }
        found = in_turns(pieces, turns)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        ratio = found["evaluation"] / found["step"]
        strict = found["evaluation"] / found["passes"]
        times = [f"{1e3 * found[name]:.2f}" for name in pieces]
        rows.append(
            [name, count, f"{parameters:,}", *times, f"{strict:.2f}", f"{ratio:.2f}", limit, "yes" if ratio <= limit else "NO"]
        )
    header = ["network", "batch", "parameters", "forward + backward (ms)", "training step with SGD update (ms)",
              "evaluation (ms)",
              "ratio to forward + backward", "ratio to training step", "limit", "holds"]  # fmt: skip
    return "## One matching evaluation against one training step\n\n" + table(header, rows)


def restart_cost(rounds: int) -> str:
    batch = cifar_first()[3]
    model = lg.load_model("lenet-dlg", num_classes=10, input_shape=(3, 32, 32), seed=0)
    seen = observe(model, batch)
    target = list(seen.tensors.values())
    attack = lg.GradientMatching(labels="joint", refine=None, restarts=8)
    problem = problem_of(attack, seen)
    counted = {"reference": 0, "ours": 0}

    def reference() -> None:
        counted["reference"] += reference_loop(model, target, (1, 3, 32, 32), 10, 8, lg.rng(0, "reference"))[1]

    spent_gradient, spent_search = [], []

    def ours() -> None:
        start = torch.rand(8, problem.size, generator=lg.rng(0, "ours"))
        state = attack.search.begin(start, None, None, 160)
        for _ in range(160):
            began = time.process_time()
            points = state.ask()
            middle = time.process_time()
            values, slopes = problem.evaluate(points)
            after = time.process_time()
            state.tell(values, slopes)
            spent_gradient.append(after - middle)
            spent_search.append(middle - began + time.process_time() - after)
            counted["ours"] += len(points)

    found = in_turns({"reference": reference, "ours": ours}, rounds, warm=1)
    runs = rounds + 1
    each = {name: found[name] / (counted[name] / runs) for name in found}
    rows = [
        ["reference loop, one restart at a time", f"{1e3 * each['reference']:.2f}", "1.0"],
        ["leakgauge, 8 restarts batched", f"{1e3 * each['ours']:.2f}", f"{each['reference'] / each['ours']:.2f}"],
    ]
    gradient, search = statistics.median(spent_gradient), statistics.median(spent_search)
    return (
        "## Restarts: CPU time per restart and evaluation, optimiser included (lenet-dlg, batch 1)\n\n"
        + table(["loop", "ms per evaluation", "throughput (limit 2.5, goal 4)"], rows)
        + f"\n\nOf one batched round the gradient takes {1e3 * gradient:.2f} ms and L-BFGS {1e3 * search:.2f} ms "
        f"(ratio {search / gradient:.2f}; limit 1)."
    )


def refinement_cost(rounds: int) -> str:
    """What one Levenberg-Marquardt step costs in gradient evaluations, against what the budget counts for it."""
    seen = observe(lg.load_model("lenet-dlg", num_classes=10, input_shape=(3, 32, 32), seed=0), cifar_first()[3])
    problem = problem_of(lg.GradientMatching(labels="joint"), seen)
    residual, point = problem.residual(), torch.full((problem.size,), 0.5)
    assert residual is not None

    def iteration() -> LevenbergMarquardt:
        return LevenbergMarquardt(residual, point, lg.GaussNewton(), lambda: False)

    counted: list[float] = []

    def step() -> None:
        done = iteration().step()
        assert done is not None
        counted.append(done.evaluations)

    pieces = {"columns": lambda: iteration()._jacobian(), "step": step, "evaluation": lambda: problem.evaluate(point[None])}
    found = in_turns(pieces, rounds, warm=1)
    columns, whole = (found[name] / found["evaluation"] / problem.size for name in ("columns", "step"))
    return (
        f"## Refinement (lenet-dlg, batch 1, {problem.size:,} unknowns)\n\n"
        f"One column of the Jacobian costs {columns:.2f} gradient evaluations; with Gram matrix, factor and chords a step costs "
        f"{whole:.2f} for each column, and the budget counts {statistics.median(counted) / problem.size:.2f}."
    )


def main(rounds: int = 25) -> None:
    torch.set_num_threads(1)
    print(f"Machine: {machine()}\n")
    print(evaluation_cost(rounds))
    print()
    print(restart_cost(5))
    print()
    print(refinement_cost(5))


if __name__ == "__main__":
    main()
