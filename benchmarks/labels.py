"""Labels from an update, untrained networks: iDLG's rule at batch 1, counts at batch 256 with 100 classes.

    python -m benchmarks.labels [--batches 20]

Count accuracy of a batch is 1 - sum|n^ - n| / 2B. Pictures are CIFAR-10's auxiliary ones; labels are drawn uniformly from
the classes, since count rules depend on labels and network, not on what the pictures show.
"""

from __future__ import annotations

import argparse
import statistics

import numpy as np
import torch

import leakgauge as lg
from benchmarks.common import data_root, machine, observe, table

NETWORKS = ("lenet-dlg", "mlp", "cnn6:bias=all", "resnet20:norm=group", "resnet18-cifar")


def pictures() -> torch.Tensor:
    with np.load(data_root() / "cifar10" / "aux.npz", allow_pickle=False) as file:
        return torch.from_numpy(file["x_train"]).permute(0, 3, 1, 2).float() / 255


def counts(name: str, batches: int, images: torch.Tensor, classes: int, size: int) -> tuple[float, float]:
    accuracies = []
    for seed in range(batches):
        generator = lg.rng(seed, "labels", name)
        model = lg.load_model(name, num_classes=classes, input_shape=(3, 32, 32), seed=seed)
        rows = torch.randperm(len(images), generator=generator)[:size]
        labels = torch.randint(classes, (size,), generator=generator)
        seen = observe(model, lg.Batch(images[rows], labels, lg.ImageSpec((3, 32, 32))))
        true = torch.bincount(labels, minlength=classes)
        accuracies.append(1 - float((lg.recover_labels(seen).counts - true).abs().sum()) / (2 * size))
    return statistics.mean(accuracies), sum(value == 1 for value in accuracies) / batches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=20)
    batches = parser.parse_args().batches
    torch.set_num_threads(1)
    images = pictures()
    rows = []
    for name in NETWORKS:
        single, _ = counts(name, 50, images, 10, 1)
        accuracy, exact = counts(name, batches, images, 100, 256)
        rows.append([name, f"{single:.0%}", f"{accuracy:.2%}", f"{exact:.0%}"])
    print(f"Machine: {machine()}\n")
    header = ["network, untrained", "label right, batch 1 (50 runs)", "count accuracy, batch 256, K = 100", "all counts exact"]
    print(table(header, rows))


if __name__ == "__main__":
    main()
