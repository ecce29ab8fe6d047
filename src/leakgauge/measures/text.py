"""Measures of recovered texts: tokens, whole sequences, common phrases (ROUGE) and the bag of tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from leakgauge.core.text_spec import IGNORED, TextSpec
from leakgauge.errors import OptionError, ShapeError
from leakgauge.truth.batch import Batch

Tokens = Sequence[int]


@dataclass(frozen=True)
class TextScores:
    """How much of each private text was recovered; NaN where no reconstruction was assigned.

    Args:
        token_accuracy: (N,) share of the private text's tokens that stand at their own place, in [0, 1].
        exact: (N,) 1 where the whole sequence is the same, length included, else 0.
        rouge1, rouge2, rougeL: (N,) F-measure of common tokens, pairs of tokens, and the longest common subsequence.
        unmasked_accuracy: (N,) token accuracy where nothing is predicted; NaN for other tasks than 'masked'.
        masked_accuracy: (N,) share of the masked labels that the reconstruction names at their place; NaN likewise.
        label_accuracy: share of the assigned texts whose class is right; NaN where no classes were guessed.
        bag_precision, bag_recall: over the whole batch, counting each token as often as it stands there.
        order: (N,) int64, the reconstruction assigned to each text; -1 for none.
        matched: number of texts with a reconstruction.
    """

    token_accuracy: Tensor
    exact: Tensor
    rouge1: Tensor
    rouge2: Tensor
    rougeL: Tensor
    unmasked_accuracy: Tensor
    masked_accuracy: Tensor
    label_accuracy: float
    bag_precision: float
    bag_recall: float
    order: Tensor
    matched: int


def token_accuracy(truth: Tokens, guess: Tokens) -> float:
    """Share of the tokens of `truth` that stand at the same place in `guess`, in [0, 1]."""
    return sum(one == other for one, other in zip(truth, guess, strict=False)) / len(truth) if truth else float(not guess)


def rouge_n(truth: Tokens, guess: Tokens, n: int) -> float:
    """F-measure of common n-grams, each counted as often as it occurs in both; 0 where either has none.

    Source: Lin 2004, ROUGE, section 2, with precision as in the later releases.
    """
    if n < 1:
        raise OptionError(f"ROUGE's n is {n}; expected at least 1.")
    one, other = (Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)) for tokens in (truth, guess))
    return _f_measure((one & other).total(), one.total(), other.total())


def rouge_l(truth: Tokens, guess: Tokens) -> float:
    """F-measure of the longest common subsequence.

    Source: Lin 2004, ROUGE, section 3.
    """
    row = [0] * (len(guess) + 1)
    for token in truth:
        before = 0
        for place, other in enumerate(guess, start=1):
            before, row[place] = row[place], before + 1 if token == other else max(row[place], row[place - 1])
    return _f_measure(row[-1], len(truth), len(guess))


def bag(truth: Sequence[Tokens], guess: Sequence[Tokens]) -> tuple[float, float]:
    """Precision and recall of all tokens together, as a multiset; 0 where there are none on one side."""
    one, other = (Counter(token for tokens in side for token in tokens) for side in (truth, guess))
    common = (one & other).total()
    return common / max(other.total(), 1), common / max(one.total(), 1)


def score_texts(batch: Batch, inputs: Tensor, labels: Tensor | None = None) -> TextScores:
    """Compares recovered token ids with the private texts, assigned one to one by the largest summed ROUGE-L and accuracy.

    Args:
        batch: the private texts, with a TextSpec.
        inputs: (M, L) recovered token ids; padding at the end does not count.
        labels: (M,) classes, or (M, L) masked labels, or None.

    Raises:
        OptionError: if the batch has no TextSpec.
        ShapeError: if the guess is no matrix of token ids.
    """
    spec = batch.spec
    if not isinstance(spec, TextSpec):
        raise OptionError("The batch has no TextSpec, so its inputs are no texts; give Batch(spec=TextSpec(...)).")
    if inputs.ndim != 2 or inputs.is_floating_point():
        raise ShapeError(
            f"The reconstruction has shape {tuple(inputs.shape)} and type {inputs.dtype}; expected token ids (M, L)."
        )
    held = batch.model_inputs
    assert isinstance(held, dict)
    ids, mask = held["input_ids"].cpu(), held["attention_mask"].cpu()
    truth = [row[kept != 0].tolist() for row, kept in zip(ids, mask, strict=True)]
    guess = [without_padding(row.tolist(), spec.padding) for row in inputs.cpu()]
    order = _assigned(truth, guess)
    pairs = [(tokens, guess[place] if place >= 0 else None) for tokens, place in zip(truth, order.tolist(), strict=True)]

    def measured(measure: object) -> Tensor:
        assert callable(measure)
        values = [float("nan") if found is None else measure(wanted, found) for wanted, found in pairs]
        return torch.tensor(values, dtype=torch.float64)

    unmasked, masked = _masked(batch, spec, truth, guess, labels, order)
    precision, recall = bag(truth, guess)
    return TextScores(
        token_accuracy=measured(token_accuracy),
        exact=measured(lambda wanted, found: float(wanted == found)),
        rouge1=measured(lambda wanted, found: rouge_n(wanted, found, 1)),
        rouge2=measured(lambda wanted, found: rouge_n(wanted, found, 2)),
        rougeL=measured(rouge_l),
        unmasked_accuracy=unmasked,
        masked_accuracy=masked,
        label_accuracy=_label_accuracy(batch, labels, order),
        bag_precision=precision,
        bag_recall=recall,
        order=order,
        matched=int((order >= 0).sum()),
    )


def without_padding(tokens: Sequence[int], padding: int | None) -> list[int]:
    """The tokens up to the last one that is no padding."""
    found = list(tokens)
    while padding is not None and found and found[-1] == padding:
        found.pop()
    return found


def _f_measure(common: int, one: int, other: int) -> float:
    return 2 * common / (one + other) if common else 0.0


def _assigned(truth: list[list[int]], guess: list[list[int]]) -> Tensor:
    from scipy.optimize import linear_sum_assignment

    order = torch.full((len(truth),), -1, dtype=torch.int64)
    if not truth or not guess:
        return order
    gain = torch.tensor([[rouge_l(one, other) + token_accuracy(one, other) for other in guess] for one in truth])
    rows, columns = linear_sum_assignment(-gain.numpy())
    order[torch.from_numpy(rows)] = torch.from_numpy(columns)
    return order


def _masked(
    batch: Batch, spec: TextSpec, truth: list[list[int]], guess: list[list[int]], labels: Tensor | None, order: Tensor
) -> tuple[Tensor, Tensor]:
    """Accuracy where the model predicts nothing, and of the masked labels."""
    nothing = torch.full((len(batch),), float("nan"), dtype=torch.float64)
    if spec.task != "masked":
        return nothing, nothing.clone()
    unmasked, masked = nothing, nothing.clone()
    wanted = batch.model_labels
    for row, place in enumerate(order.tolist()):
        if place < 0:
            continue
        open_places = [at for at in range(len(truth[row])) if int(wanted[row, at]) == IGNORED]
        hidden = [at for at in range(len(truth[row])) if int(wanted[row, at]) != IGNORED]
        if open_places:
            right = [at < len(guess[place]) and guess[place][at] == truth[row][at] for at in open_places]
            unmasked[row] = sum(right) / len(right)
        if hidden and labels is not None and labels.ndim == 2:
            named = [at < labels.shape[1] and int(labels[place, at]) == int(wanted[row, at]) for at in hidden]
            masked[row] = sum(named) / len(named)
    return unmasked, masked


def _label_accuracy(batch: Batch, labels: Tensor | None, order: Tensor) -> float:
    rows = order >= 0
    if labels is None or labels.ndim != 1 or batch.labels.ndim != 1 or not bool(rows.any()):
        return float("nan")
    return float((batch.labels[rows].cpu() == labels.cpu()[order[rows]]).double().mean())
