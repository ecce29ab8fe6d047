"""DLG on the sigmoid LeNet: success, PSNR, label and CPU seconds over ten CIFAR-10 pictures and five seeds.

Pixels and labels are both unknown; the default call, no closed form. Success is a mean squared error below 1e-3 in [0, 1].

    python -m benchmarks.dlg_success [--seeds 5]
"""

from __future__ import annotations

import argparse
import statistics

import torch

import leakgauge as lg
from benchmarks.common import CIFAR_CLASSES, Clock, cifar_first, machine, observe, say, table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--attack", default="dlg")
    seeds, attack = parser.parse_args().seeds, parser.parse_args().attack
    torch.set_num_threads(1)
    rows, psnrs, spent, right, successes = [], [], [], 0, 0
    for index, batch in enumerate(cifar_first()):
        found = []
        for seed in range(seeds):
            model = lg.load_model("lenet-dlg", num_classes=10, input_shape=(3, 32, 32), seed=seed)
            seen = observe(model, batch, seed)
            clock = Clock.start()
            guess = lg.attack(seen, attack, seed=seed)
            seconds = clock.seconds
            scores = lg.score(batch, guess)
            success = float(scores.mse[0]) < 1e-3
            successes += success
            right += bool(success and scores.label_accuracy == 1.0)
            psnrs.append(float(scores.psnr[0]))
            spent.append(seconds)
            found.append(psnrs[-1])
            say({"picture": CIFAR_CLASSES[index], "seed": seed, "psnr": psnrs[-1], "label": scores.label_accuracy,
                 "cpu": seconds, "outcome": guess.outcome.name, "residual": guess.stats.residual,
                 "evaluations": guess.stats.evaluations})  # fmt: skip
        rows.append([CIFAR_CLASSES[index], *(f"{value:.1f}" for value in found)])
    print(f"Machine: {machine()}\n")
    print(table(["picture", *(f"PSNR, seed {seed}" for seed in range(seeds))], rows))
    print(
        f"\nSuccess {successes}/{len(psnrs)}, label right in {right} of them; PSNR median {statistics.median(psnrs):.1f} dB, "
        f"lowest {min(psnrs):.1f}; CPU seconds median {statistics.median(spent):.1f}, highest {max(spent):.1f}."
    )


if __name__ == "__main__":
    main()
