"""`leakgauge check`: what a network gives away, without plan and data, within a minute."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leakgauge.cli.options import Classes, Json, Model, ModelSeed, Seed, Threads, Weights, parse_shape, use_threads

if TYPE_CHECKING:
    from pathlib import Path

    from leakgauge.audit.architecture import Architecture
    from leakgauge.audit.record import Record

PAGE = "report.html"
SECONDS = 56.0  # for the whole command, which may take a minute
RESERVE = 14.0  # of them for start, scores, page, and steps of a search that are longer than its time
DEFAULT_LR = 0.1


def check_command(
    model: Model,
    shape: Annotated[str, typer.Option("--input", metavar="CxHxW", help="Shape of one input, as 3x32x32.", show_default=False)],
    batch: Annotated[int, typer.Option("--batch", min=1, max=105, help="The client's batch size.")] = 8,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Local steps; one gradient by default.")] = 1,
    lr: Annotated[
        float | None, typer.Option(help=f"Learning rate of local steps; {DEFAULT_LR} for several.", show_default=False)
    ] = None,
    classes: Classes = None,
    weights: Weights = None,
    model_seed: ModelSeed = 0,
    seed: Seed = 0,
    threads: Threads = 1,
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="Where records and page go.")] = "leakgauge-check",
    as_json: Json = False,
) -> None:
    """Check a network without any data of yours: equations counted, closed forms, matching and control, one page."""
    started = time.monotonic()
    from leakgauge.audit.architecture import architecture_of, save_architectures
    from leakgauge.audit.folder import save_record
    from leakgauge.cli.checking import planned_parts, run_parts
    from leakgauge.cli.networks import load_weights, outputs_of
    from leakgauge.cli.places import output_folder
    from leakgauge.cli.progress import Bar, interruptible
    from leakgauge.core.training import LocalTraining
    from leakgauge.errors import LeakgaugeError
    from leakgauge.models import load_model
    from leakgauge.report.html import write_html

    use_threads(threads)
    sides = parse_shape(shape)
    training = LocalTraining(steps=steps, lr=lr if lr is not None or steps == 1 else DEFAULT_LR)
    folder = output_folder(out)
    network = load_model(model, num_classes=classes, input_shape=sides, seed=model_seed)
    load_weights(network, weights)
    outputs = outputs_of(network, model, sides)
    _clear(folder)
    state = "untrained" if weights is None and not model.startswith("hf:") else "as given"
    command = _command(model, shape, batch, steps, lr, classes, weights, model_seed, seed, threads)
    parts = planned_parts(network, model, state, sides, batch, outputs, training, seed, command)
    architecture = architecture_of(network, model, sides)
    save_architectures([architecture], folder)
    records: list[Record] = []
    deadline = started + SECONDS - RESERVE
    with interruptible("Stopping; what is done is kept.") as stopped, Bar("check", as_json) as bar:
        for record in run_parts(parts, deadline, stopped, bar):
            save_record(record, folder)
            records.append(record)
    if not records:
        raise LeakgaugeError("Stopped before any part had ended; there is nothing to report.")
    write_html(records, folder / PAGE, architectures=[architecture])
    _tell(network, architecture, batch, outputs, records, folder, started, as_json)


def _command(
    model: str,
    shape: str,
    batch: int,
    steps: int,
    lr: float | None,
    classes: int | None,
    weights: str | None,
    model_seed: int,
    seed: int,
    threads: int,
) -> str:
    import shlex

    words = ["leakgauge", "check", model, "--input", shape]
    for option, value, default in (
        ("--batch", batch, 8),
        ("--steps", steps, 1),
        ("--lr", lr, None),
        ("--classes", classes, None),
        ("--weights", weights, None),
        ("--model-seed", model_seed, 0),
        ("--seed", seed, 0),
        ("--threads", threads, 1),
    ):
        if value != default:
            words += [option, str(value)]
    return shlex.join(words)


def _clear(folder: Path) -> None:
    """Removes the records of an earlier check, so that one page shows one run."""
    import shutil

    from leakgauge.audit.folder import RECORDS

    if (folder / PAGE).is_file():
        shutil.rmtree(folder / RECORDS, ignore_errors=True)


def _tell(
    network: Any,
    architecture: Architecture,
    batch: int,
    outputs: int,
    records: list[Record],
    folder: Path,
    started: float,
    as_json: bool,
) -> None:
    from dataclasses import asdict

    from leakgauge.chain.counting import counting_bound
    from leakgauge.cli.console import print_json, result_console, say
    from leakgauge.report.json_export import to_json
    from leakgauge.report.layers import deficit_sentence
    from leakgauge.report.proof import proof_seconds, proof_sentences
    from leakgauge.report.summary import summarise
    from leakgauge.report.terminal import architecture_table, records_table

    bounds = {size: counting_bound(network, architecture.shape, size) for size in dict.fromkeys((1, batch))}
    unsupported = [
        {"attack": record.attack, "batch_size": record.conditions.batch_size, "reason": record.cause}
        for record in records
        if record.outcome == "UNSUPPORTED"
    ]
    page = folder / PAGE
    if as_json:
        facts = {
            "model": architecture.model,
            "input": list(architecture.shape),
            "classes": outputs,
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
            "bounds": {str(size): asdict(bound) for size, bound in bounds.items()},
            "unsupported": unsupported,
            "page": str(page),
            "seconds": time.monotonic() - started,
        }
        print_json(facts | to_json(records, architectures=[architecture]))
        return
    if architecture.layers:
        result_console().print(architecture_table(architecture))
    for line in (architecture.verdict, deficit_sentence(architecture)):
        say(line)
    for size, bound in bounds.items():
        say(f"Batch of {size}: {bound.verdict}")
    result_console().print(records_table([record for record in records if record.outcome != "UNSUPPORTED"]))
    for entry in unsupported:
        say(f"{entry['attack']} on a batch of {entry['batch_size']} does not apply: {entry['reason']}")
    say(summarise(records).headline)
    for line in (*proof_sentences(records), *proof_seconds(records)):
        say(line)
    say(f"The page: {page.resolve()} ({time.monotonic() - started:.0f} s in all)")
