"""Hypotheses on what torch's optimisers can do and the protocol cannot say, and on noise inside local training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from torch import Tensor

from leakgauge.core.observation import Observation
from leakgauge.core.training import LocalTraining
from leakgauge.core.update import DefenceRecord
from leakgauge.federated.validation.recompute import Recomputed, norm, residual
from leakgauge.federated.validation.trial import Candidate, Trial
from leakgauge.local.losses import loss_value
from leakgauge.local.optimisers import EPSILON, SGD, Adam, Optimiser, optimiser_for

EPSILONS = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-10, 1e-12)
DAMPENINGS = (0.9, 0.5, 0.1)
AS_NOISE = 1.5  # the difference is noise of the declared strength where it is up to so much longer or shorter
SHAKEN = 0.01  # a tensor is decided by rounding where float64 changes it by more than this share
DP_SGD = "dp-sgd"


def declared_dp_sgd(seen: Observation) -> DefenceRecord | None:
    """The record of DP-SGD that the observation declares, or None."""
    return next((record for record in seen.defences if record.name == DP_SGD), None)


def private_noise(trial: Trial) -> Iterator[Candidate]:
    """DP-SGD's noise, which the observation declares: replayed with another draw, it is about as long as the difference."""
    record = declared_dp_sgd(trial.seen)
    std = 0.0 if record is None else record.parameters["noise_multiplier"] * record.parameters["clip_norm"]
    other = trial.again(noise=std) if std else None
    if record is None or other is None or not trial.base.tensors:
        return
    gap = norm({name: tensor.double() - trial.base.tensors[name].double() for name, tensor in trial.seen.tensors.items()})
    expected = norm({name: tensor.double() - trial.base.tensors[name].double() for name, tensor in other.tensors.items()})
    ratio = gap / expected if expected else float("inf")
    strengths = ", ".join(f"{key} {value:g}" for key, value in record.parameters.items())
    yield Candidate(
        f"DP-SGD added noise in every step, as the observation declares ({strengths}); it cannot be recomputed. The difference "
        f"is {ratio:.2f} times as long as another draw of this noise makes it",
        trial.base.tensors,
        left=0.0 if 1 / AS_NOISE <= ratio <= AS_NOISE else None,
        declared=True,
    )


def amsgrad(trial: Trial) -> Iterator[Candidate]:
    """Adam with the largest second moment so far."""
    if _adam(trial):
        yield from _tell(
            trial.again(rule=partial(Adam, amsgrad=True)), "the optimiser used AMSGrad, which the protocol cannot say"
        )


def other_epsilon(trial: Trial) -> Iterator[Candidate]:
    """Adam with another eps."""
    for value in EPSILONS if _adam(trial) else ():
        sentence = f"Adam's eps was {value:g}, not {EPSILON:g}, which the protocol cannot say"
        yield from _tell(trial.again(rule=partial(Adam, epsilon=value)), sentence)


def dampened(trial: Trial) -> Iterator[Candidate]:
    """SGD with dampening."""
    momentum = trial.setting.training.momentum
    if trial.lr is not None and momentum:
        for value in dict.fromkeys((momentum, 1 - momentum, *DAMPENINGS)):
            sentence = f"SGD's dampening was {value:.4g}, which the protocol cannot say"
            yield from _tell(trial.again(rule=partial(SGD, dampening=value)), sentence)


def decay_of_some(trial: Trial) -> Iterator[Candidate]:
    """Weight decay on matrices only, as transformers are trained."""
    if trial.lr is not None and trial.setting.training.weight_decay:
        sentence = "weight decay acted on matrices and kernels only, not on biases and norms (parameter groups)"
        yield from _tell(trial.again(rule=_rule(lambda weight: weight.ndim > 1)), sentence)


def loss_scale(trial: Trial) -> Iterator[Candidate]:
    """Accumulated mini-batches whose gradients were added up where the protocol averages them, or the reverse."""
    training, loss = trial.setting.training, trial.setting.loss
    count = training.accumulation
    if count == 1:
        return

    def each(divisor: float) -> Callable[[Any, Tensor], Tensor]:
        return lambda output, target: loss_value(loss, output, target, training) / divisor

    if training.reduction == "sum":
        sentence = f"the gradients of {count} accumulated mini-batches were averaged, not added up (the loss was divided)"
        yield from _tell(trial.again({"reduction": "mean"}, loss=each(1.0)), sentence)
        return
    sentence = f"the gradients of {count} accumulated mini-batches were added up, not averaged (the loss was not divided)"
    yield from _tell(trial.again({"reduction": "sum"}, loss=each(1.0)), sentence)
    sentence = f"the sum over accumulated mini-batches was divided by {count} also where a step took fewer of them"
    yield from _tell(trial.again({"reduction": "sum"}, loss=each(count)), sentence)


def rounding_in_adam(trial: Trial) -> Iterator[Candidate]:
    """Gradients that are zero up to rounding, such as a bias before BatchNorm: Adam makes whole steps of them."""
    if not _adam(trial) or trial.setting.training.dtype == "float64":
        return
    fine, base = trial.again({"dtype": "float64"}), trial.base.tensors
    if fine is None or not base:
        return
    gaps = {name: norm({name: fine.tensors[name].double() - tensor.double()}) for name, tensor in base.items()}
    shaken = [name for name, tensor in base.items() if gaps[name] > SHAKEN * norm({name: tensor})]
    steady = {name: tensor for name, tensor in trial.seen.tensors.items() if name not in shaken}
    if shaken and steady:
        shown = ", ".join(repr(name) for name in shaken[:3]) + (f" and {len(shaken) - 3} more" if len(shaken) > 3 else "")
        yield Candidate(
            f"the gradient of {shown} is zero up to rounding (a bias before BatchNorm, or of attention's keys?), and Adam "
            f"divides it by its own size, so that rounding decides the step; all others agree to {residual(steady, base):.1e}",
            {**base, **{name: trial.seen.tensors[name] for name in shaken}},
        )


def _adam(trial: Trial) -> bool:
    return trial.lr is not None and trial.setting.training.optimiser != "sgd"


def _rule(decays: Callable[[Tensor], bool]) -> Callable[[LocalTraining], Optimiser]:
    def made(training: LocalTraining) -> Optimiser:
        rule = optimiser_for(training)
        rule.decays = decays
        return rule

    return made


def _tell(found: Recomputed | None, sentence: str) -> Iterator[Candidate]:
    if found is not None:
        yield Candidate(sentence, found.tensors, found.residual)
