"""Identification: can the reconstruction pick the private example out of a line-up of look-alikes?"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from leakgauge.errors import OptionError, ShapeError, did_you_mean
from leakgauge.measures.image import ssim

FEWEST_DECOYS = 19  # with fewer, no rank could reach a probability of 0.05
DISTANCES = ("mse", "ssim")


@dataclass(frozen=True)
class Identification:
    """Where each private example ranks among decoys by nearness to its reconstruction.

    Args:
        rank: (N,) int64, 1 = the private example is nearer than every decoy; ties count against it.
        probability: (N,) float64, rank / (decoys + 1): how often a reconstruction that knows nothing ranks so well;
            never below 1 / (decoys + 1).
        testable: whether there are enough decoys (19) for a probability of 0.05.
        decoys: number of decoys per example.
        distance: 'mse' or 'ssim'.
        verdict: one sentence.
    """

    rank: Tensor
    probability: Tensor
    testable: bool
    decoys: int
    distance: str
    verdict: str


def identification(
    truth: Tensor, guess: Tensor, decoys: Tensor, *, distance: str = "mse", data_range: float = 1.0
) -> Identification:
    """Ranks each private example among decoys by nearness to its reconstruction; truth and guess are paired by index.

    The probability means what it says only for decoys that could have been in the batch: of the same class and source, and
    unseen by priors and training. A record that is not finite ranks last.

    Args:
        truth: (N, *shape).
        guess: (N, *shape), already assigned.
        decoys: (M, *shape) for all examples, or (N, M, *shape) for each its own.
        distance: 'mse', or 'ssim' for pictures (C, H, W).
        data_range: largest minus smallest possible value, for SSIM.

    Raises:
        ShapeError: if shapes do not fit together.
        OptionError: for an unknown distance.
    """
    if distance not in DISTANCES:
        raise OptionError(f"There is no distance {distance!r} for identification.{did_you_mean(distance, DISTANCES)}")
    if truth.shape != guess.shape or len(truth) == 0:
        raise ShapeError(f"Truth has shape {tuple(truth.shape)} and guess {tuple(guess.shape)}; expected (N, *shape) for both.")
    own = decoys.ndim == truth.ndim + 1
    if decoys.shape[2 if own else 1 :] != truth.shape[1:] or (own and len(decoys) != len(truth)):
        raise ShapeError(
            f"The decoys have shape {tuple(decoys.shape)}; expected (M, {', '.join(map(str, truth.shape[1:]))}), or the same "
            f"with {len(truth)} in front for decoys of each example."
        )
    count = decoys.shape[1 if own else 0]

    def distances(record: Tensor, others: Tensor) -> Tensor:
        if distance == "ssim":
            return 1.0 - ssim(record.expand_as(others), others, data_range)
        return (_double(others) - _double(record)).square().flatten(1).mean(1)

    ranks = []
    for index, record in enumerate(guess):
        line_up = torch.cat([truth[index : index + 1].to(decoys), decoys[index] if own else decoys])
        near = distances(record, line_up).nan_to_num(nan=float("inf"))
        ranks.append(1 + int((near[1:] <= near[0]).sum()))
    rank = torch.tensor(ranks, dtype=torch.int64)
    return Identification(
        rank=rank,
        probability=rank.double() / (count + 1),
        testable=count >= FEWEST_DECOYS,
        decoys=count,
        distance=distance,
        verdict=_verdict(rank, count),
    )


def _verdict(rank: Tensor, count: int) -> str:
    if count < FEWEST_DECOYS:
        return f"Not testable: {count} decoy(s), and at least {FEWEST_DECOYS} are needed."
    return f"{int((rank == 1).sum())} of {len(rank)} private example(s) rank first among {count} decoys each."


def _double(values: Tensor) -> Tensor:
    return values.detach().to("cpu", torch.float64)
