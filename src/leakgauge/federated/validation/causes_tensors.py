"""Hypotheses that need no new replay: the tensors are scaled, exchanged, rounded, pruned, noisy, or of another kind."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from leakgauge.federated.validation.recompute import Tensors, norm, residual
from leakgauge.federated.validation.trial import Candidate, Trial

FEWEST_FOR_NOISE = 64  # numbers from which noise is told from other differences


def dot(one: Tensors, other: Tensors) -> float:
    """Inner product over all tensors, in float64."""
    return sum(float((one[name].double() * other[name].double()).sum()) for name in one)


def scaled(tensors: Tensors, factor: float) -> Tensors:
    """Every tensor times the factor, in float64."""
    return {name: tensor.double() * factor for name, tensor in tensors.items()}


def best_factor(trial: Trial) -> float | None:
    """Least-squares factor from the recomputed to the observed update; None where the recomputed one is zero."""
    size = dot(trial.base.tensors, trial.base.tensors) if trial.base.tensors else 0.0
    return dot(dict(trial.seen.tensors), trial.base.tensors) / size if size > 0 and math.isfinite(size) else None


def known_factors(trial: Trial) -> list[tuple[str, float]]:
    """Factors that have a meaning, in words."""
    known = [
        ("the sign is reversed (before minus after, or the negative gradient)", -1.0),
        (f"the number of examples N = {trial.count} (sum and mean over examples are mixed up)", float(trial.count)),
        (f"1/N for N = {trial.count} examples (mean and sum over examples are mixed up)", 1.0 / trial.count),
        ("a half, as in a loss with the factor 0.5", 0.5),
        ("two, as in a loss without the factor 0.5", 2.0),
    ]
    if trial.lr is not None:
        lr, steps = trial.lr, trial.steps
        known += [
            ("-1/lr (the gradient was shared instead of the weight change)", -1.0 / lr),
            ("1/lr (the weight change was divided by the learning rate)", 1.0 / lr),
            ("lr (the learning rate was applied twice)", lr),
            ("-lr (a change was taken for a gradient)", -lr),
        ]
        if steps > 1:
            known += [
                (f"-1/(lr steps), the mean gradient over {steps} steps", -1.0 / (lr * steps)),
                (f"1/steps for {steps} steps (averaged over steps)", 1.0 / steps),
                (f"the number of steps, {steps}", float(steps)),
            ]
    return [(words, value) for words, value in known if value != 1.0]


def named_factor(trial: Trial) -> Iterator[Candidate]:
    """A constant factor that equals a known quantity."""
    factor = best_factor(trial)
    if factor is None:
        return
    near = max(1e-4, 0.2 * trial.tolerance)
    names = [(words, value) for words, value in known_factors(trial) if abs(factor - value) <= near * abs(value)]
    if names:
        words = " or ".join(words for words, _ in names)
        number = "" if names[0][1] == -1.0 and len(names) == 1 else f"the update is {names[0][1]:.4g} times the recomputed one: "
        yield Candidate(number + words + _other_rate(trial, factor), scaled(trial.base.tensors, factor))
    elif trial.lr is None and factor < 0:
        yield Candidate(
            f"the tensors are a weight change instead of a gradient: {factor:.4g} times the recomputed gradient, as one SGD step "
            f"with the learning rate lr = {-factor:.4g} gives (after minus before)",
            scaled(trial.base.tensors, factor),
        )


def any_factor(trial: Trial) -> Iterator[Candidate]:
    """A constant factor that equals nothing known."""
    factor = best_factor(trial)
    if factor is not None and factor != 0:
        sentence = f"a constant factor: the update is {factor:.4g} times the recomputed one" + _other_rate(trial, factor)
        yield Candidate(sentence, scaled(trial.base.tensors, factor))


def _other_rate(trial: Trial, factor: float) -> str:
    one_step = trial.lr is not None and trial.steps == 1 and factor > 0
    return f"; a learning rate of {factor * trial.lr:.4g} gives the same" if one_step and trial.lr is not None else ""


def clipped_once(trial: Trial) -> Iterator[Candidate]:
    """One gradient clipped to a round norm."""
    training, factor = trial.setting.training, best_factor(trial)
    if factor is None or not 0 < factor < 1 or trial.steps > 1 or training.optimiser != "sgd" or trial.seen.withheld:
        return
    length = norm(dict(trial.seen.tensors)) / (trial.lr or 1.0)
    rounded = float(f"{length:.2g}")
    if abs(length - rounded) <= 1e-3 * rounded:
        yield Candidate(
            f"the gradient was clipped to the norm {rounded:g}, which the protocol does not say (clip_norm)",
            scaled(trial.base.tensors, factor),
        )


def weights_shared(trial: Trial) -> Iterator[Candidate]:
    """Weights after training instead of their change."""
    start = dict(trial.seen.model.named_parameters())
    if trial.seen.kind == "delta" and trial.base.tensors:
        after = {name: start[name].detach().double() + tensor.double() for name, tensor in trial.base.tensors.items()}
        yield Candidate("the weights after training were shared instead of the change 'after minus before'", after)
        yield Candidate("the negative weights were shared instead of the change", scaled(after, -1.0))


def tensors_exchanged(trial: Trial) -> Iterator[Candidate]:
    """Tensors of one shape in another order, as in unnamed lists."""
    from scipy.optimize import linear_sum_assignment

    groups: dict[tuple[int, ...], list[str]] = {}
    for name, tensor in trial.base.tensors.items():
        groups.setdefault(tuple(tensor.shape), []).append(name)
    moved, pairs = dict(trial.base.tensors), []
    for names in groups.values():
        if len(names) < 2:
            continue
        cost = torch.tensor([[_gap(trial.seen.tensors[a], trial.base.tensors[b]) for b in names] for a in names])
        rows, columns = linear_sum_assignment(cost.nan_to_num(nan=1e300, posinf=1e300).numpy())
        for row, column in zip(rows, columns, strict=True):
            moved[names[row]] = trial.base.tensors[names[column]]
            if row < column:
                pairs.append(f"{names[row]!r} and {names[column]!r}")
    if pairs:
        yield Candidate(f"tensors of the same shape are exchanged: {', '.join(pairs)} (an unnamed list in another order?)", moved)


def _gap(one: Tensor, other: Tensor) -> float:
    return float((one.double() - other.double()).square().sum())


def rounded_to_16_bit(trial: Trial) -> Iterator[Candidate]:
    """Numbers sent in 16 bits."""
    for words, dtype in (("float16", torch.float16), ("bfloat16", torch.bfloat16)):
        seen = trial.seen.tensors
        if all(torch.equal(tensor.to(dtype).to(tensor.dtype), tensor) for tensor in seen.values()):
            coarse = {name: tensor.to(dtype).double() for name, tensor in trial.base.tensors.items()}
            near = (
                residual(seen, coarse) < 0.2 * trial.base.residual or residual(seen, trial.base.tensors) < torch.finfo(dtype).eps
            )
            yield Candidate(
                f"the shared numbers were rounded to 16 bits ({words})" + _declared(trial, "half-precision"),
                coarse,
                left=0.0 if near else None,
                declared=_is_declared(trial, "half-precision"),
            )


def pruned(trial: Trial) -> Iterator[Candidate]:
    """Entries set to zero."""
    seen = trial.seen.tensors
    kept = {name: tensor * (seen[name] != 0) for name, tensor in trial.base.tensors.items()}
    total = sum(tensor.numel() for tensor in seen.values())
    lost = sum(int(((seen[name] == 0) & (tensor != 0)).sum()) for name, tensor in trial.base.tensors.items())
    if lost:
        yield Candidate(
            f"{100 * lost / total:.0f} % of the shared numbers were set to zero (pruning)" + _declared(trial, "prune"),
            kept,
            declared=_is_declared(trial, "prune"),
        )


def white_noise(trial: Trial) -> Iterator[Candidate]:
    """A difference that looks like independent noise of one strength on every number."""
    if not trial.base.tensors:
        return
    gaps = {name: (tensor.double() - trial.base.tensors[name].double()).flatten() for name, tensor in trial.seen.tensors.items()}
    whole = torch.cat(list(gaps.values()))
    std = float(whole.std()) if len(whole) > 1 else 0.0
    if len(whole) < FEWEST_FOR_NOISE or not math.isfinite(std) or std == 0:
        return
    found = torch.cat([trial.base.tensors[name].double().flatten() for name in gaps])
    overlap = abs(float(torch.nn.functional.cosine_similarity(whole, found, dim=0)))
    even = all(abs(float(gap.square().mean().sqrt()) / std - 1) < 6.0 / math.sqrt(2 * len(gap)) for gap in gaps.values())
    centred = abs(float(whole.mean())) < 5 * std / math.sqrt(len(whole))
    if even and centred and overlap < 5 / math.sqrt(len(whole)):
        kurtosis = float((whole / std).pow(4).mean())
        laplacian = kurtosis > 3 + max(1.5, 5 * math.sqrt(24 / len(whole)))
        kind = (
            f"Laplacian noise of scale {std / math.sqrt(2):.2g}"
            if laplacian
            else f"Gaussian noise of standard deviation {std:.2g}"
        )
        name = "laplacian-noise" if laplacian else "gaussian-noise"
        yield Candidate(
            f"the difference looks like {kind} on every shared number" + _declared(trial, name),
            trial.base.tensors,
            left=0.0,
            declared=_is_declared(trial, name),
        )


def _is_declared(trial: Trial, name: str) -> bool:
    return any(record.name == name for record in trial.seen.defences)


def _declared(trial: Trial, name: str) -> str:
    for record in trial.seen.defences:
        if record.name == name:
            strengths = ", ".join(f"{key} {value:g}" for key, value in record.parameters.items())
            return f", as the observation declares ({name}{' ' + strengths if strengths else ''})"
    return ", a defence that the observation does not declare"
