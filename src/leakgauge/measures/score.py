"""`score`: a reconstruction against the private batch, by one rule for attacks and controls alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from leakgauge.core.reconstruction import Reconstruction
from leakgauge.core.text_spec import TextSpec
from leakgauge.errors import OptionError, ShapeError
from leakgauge.measures.assign import assign
from leakgauge.measures.image import mse, psnr, ssim
from leakgauge.measures.perceptual import lpips
from leakgauge.measures.text import score_texts
from leakgauge.truth.batch import Batch


@dataclass(frozen=True)
class Scores:
    """How near each private example was rebuilt; NaN where no reconstruction was assigned.

    Args:
        mse: (N,) mean squared error of pixels in [0, 1], after clamping.
        psnr: (N,) dB, data range 1; +inf for an identical picture.
        ssim: (N,) structural similarity; NaN also for pictures of fewer than 3 pixels on a side.
        mse_unclamped: (N,) mean squared error before clamping.
        label_accuracy: share of the assigned examples whose guessed label is the true one; NaN where no labels were guessed.
        order: (N,) int64, the position in the reconstruction assigned to each example; -1 for none.
        matched: number of examples with a reconstruction.
        lpips: (N,) learned perceptual distance, or None where it was not asked for.
    """

    mse: Tensor
    psnr: Tensor
    ssim: Tensor
    mse_unclamped: Tensor
    label_accuracy: float
    order: Tensor
    matched: int
    lpips: Tensor | None = None


def score(batch: Batch, guess: Reconstruction, *, perceptual: bool = False) -> Any:
    """Compares a reconstruction with the private batch: `Scores` of pictures, see `score_tensor`, or `TextScores`, see
    `score_texts`, by the batch's spec.

    Args:
        batch: the private examples, with a spec.
        guess: what an attack returned; may hold fewer or more records than the batch.
        perceptual: also compute LPIPS (needs leakgauge[perceptual]).
    """
    if isinstance(batch.spec, TextSpec):
        return score_texts(batch, guess.inputs, guess.labels)
    return score_tensor(batch, guess.inputs, guess.labels, perceptual=perceptual)


def score_tensor(batch: Batch, inputs: Tensor, labels: Tensor | None = None, *, perceptual: bool = False) -> Scores:
    """Compares bare inputs, such as a control's, with the private batch.

    Inputs are denormalised by the batch's spec and clamped to [0, 1], assigned one to one by least summed MSE, then measured.

    Args:
        batch: the private examples, with a spec.
        inputs: (M, C, H, W) in model space.
        labels: (M,) class indices, or None.
        perceptual: also compute LPIPS.

    Raises:
        OptionError: if the batch has no spec, so that the range of its values is not known.
        ShapeError: if examples differ in shape, or there are not as many labels as inputs.
        MissingExtraError: if LPIPS is asked for and not installed.
    """
    if batch.pictures is None or not isinstance(batch.inputs, Tensor):
        raise OptionError("The batch has no ImageSpec, so the range of its values is not known; give Batch(spec=ImageSpec(...)).")
    if labels is not None and len(labels) != len(inputs):
        raise ShapeError(f"The reconstruction has {len(inputs)} inputs and {len(labels)} labels; expected as many of both.")
    wanted, found = (batch.pictures.denormalise(tensor.detach().to("cpu", torch.float64)) for tensor in (batch.inputs, inputs))
    truth, guess = wanted.clamp(0.0, 1.0), found.clamp(0.0, 1.0)
    order = assign(truth, guess)
    rows = order >= 0

    def measured(measure: Callable[[Tensor, Tensor], Tensor], truth: Tensor, guess: Tensor) -> Tensor:
        values = torch.full((len(batch),), float("nan"), dtype=torch.float64)
        if bool(rows.any()):
            values[rows] = measure(truth[rows], guess[order[rows]])
        return values

    return Scores(
        mse=measured(mse, truth, guess),
        psnr=measured(psnr, truth, guess),
        ssim=measured(ssim, truth, guess),
        mse_unclamped=measured(mse, wanted, found),
        label_accuracy=_label_accuracy(batch.labels, labels, order),
        order=order,
        matched=int(rows.sum()),
        lpips=measured(lpips, truth, guess) if perceptual else None,
    )


def _label_accuracy(truth: Tensor, guess: Tensor | None, order: Tensor) -> float:
    rows = order >= 0
    if guess is None or not bool(rows.any()):
        return float("nan")
    wanted, found = (
        labels.detach().cpu().argmax(1) if labels.ndim == 2 and labels.is_floating_point() else labels.detach().cpu()
        for labels in (truth, guess)
    )
    agree = (wanted[rows] == found[order[rows]]).reshape(int(rows.sum()), -1).all(1)
    return float(agree.double().mean())
