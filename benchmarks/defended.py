"""Leakage against the strength of a defence: the plain attack and the one that adapts, at equal work, on real pictures.

DLG on the sigmoid LeNet at 32x32, untrained; labels granted. 'plain' matches in squared L2 whatever the defence; 'adaptive'
minimises what the defence dictates. Both make the same number of gradient evaluations from the same start.

    python -m benchmarks.defended [--pictures 3] [--budget 6000] [--only gaussian-noise]
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence

import torch
from scipy.stats import spearmanr

import leakgauge as lg
from benchmarks.common import CIFAR_CLASSES, Clock, cifar_first, machine, say, table
from leakgauge.attacks.matching.distance import SquaredL2, dictated_by
from leakgauge.defences import Defence

GRIDS: dict[str, Sequence[Defence]] = {
    "gaussian-noise": [lg.GaussianNoise(std) for std in (1e-4, 5e-4, 2e-3, 8e-3, 3e-2, 1e-1)],
    "laplacian-noise": [lg.LaplacianNoise(scale) for scale in (1e-4, 1e-3, 1e-2, 1e-1)],
    "prune": [lg.Prune(fraction) for fraction in (0.3, 0.7, 0.9, 0.97)],
    "quantise": [lg.Quantise(bits) for bits in (8, 5, 4, 3)],
    "sign": [lg.Sign()],
    "clip": [lg.Clip(norm) for norm in (1.0, 0.1)],
}


def leaks(batches: Sequence[lg.Batch], defence: Defence, distance: str, budget: int) -> list[tuple[float, float]]:
    """PSNR in dB and SSIM of each picture after one attack."""
    found = []
    for index, batch in enumerate(batches):
        model = lg.load_model("lenet-dlg", num_classes=10, input_shape=(3, 32, 32), seed=index)
        update = lg.Client(model, defences=(defence,)).train(batch, seed=index)
        seen = lg.ThreatModel.honest_but_curious(labels=True).observe(update, model, batch.spec)
        guess = lg.attack(
            seen, "dlg", seed=index, budget=budget, labels="known", restarts=1, refine=False, start="grey", distance=distance
        )
        scores = lg.score(batch, guess)
        found.append((float(scores.psnr[0]), float(scores.ssim[0])))
    return found


def half_width(values: Sequence[float]) -> float:
    """Half width of the 95 % interval of the mean, from the standard error."""
    return 1.96 * statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=3)
    parser.add_argument("--budget", type=int, default=6000)
    parser.add_argument("--only", choices=sorted(GRIDS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    batches, clock = cifar_first()[: arguments.pictures], Clock.start()
    rows, lines = [], []
    for name, grid in GRIDS.items():
        if arguments.only not in (None, name):
            continue
        means: dict[str, list[float]] = {"plain": [], "adaptive": []}
        for defence in grid:
            plain = leaks(batches, defence, "l2", arguments.budget)
            same = dictated_by([defence.record()]) == SquaredL2()
            adaptive = plain if same else leaks(batches, defence, "auto", arguments.budget)
            gains = [after[1] - before[1] for before, after in zip(plain, adaptive, strict=True)]
            cells = []
            for kind, found in (("plain", plain), ("adaptive", adaptive)):
                psnr, ssim = (statistics.mean(pair[part] for pair in found) for part in (0, 1))
                means[kind].append(ssim)
                cells += [f"{psnr:.1f}", f"{ssim:.3f}"]
            margin = "the same attack" if same else f"{statistics.mean(gains):+.3f} ± {half_width(gains):.3f}"
            rows.append([repr(defence).replace(", buffers=False", "").replace(", stochastic=False", ""), *cells, margin])
            say({"defence": repr(defence), "plain": plain, "adaptive": adaptive, "cpu": clock.seconds})
        if len(grid) > 3:
            ranks = [float(spearmanr(range(len(grid)), means[kind]).statistic) for kind in ("plain", "adaptive")]
            whole = [statistics.mean(means[kind]) for kind in ("plain", "adaptive")]
            lines.append(
                f"{name}: Spearman of mean SSIM against strength, plain {ranks[0]:+.2f}, adaptive {ranks[1]:+.2f}; "
                f"mean SSIM over the grid, plain {whole[0]:.3f}, adaptive {whole[1]:.3f}."
            )
    print(f"Machine: {machine()}; {clock.seconds:.0f} CPU s; pictures: {', '.join(CIFAR_CLASSES[: len(batches)])}\n")
    header = ["defence", "plain PSNR", "plain SSIM", "adaptive PSNR", "adaptive SSIM", "gain in SSIM (95 %)"]
    print(table(header, rows))
    print("\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
