"""`leakgauge capture`: play a client once; the observation, and apart from it the truth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from leakgauge.cli.options import Classes, Json, Model, ModelSeed, Seed, Weights, parse_numbers, training_of, use_threads

if TYPE_CHECKING:
    from pathlib import Path

    from leakgauge.core.training import LocalTraining

TRAINING = "Local training (give these, or --protocol)"


def capture_command(
    model: Model,
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="SPEC",
            help="folder:PATH?indices=0-4&size=32, demo:cat, text:PATH?task=causal, ...",
            show_default=False,
        ),
    ],
    out: Annotated[str, typer.Option("--out", metavar="FILE", help="The observation, a safetensors file.", show_default=False)],
    truth: Annotated[
        str | None,
        typer.Option(
            "--truth", metavar="FILE", help="The private batch; by default truth/NAME beside --out.", show_default=False
        ),
    ] = None,
    weights: Weights = None,
    classes: Classes = None,
    model_seed: ModelSeed = 0,
    loss: Annotated[str | None, typer.Option(help="cross_entropy, binary_cross_entropy or mse.", show_default=False)] = None,
    protocol: Annotated[
        str | None, typer.Option(metavar="P.toml", help="The client's protocol from a file.", show_default=False)
    ] = None,
    lr: Annotated[
        float | None, typer.Option(help="Learning rate; without one a gradient is shared.", rich_help_panel=TRAINING)
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps.", rich_help_panel=TRAINING)] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the batch, instead of steps.", rich_help_panel=TRAINING)] = None,
    batch_size: Annotated[int | None, typer.Option(help="Examples per mini-batch.", rich_help_panel=TRAINING)] = None,
    optimiser: Annotated[str | None, typer.Option(help="sgd, adam or adamw.", rich_help_panel=TRAINING)] = None,
    momentum: Annotated[float | None, typer.Option(help="Of SGD.", rich_help_panel=TRAINING)] = None,
    nesterov: Annotated[
        bool | None, typer.Option("--nesterov/--no-nesterov", help="Nesterov's momentum.", rich_help_panel=TRAINING)
    ] = None,
    betas: Annotated[str | None, typer.Option(help="Adam's decay rates, as 0.9,0.999.", rich_help_panel=TRAINING)] = None,
    weight_decay: Annotated[float | None, typer.Option(help="L2 penalty.", rich_help_panel=TRAINING)] = None,
    schedule: Annotated[
        str | None, typer.Option(help="Factors on the learning rate, joined by ','.", rich_help_panel=TRAINING)
    ] = None,
    accumulation: Annotated[int | None, typer.Option(help="Mini-batches per optimiser step.", rich_help_panel=TRAINING)] = None,
    clip_norm: Annotated[float | None, typer.Option(help="Largest norm of a step's gradient.", rich_help_panel=TRAINING)] = None,
    reduction: Annotated[str | None, typer.Option(help="mean or sum.", rich_help_panel=TRAINING)] = None,
    label_smoothing: Annotated[float | None, typer.Option(help="From 0 to 1.", rich_help_panel=TRAINING)] = None,
    class_weights: Annotated[str | None, typer.Option(help="One per class, joined by ','.", rich_help_panel=TRAINING)] = None,
    proximal: Annotated[float | None, typer.Option(help="FedProx's mu.", rich_help_panel=TRAINING)] = None,
    shuffle: Annotated[
        bool | None, typer.Option("--shuffle/--no-shuffle", help="Shuffle each epoch.", rich_help_panel=TRAINING)
    ] = None,
    drop_last: Annotated[
        bool | None, typer.Option("--drop-last/--keep-last", help="Leave out a last mini-batch.", rich_help_panel=TRAINING)
    ] = None,
    mode: Annotated[str | None, typer.Option(help="eval or train.", rich_help_panel=TRAINING)] = None,
    dtype: Annotated[str | None, typer.Option(help="float64, float32, float16 or bfloat16.", rich_help_panel=TRAINING)] = None,
    amp: Annotated[bool | None, typer.Option("--amp/--no-amp", help="Mixed precision.", rich_help_panel=TRAINING)] = None,
    defence: Annotated[
        list[str] | None,
        typer.Option("--defence", metavar="NAME:k=v", help="Applied before sharing; may be repeated.", show_default=False),
    ] = None,
    withhold: Annotated[
        list[str] | None,
        typer.Option("--withhold", metavar="NAME", help="A parameter that is not shared; may be repeated.", show_default=False),
    ] = None,
    labels: Annotated[
        bool, typer.Option("--labels/--no-labels", help="Grant the attacker the labels (a diagnostic figure).")
    ] = False,
    batch_norm: Annotated[bool, typer.Option("--batch-norm/--no-batch-norm", help="Share buffers such as BatchNorm's.")] = True,
    seed: Seed = 0,
    state: Annotated[bool, typer.Option("--state/--no-state", help="Write the model's weights into the observation.")] = True,
    as_json: Json = False,
) -> None:
    """Play a client once: the observation an attacker holds, and apart from it the truth."""
    from leakgauge.audit.case import defences_of, play
    from leakgauge.audit.text_case import check_network, load_batch
    from leakgauge.cli.networks import check_labels, load_weights, outputs_of
    from leakgauge.cli.places import output_file
    from leakgauge.core.threat import ThreatModel
    from leakgauge.models import load_model

    use_threads()
    given: dict[str, object] = {
        "lr": lr, "steps": steps, "epochs": epochs, "batch_size": batch_size, "optimiser": optimiser, "momentum": momentum,
        "nesterov": nesterov, "betas": parse_numbers(betas, "betas"), "weight_decay": weight_decay,
        "schedule": parse_numbers(schedule, "schedule"), "accumulation": accumulation, "clip_norm": clip_norm,
        "reduction": reduction, "label_smoothing": label_smoothing,
        "class_weights": parse_numbers(class_weights, "class-weights"), "proximal": proximal,
        "shuffle": shuffle, "drop_last": drop_last, "mode": mode, "dtype": dtype, "amp": amp,
    }  # fmt: skip
    training, loss, withheld = _protocol(protocol, given, loss, tuple(withhold or ()))
    defences = defences_of(tuple(defence or ()))
    target = output_file(out)
    truth_file = output_file(truth or target.parent / "truth" / target.name)
    _apart(target, truth_file)
    batch = load_batch(data, model)
    shape = batch.pictures.shape if batch.pictures is not None else None
    network = load_model(model, num_classes=classes, input_shape=shape, seed=model_seed)
    load_weights(network, weights)
    check_network(network, batch, model)
    if shape is not None:
        check_labels(batch, outputs_of(network, model, shape), loss, model)
    seen = play(
        network,
        batch,
        loss=loss,
        training=training,
        defences=defences,
        threat=ThreatModel.honest_but_curious(labels=labels, batch_norm=batch_norm),
        seed=seed,
        withhold=withheld,
        model_name=model,
    )
    seen.save(target, include_state=state)
    batch.save(truth_file)
    _tell(target, truth_file, seen, as_json)


def _protocol(
    file: str | None, given: dict[str, object], loss: str | None, withheld: tuple[str, ...]
) -> tuple[LocalTraining, str, tuple[str, ...]]:
    """Local training, loss and withheld parameters, from the file or from the options."""
    from leakgauge.core.protocol_file import protocol_from_toml
    from leakgauge.core.training import LocalTraining
    from leakgauge.errors import OptionError

    if file is None:
        return training_of(LocalTraining(), **given), loss or "cross_entropy", withheld
    double = [name for name, value in given.items() if value is not None]
    if double:
        raise OptionError(f"--{double[0].replace('_', '-')} is given beside --protocol {file}; give one of the two.")
    protocol = protocol_from_toml(file)
    return protocol.training, loss or protocol.loss, (*protocol.withheld, *withheld)


def _apart(target: Path, truth: Path) -> None:
    from leakgauge.errors import OptionError

    if target.resolve() == truth.resolve():
        raise OptionError(f"The truth and the observation cannot be the same file, {str(target)!r}.")


def _tell(target: Path, truth: Path, seen: object, as_json: bool) -> None:
    from leakgauge.audit.conditions import defence_text, training_text
    from leakgauge.audit.making import bound_of
    from leakgauge.cli.console import print_json, say
    from leakgauge.core.observation import Observation

    assert isinstance(seen, Observation)
    bound = bound_of(seen)
    facts = {
        "observation": str(target),
        "truth": str(truth),
        "kind": seen.kind,
        "num_examples": seen.num_examples,
        "training": training_text(seen.training),
        "defence": defence_text(seen.defences),
        "tensors": len(seen.tensors),
        "labels_granted": seen.labels is not None,
        "bound": bound.verdict if bound else "",
        "determinable": bound.determinable if bound else None,
        "spec": seen.spec.to_json() if seen.spec else None,
    }
    if as_json:
        print_json(facts)
        return
    what = "gradient" if seen.kind == "gradient" else "weight change"
    say(f"Observation: {target} ({what} of {seen.num_examples} example(s), {facts['training']}, defence: {facts['defence']})")
    say(f"Truth, kept apart: {truth}")
    if bound:
        say(bound.verdict)
