"""Conditions in words: everything about an attack on an observation that a number depends on."""

from __future__ import annotations

import platform
from importlib.metadata import version

from leakgauge.audit.record import Conditions
from leakgauge.core.batch_statistics import batch_norm_layers
from leakgauge.core.observation import Knowledge, Observation
from leakgauge.core.reconstruction import Reconstruction
from leakgauge.core.spec import Spec
from leakgauge.core.text_spec import TextSpec
from leakgauge.core.training import LocalTraining
from leakgauge.core.update import DefenceRecord

OPTIMISERS = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW"}


def conditions_of(
    seen: Observation,
    guess: Reconstruction,
    *,
    model: str,
    model_state: str,
    budget: str | int,
    seeds: dict[str, int],
    device: str = "cpu",
) -> Conditions:
    """All conditions of one attack on one observation.

    Args:
        seen: what the attacker held.
        guess: what came of it.
        model: name of the network, with options.
        model_state: 'untrained', 'trained (62 % accuracy)' or 'as given'.
        budget: as the attack was called with.
        seeds: what was seeded with what.
        device: where the attack computed.
    """
    return Conditions(
        model=model,
        model_state=model_state,
        shape=shape_of(seen.spec),
        input_range=range_text(seen.spec),
        batch_size=seen.num_examples,
        training=training_text(seen.training) + assumed_text(seen),
        mode=seen.training.mode,
        batch_norm=batch_norm_text(seen),
        labels=labels_text(seen, guess),
        defence=defence_text(seen.defences) if seen.defences or Knowledge.DEFENCE in seen.knowledge else "not known",
        dtype=seen.training.dtype + (" with automatic mixed precision" if seen.training.amp else ""),
        threat=seen.threat,
        knowledge=knowledge_texts(seen),
        realistic=Knowledge.LABELS not in seen.knowledge,
        budget=str(budget),
        seeds=dict(seeds),
        versions=versions(),
        device=device,
    )


def knowledge_texts(seen: Observation) -> tuple[str, ...]:
    """What is granted beyond the minimum, as far as there is anything to grant."""
    empty = set() if batch_norm_layers(seen.model) else {Knowledge.BATCH_NORM}
    return tuple(sorted(fact.value for fact in seen.knowledge - empty))


def shape_of(spec: Spec | None) -> tuple[int, ...]:
    """(C, H, W) of a picture, (L,) of a text; () where neither is known."""
    if isinstance(spec, TextSpec):
        return (spec.length,)
    return () if spec is None else spec.shape


def range_text(spec: Spec | None) -> str:
    """'[0, 1]', or mean and std; the ids of tokens."""
    if spec is None:
        return "not stated"
    if isinstance(spec, TextSpec):
        return f"token ids 0 to {spec.vocabulary - 1}"
    if spec.mean == 0.0 and spec.std == 1.0:
        return "[0, 1]"
    mean, std = (
        " ".join(f"{entry:g}" for entry in (value if isinstance(value, tuple) else (value,))) for value in (spec.mean, spec.std)
    )
    return f"mean {mean}, std {std}"


def training_text(training: LocalTraining) -> str:
    """The local training in one phrase: 'one gradient', '5 SGD steps, lr 0.1, mini-batches of 4'."""
    details = []
    if training.lr is None:
        start = "one gradient"
    else:
        name, count = OPTIMISERS[training.optimiser], training.epochs or training.steps
        unit = ("epoch" if training.epochs else "step") + ("" if count == 1 else "s")
        start = f"{count} {name} {unit}" if not training.epochs else f"{count} {unit} of {name}"
        details.append(f"lr {training.lr:g}")
    if training.batch_size is not None:
        details.append(f"mini-batches of {training.batch_size}")
    for value, text in (
        (training.momentum, f"{'Nesterov ' if training.nesterov else ''}momentum {training.momentum:g}"),
        (training.weight_decay, f"weight decay {training.weight_decay:g}"),
        (training.clip_norm, f"gradient norm at most {training.clip_norm or 0:g}"),
        (training.label_smoothing, f"label smoothing {training.label_smoothing:g}"),
        (training.proximal, f"proximal term {training.proximal:g}"),
        (training.accumulation > 1, f"{training.accumulation} mini-batches per step"),
        (training.schedule, "with a schedule"),
        (training.class_weights, "with class weights"),
        (training.reduction == "sum", "summed over examples"),
    ):
        if value:
            details.append(text)
    return ", ".join((start, *details))


def batch_norm_text(seen: Observation) -> str:
    """'none in the network', 'statistics seen' or 'statistics not seen'."""
    if not batch_norm_layers(seen.model):
        return "none in the network"
    return "statistics seen" if seen.batch_norm else "statistics not seen"


def assumed_text(seen: Observation) -> str:
    """What of the protocol a recorder had to assume, since no configuration stated it; '' where nothing."""
    assumed = () if seen.provenance is None else seen.provenance.assumed
    return f" (not stated, assumed: {', '.join(assumed)})" if assumed else ""


def labels_text(seen: Observation, guess: Reconstruction) -> str:
    """How the attack came by labels."""
    mode = str(guess.stats.options.get("labels", "auto"))
    if mode in ("joint", "softmax"):
        return "optimised jointly"
    if guess.labels is None:
        return "not used"
    return "known" if seen.labels is not None and mode != "recovered" else "recovered"


def defence_text(defences: tuple[DefenceRecord, ...]) -> str:
    """'none', or names with strengths, such as 'gaussian-noise (std 0.001)'."""
    texts = []
    for record in defences:
        strengths = ", ".join(f"{name} {value:g}" for name, value in record.parameters.items())
        texts.append(f"{record.name} ({strengths})" if strengths else record.name)
    return ", then ".join(texts) or "none"


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on, and the number of threads, which changes their last digits."""
    import torch

    return {
        "leakgauge": version("leakgauge"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": str(torch.get_num_threads()),
    }
