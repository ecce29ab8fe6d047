"""Batches of 1, 2, 3, 4 and 8 on the sigmoid LeNet at 32x32: what is reached, assigned, per picture, with the control.

python -m benchmarks.batches [--budget fast] [--attack idlg]
"""

from __future__ import annotations

import argparse

import torch

import leakgauge as lg
from benchmarks.common import Clock, data_root, machine, observe, say, table
from leakgauge.attacks.control import control_pixels
from leakgauge.data import public_pictures
from leakgauge.measures.score import score_tensor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", default="fast")
    parser.add_argument("--attack", default="idlg")
    parser.add_argument("--sizes", default="1,2,3,4,8")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    spec = lg.ImageSpec((3, 32, 32))
    rule, grey = control_pixels(spec, "best", public_pictures((3, 32, 32), 16))
    rows = []
    for count in (int(size) for size in arguments.sizes.split(",")):
        indices = ",".join(str(20 * index + 1) for index in range(count))
        batch = lg.load_data(f"folder:{data_root() / 'cifar10'}?indices={indices}&size=32")
        model = lg.load_model("lenet-dlg", num_classes=10, input_shape=(3, 32, 32), seed=0)
        seen = observe(model, batch)
        clock = Clock.start()
        guess = lg.attack(seen, arguments.attack, seed=0, budget=arguments.budget)
        seconds, scores = clock.seconds, lg.score(batch, guess)
        base = score_tensor(batch, spec.normalise(grey).expand(count, -1, -1, -1))
        bound = lg.counting_bound(model, (3, 32, 32), count)
        rows.append([
            count, "yes" if bound.determinable else "no", " ".join(f"{value:.1f}" for value in scores.psnr.tolist()),
            " ".join(f"{value:.1f}" for value in base.psnr.tolist()), f"{scores.label_accuracy:.0%}", guess.outcome.name,
            f"{guess.stats.residual:.1e}", guess.stats.evaluations, f"{seconds:.0f}",
        ])  # fmt: skip
        say({"batch": count, "psnr": scores.psnr.tolist(), "cpu": seconds})
    print(f"Machine: {machine()}; control: {rule}\n")
    header = ["batch", "determinable", "PSNR of each picture", "control", "labels right", "outcome", "residual", "evaluations",
              "CPU-s"]  # fmt: skip
    print(table(header, rows))


if __name__ == "__main__":
    main()
