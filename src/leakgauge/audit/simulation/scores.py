"""Scores of one reconstruction of a message: image measures, RDLV against the left-out class mean, identification."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from leakgauge.audit.simulation.record import LeakPictures, PictureScore
from leakgauge.audit.simulation.split import Pictures
from leakgauge.measures.identification import identification
from leakgauge.measures.image import ssim
from leakgauge.measures.rdlv import rdlv
from leakgauge.measures.score import score_tensor


def scored_pictures(
    pictures: Pictures, members: tuple[str, ...], inputs: Tensor, labels: Tensor | None
) -> tuple[tuple[PictureScore, ...], LeakPictures]:
    """One score per private picture of a message, and the pictures in the same order.

    Args:
        pictures: the plan's pictures.
        members: whose data the message holds.
        inputs: the reconstruction in model space, (M, C, H, W).
        labels: the attack's labels, or None.
    """
    places = pictures.of_members(members)
    batch = pictures.batch(places)
    truth = pictures.pool.pixels[list(places)]
    prior = torch.stack([pictures.left_out_mean(place) for place in places])
    rebuilt = pictures.pool.spec.denormalise(inputs.detach().cpu().float()).nan_to_num(0.5).clamp(0, 1)
    scores = score_tensor(batch, inputs, labels)
    nothing = torch.full((len(truth),), math.nan, dtype=torch.float64)
    default = rdlv(truth, rebuilt, prior) if len(rebuilt) else nothing
    released = rdlv(truth, rebuilt, prior, variant="released") if len(rebuilt) else nothing
    near = ssim(truth, prior)
    shown = torch.full_like(truth, math.nan)
    owners = [name for name in members for _ in pictures.clients[name]]
    guessed = None if labels is None else _classes(labels)
    found = []
    for index, place in enumerate(places):
        at = int(scores.order[index])
        rank, probability, decoys = 0, math.nan, pictures.line_up(place)
        if at >= 0:
            shown[index] = rebuilt[at]
            if len(decoys):
                line_up = identification(truth[index : index + 1], rebuilt[at : at + 1], decoys)
                rank, probability = int(line_up.rank[0]), float(line_up.probability[0])
        found.append(
            PictureScore(
                client=owners[index],
                name=pictures.pool.names[place],
                mse=float(scores.mse[index]),
                psnr=float(scores.psnr[index]),
                ssim=float(scores.ssim[index]),
                mse_unclamped=float(scores.mse_unclamped[index]),
                rdlv=float(default[index]),
                rdlv_released=float(released[index]),
                prior_ssim=float(near[index]),
                rank=rank,
                probability=probability,
                decoys=len(decoys),
                label=int(pictures.pool.labels[place]),
                label_guess=None if guessed is None or at < 0 else guessed[at],
            )
        )
    return tuple(found), LeakPictures(truth=truth, guess=shown, prior=prior)


def _classes(labels: Tensor) -> list[int]:
    if labels.ndim == 2 and labels.shape[1] > 1:
        labels = labels.argmax(1)
    return [int(value) for value in labels.reshape(len(labels), -1)[:, 0].tolist()]
