"""`validate`: does an observation follow from the true batch and the declared protocol? If not, what is the likely cause?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from leakgauge.core.observation import Observation
from leakgauge.federated.validation.causes import DROPOUT, HYPOTHESES, NOTED, NOTHING_FITS, has_dropout
from leakgauge.federated.validation.causes_optimiser import declared_dp_sgd
from leakgauge.federated.validation.recompute import Recomputed, Setting, norm, recompute, residual
from leakgauge.federated.validation.trial import Trial
from leakgauge.truth.batch import Batch

TOLERANCES = {"float64": 1e-10, "float32": 1e-5, "float16": 2e-2, "bfloat16": 5e-2}
MIXED_PRECISION = 5e-2
LARGEST_TOLERANCE = 5e-2
PER_TENSOR = 100.0  # one small tensor may be off by so many tolerances
SMALL_TENSOR = 1e-3  # a tensor below this share of the update is measured against the share
EXPLAINS = 0.1  # a cause that does not fit exactly is named where it leaves less than this share of the residual


@dataclass(frozen=True)
class Validation:
    """Whether the recomputed update agrees with the observed one, and what is likely wrong if not.

    Args:
        residual: ||recomputed - observed|| / ||observed|| over all shared tensors.
        per_tensor: the same for each tensor; one below a thousandth of the whole update is measured against that.
        buffers_residual: the same for the floating-point buffers after training; NaN where they were not observed.
        agrees: residual, each tensor (100 tolerances) and buffers lie within the tolerance.
        tolerance: what rounding may leave, by dtype: 1e-5 for float32, 1e-10 for float64; more for a weight change that is
            small beside the weights it was subtracted from, for 16-bit arithmetic and mixed precision.
        cause: the likely cause in one sentence, '' if it agrees.
        hypothesis: name of the cause in the table, '' if it agrees or none fits; 'noted' where none fits and the recorder of a
            running system noted what the protocol cannot say.
        cause_residual: residual that is left under that cause; NaN where there is none.
        declared: whether the cause is a defence that the observation itself declares.
        tried: names of the hypotheses that were tested, in order.
        note: what limits the answer, such as mini-batch orders that could not all be tried; '' otherwise.
    """

    residual: float
    per_tensor: dict[str, float]
    buffers_residual: float
    agrees: bool
    tolerance: float
    cause: str = ""
    hypothesis: str = ""
    cause_residual: float = math.nan
    declared: bool = False
    tried: tuple[str, ...] = ()
    note: str = ""


def validate(seen: Observation, model: nn.Module, batch: Batch) -> Validation:
    """Recomputes the update from the true batch by the declared protocol and compares.

    The update is recomputed at the state in the observation. With `shuffle` and several mini-batches the order is unknown: the
    order of the batch is tried first, then every other (a sample where there are too many). On a mismatch each hypothesis of
    `causes.HYPOTHESES` is recomputed in turn, the simplest first, until one fits.

    Args:
        seen: the observation.
        model: the model as the caller has it; tried as a cause where its weights differ from the observation's.
        batch: the true batch, in the order in which the client held it; its `order`, if any, spares the search for one.

    Returns:
        The verdict; a mismatch is a result, not an error.
    """
    tolerance = tolerance_for(seen)
    private = declared_dp_sgd(seen)
    setting = Setting(
        seen.model, _trained(seen), batch.model_inputs, batch.model_labels, seen.loss, seen.training, batch.order,
        example_clip=None if private is None else private.parameters["clip_norm"],
    )  # fmt: skip
    base = recompute(setting, seen, tolerance)
    per_tensor = _per_tensor(seen, base.tensors)
    off_buffers = _buffers_residual(seen, base)
    within = base.residual <= tolerance and all(value <= PER_TENSOR * tolerance for value in per_tensor.values())
    sampled = private is not None and batch.order is not None and len(batch) < seen.num_examples  # a Poisson sample may miss some
    counted = sampled or len(batch) == seen.num_examples
    agrees = within and not off_buffers > PER_TENSOR * tolerance and counted
    note = _note(base)
    if agrees:
        return Validation(base.residual, per_tensor, off_buffers, True, tolerance, note=note)
    trial = Trial(seen, model, setting, base, tolerance)
    tried: list[str] = []
    best, best_name, best_sentence, declared = math.inf, "", "", False
    if not counted:
        best_name = "count"
        best_sentence = f"the observation was made from {seen.num_examples} example(s), but the batch holds {len(batch)}"
        return Validation(base.residual, per_tensor, off_buffers, False, tolerance, _said(best_sentence), best_name, note=note)
    if within:
        sentence = (
            "the shared tensors agree, but the buffers after training do not: they were recorded at another time, or BatchNorm's "
            "mode or momentum differs"
        )
        return Validation(base.residual, per_tensor, off_buffers, False, tolerance, _said(sentence), "buffers", note=note)
    at_first = _misfit(seen, base.tensors, base.residual)
    for hypothesis in HYPOTHESES:
        tried.append(hypothesis.name)
        for candidate in hypothesis.candidates(trial):
            left = residual(seen.tensors, candidate.tensors) if candidate.left is None else candidate.left
            left = _misfit(seen, candidate.tensors, left)
            if left < best:
                best, best_name, best_sentence, declared = left, hypothesis.name, candidate.sentence, candidate.declared
            if left <= tolerance:
                break
        if best <= tolerance:
            break
    if best > tolerance and has_dropout(seen):
        best, best_name, best_sentence = math.nan, "dropout", DROPOUT
    elif best > max(tolerance, EXPLAINS * at_first):
        best, best_name, best_sentence, declared = math.nan, "", NOTHING_FITS, False
        if not base.every_order:
            best_sentence += ", or an order of the mini-batches that was not tried"
        if seen.provenance is not None and seen.provenance.notes:
            best_name, best_sentence = "noted", NOTED + " ".join(seen.provenance.notes).rstrip(".")
    elif best > tolerance:
        best_sentence += f" (this leaves a residual of {best:.1e} of {at_first:.1e})"
    return Validation(
        residual=base.residual,
        per_tensor=per_tensor,
        buffers_residual=off_buffers,
        agrees=False,
        tolerance=tolerance,
        cause=_said(best_sentence),
        hypothesis=best_name,
        cause_residual=best,
        declared=declared,
        tried=tuple(tried),
        note=note,
    )


def tolerance_for(seen: Observation) -> float:
    """Relative residual that rounding alone may leave between two machines.

    A weight change is rounded at the size of the weights, so eps ||w|| sqrt(steps) / ||change|| is added to the dtype's own.
    """
    training = seen.training
    if training.amp:
        return MIXED_PRECISION
    tolerance = TOLERANCES[training.dtype]
    if seen.kind == "delta":
        parameters = dict(seen.model.named_parameters())
        size = norm(seen.tensors)
        if size > 0:
            weights = norm({name: parameters[name].detach() for name in seen.tensors})
            steps = training.steps_for(seen.num_examples)
            eps = torch.finfo(getattr(torch, training.dtype)).eps
            tolerance += 0.3 * eps * math.sqrt(steps) * weights / size
    return min(tolerance, LARGEST_TOLERANCE)


def _trained(seen: Observation) -> tuple[str, ...]:
    """Parameters that local training changes, shared or withheld."""
    parameters = seen.model.named_parameters()
    return tuple(name for name, parameter in parameters if name in seen.tensors or parameter.requires_grad)


def _misfit(seen: Observation, tensors: Mapping[str, Tensor], left: float) -> float:
    """The residual, or a hundredth of the worst tensor's where that is larger: both have to lie within the tolerance."""
    if not tensors or left == 0.0:  # a cause that says itself how well it fits
        return left
    return max(left, max(_per_tensor(seen, tensors).values()) / PER_TENSOR)


def _per_tensor(seen: Observation, found: Mapping[str, Tensor]) -> dict[str, float]:
    if not found:
        return dict.fromkeys(seen.tensors, math.inf)
    floor = SMALL_TENSOR * norm(seen.tensors)
    values = {}
    for name, tensor in seen.tensors.items():
        size = max(norm({name: tensor}), floor)
        gap = norm({name: found[name].double() - tensor.double()})
        values[name] = gap / size if size else (0.0 if gap == 0 else math.inf)
    return {name: value if math.isfinite(value) else math.inf for name, value in values.items()}


def _buffers_residual(seen: Observation, base: Recomputed) -> float:
    shared: dict[str, Tensor] = {
        name: tensor for name, tensor in seen.buffers.items() if tensor.is_floating_point() and name in base.buffers
    }
    return residual(shared, base.buffers) if shared else math.nan


def _note(base: Recomputed) -> str:
    if base.orders <= 1 and base.every_order:
        return ""
    how = "all of them" if base.every_order else "of many more"
    return f"The order of the mini-batches is not known (shuffle=True); {base.orders} order(s) were tried, {how}."


def _said(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:] + "."
