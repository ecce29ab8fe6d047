"""Case: client, defence, threat and attack in one value; `run_case` plays it and returns its record."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

from torch import nn

from leakgauge.attacks.base import Progress, resolve_device
from leakgauge.attacks.run import attack
from leakgauge.audit.making import record_of, unsupported
from leakgauge.audit.prior import with_picture
from leakgauge.audit.record import Record, Series
from leakgauge.audit.text_case import check_network, load_batch, tokeniser_for, with_public
from leakgauge.core.callables import Loss
from leakgauge.core.observation import Knowledge, Observation
from leakgauge.core.reconstruction import Reconstruction
from leakgauge.core.threat import ThreatModel
from leakgauge.core.training import LocalTraining
from leakgauge.data.text import is_text, parse_text_data
from leakgauge.data.tokeniser import Tokeniser
from leakgauge.defences.base import Defence
from leakgauge.errors import KnowledgeError, OptionError, UnsupportedError
from leakgauge.federated.client import Client
from leakgauge.models import load_model
from leakgauge.registry import make, parse_call
from leakgauge.truth import Batch

RESERVED = ("seed", "budget", "time_limit", "device", "cancelled", "progress")


@dataclass(frozen=True)
class Case:
    """One private batch, one client, one attacker.

    Args:
        model: name of a network as `load_model` reads it, or a module.
        data: text as `load_data` reads it, or a batch.
        attack: 'NAME' or 'NAME:k=v,..'; a prior picture as data, 'bn-matching:prior=demo:cat'.
        title: in plain words; made up from the rest by default.
        num_classes: outputs of a named network; None for its own default.
        model_state: in words: 'untrained', 'trained (62 % accuracy)' or 'as given'.
        loss: name or callable.
        training: the client's protocol.
        defences: texts 'NAME:k=v', or defences, in the order in which the client applies them.
        threat: who attacks, and what they are granted.
        seed: of the client's own draws, its defences' included.
        attack_seed: of the attack's draws.
        model_seed: of a named network's initial weights.
        budget: 'fast', 'paper', 'max' or a number of gradient evaluations.
        time_limit: seconds, or None.
        series: membership in a sweep.
        model_name: of a module that is handed over.
        command: what makes the record again, where `reproduce` cannot know.
        measures: more measures of pictures, 'NAME:k=v' each.
    """

    model: str | nn.Module
    data: str | Batch
    attack: str
    title: str = ""
    num_classes: int | None = None
    model_state: str = "untrained"
    loss: Loss = "cross_entropy"
    training: LocalTraining = LocalTraining()  # noqa: RUF009 - frozen
    defences: tuple[str | Defence, ...] = ()
    threat: ThreatModel = field(default_factory=ThreatModel.honest_but_curious)
    seed: int = 0
    attack_seed: int = 0
    model_seed: int = 0
    budget: str | int = "fast"
    time_limit: float | None = None
    series: Series | None = None
    model_name: str = ""
    command: str = ""
    measures: tuple[str, ...] = ()


def run_case(
    case: Case,
    *,
    device: str = "auto",
    cancelled: Callable[[], bool] | None = None,
    progress: Callable[[Progress], None] | None = None,
    keep_unsupported: bool = False,
    batch: Batch | None = None,
) -> Record:
    """Plays the whole line: client, defence, observation, attack, score and control.

    Args:
        case: what is played.
        device: for the attack.
        cancelled: polled during the attack; True ends it with what was best so far.
        progress: called now and then.
        keep_unsupported: return a record that states the reason where the attack does not apply, instead of raising.
        batch: what the case's data name, where it is loaded already.

    Raises:
        UnsupportedError, KnowledgeError: if the attack does not apply, unless `keep_unsupported`.
        LeakgaugeError: for a name, option or picture that cannot be used.
    """
    if batch is None:
        batch = load_batch(case.data, name_of(case)) if isinstance(case.data, str) else case.data
    model = network_of(case, batch)
    check_network(model, batch, name_of(case))
    name, options = attack_call(case.attack)
    seen = observed(case, model, batch)
    options = with_picture(options, seen.pictures)
    options = with_public(name, options, seen.spec, tokeniser_of(case, seen))
    where = resolve_device(device)
    try:
        guess = attack(
            seen,
            name,
            seed=case.attack_seed,
            budget=case.budget,
            time_limit=case.time_limit,
            device=where,
            cancelled=cancelled,
            progress=progress,
            **options,
        )
    except (UnsupportedError, KnowledgeError) as reason:
        if not keep_unsupported:
            raise
        guess = unsupported(seen, name, reason)
    return scored(case, seen, guess, batch, where)


def observed(case: Case, model: nn.Module, batch: Batch) -> Observation:
    """What the case's attacker holds."""
    return play(
        model,
        batch,
        loss=case.loss,
        training=case.training,
        defences=defences_of(case.defences),
        threat=case.threat,
        seed=case.seed,
        model_name=name_of(case),
    )


def scored(case: Case, seen: Observation, guess: Reconstruction, batch: Batch, device: str) -> Record:
    """The record of a case whose attack has ended; only here do reconstruction and truth meet."""
    seeds = {"client": case.seed, "attack": case.attack_seed}
    if isinstance(case.model, str):
        seeds["model"] = case.model_seed
    return record_of(
        seen,
        guess,
        batch,
        model_state=case.model_state,
        budget=case.budget,
        seeds=seeds,
        title=case.title,
        series=case.series,
        reproduce=case.command or reproduce(case),
        device=device.partition(":")[0],
        identity=(case.data if isinstance(case.data, str) else batch.names, case.attack),
        tokeniser=tokeniser_of(case, seen),
        measures=case.measures,
    )


def tokeniser_of(case: Case, seen: Observation) -> Tokeniser | None:
    """What a case's texts are read with; None for pictures."""
    return tokeniser_for(seen.spec, name_of(case), data=case.data if isinstance(case.data, str) else "")


def play(
    model: nn.Module,
    batch: Batch,
    *,
    loss: Loss = "cross_entropy",
    training: LocalTraining = LocalTraining(),  # noqa: B008 - frozen
    defences: tuple[Defence, ...] = (),
    threat: ThreatModel | None = None,
    seed: int = 0,
    withhold: tuple[str, ...] = (),
    model_name: str = "",
) -> Observation:
    """A client's whole round: local training on the batch, its defences, and what the attacker sees of it."""
    client = Client(model, loss=loss, training=training, defences=defences, withhold=withhold)
    update = client.train(batch, seed=seed)
    return (threat or ThreatModel.honest_but_curious()).observe(update, model, batch.spec, model_name=model_name)


def network_of(case: Case, batch: Batch) -> nn.Module:
    """The case's network, built for the batch where it is given by name."""
    if isinstance(case.model, nn.Module):
        return case.model
    shape = batch.pictures.shape if batch.pictures else None
    return load_model(case.model, num_classes=case.num_classes, input_shape=shape, seed=case.model_seed)


def name_of(case: Case) -> str:
    """The network's name for the record."""
    return case.model if isinstance(case.model, str) else case.model_name or type(case.model).__name__


def defences_of(texts: tuple[str | Defence, ...]) -> tuple[Defence, ...]:
    """Defences from 'NAME:k=v' texts.

    Raises:
        OptionError: for an unknown name or option.
    """
    made = []
    for text in texts:
        if isinstance(text, str):
            name, options = parse_call(text)
            made.append(make("defences", name, **options))
        else:
            made.append(text)
    return tuple(made)


def attack_call(text: str) -> tuple[str, dict[str, Any]]:
    """The attack's name and its own options.

    Raises:
        OptionError: if the options name what the call itself has, such as the seed.
    """
    name, options = parse_call(text)
    for key in RESERVED:
        if key in options:
            raise OptionError(
                f"{key!r} is no option of the attack {name!r} itself; give it beside the attack, as seed or budget."
            )
    return name, options


def reproduce(case: Case, weights: str = "") -> str:
    """The two commands that make a case's record again, with the weights of a file where one is named; '' where model, data or
    loss were handed over as objects."""
    if not (isinstance(case.model, str) and isinstance(case.data, str) and isinstance(case.loss, str)):
        return ""
    model = [case.model]
    if case.model_seed:
        model += ["--model-seed", str(case.model_seed)]
    if case.num_classes:
        model += ["--classes", str(case.num_classes)]
    capture = ["leakgauge", "capture", *model, "--data", case.data, "--out", "client.safetensors"]
    capture += ["--weights", weights] if weights else []
    capture += _training_flags(case.training) + (["--loss", case.loss] if case.loss != "cross_entropy" else [])
    for defence in case.defences:
        capture += ["--defence", defence if isinstance(defence, str) else _defence_call(defence)]
    capture += ["--labels"] if Knowledge.LABELS in case.threat.knowledge else []
    capture += [] if Knowledge.BATCH_NORM in case.threat.knowledge else ["--no-batch-norm"]
    capture += ["--seed", str(case.seed)] if case.seed else []
    play_back = ["leakgauge", "attack", "client.safetensors", "--model", *model, "--with", case.attack]
    if is_text(case.data) and (named := parse_text_data(case.data).tokeniser):
        play_back += ["--tokeniser", named]
    play_back += ["--seed", str(case.attack_seed)] if case.attack_seed else []
    play_back += ["--budget", str(case.budget)] if case.budget != "fast" else []
    play_back += ["--time-limit", f"{case.time_limit:g}"] if case.time_limit else []
    play_back += ["--truth", "truth/client.safetensors", "--out", "again"]
    return f"{shlex.join(capture)} && {shlex.join(play_back)}"


def _training_flags(training: LocalTraining) -> list[str]:
    """Command line options for the fields that differ from the default."""
    flags: list[str] = []
    for item in fields(LocalTraining):
        value, option = getattr(training, item.name), item.name.replace("_", "-")
        if value == item.default:
            continue
        if isinstance(value, bool):
            flags.append(f"--{option}" if value else f"--no-{option}")
        else:
            flags += [f"--{option}", ",".join(f"{entry:g}" for entry in value) if isinstance(value, tuple) else str(value)]
    return flags


def _defence_call(defence: Defence) -> str:
    record = defence.record()
    options = ",".join(f"{name}={value:g}" for name, value in record.parameters.items())
    return f"{record.name}:{options}" if options else record.name
