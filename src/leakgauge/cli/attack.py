"""`leakgauge attack`: any attack on a saved observation."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leakgauge.cli.options import Classes, Json, ModelOption, ModelSeed, Seed, Threads, Weights, use_threads

if TYPE_CHECKING:
    from pathlib import Path

    from leakgauge.attacks.base import Progress
    from leakgauge.audit.record import Record
    from leakgauge.core.observation import Observation
    from leakgauge.core.reconstruction import Reconstruction
    from leakgauge.truth import Batch

RECONSTRUCTION = "reconstruction.safetensors"


def attack_command(
    file: Annotated[
        str, typer.Argument(metavar="FILE|DIR", help="The observation, or a folder of recordings.", show_default=False)
    ],
    model: ModelOption,
    attack: Annotated[
        str,
        typer.Option(
            "--with",
            metavar="NAME[:k=v,..]",
            help="The attack and its options; see `leakgauge list attacks`.",
            show_default=False,
        ),
    ],
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="Where record and reconstruction go.", show_default=False)],
    weights: Weights = None,
    truth: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|DIR", help="The private batch (or batches), to score the result; no attack sees it.", show_default=False
        ),
    ] = None,
    seed: Seed = 0,
    budget: Annotated[str, typer.Option(help="fast, paper, max or a number of gradient evaluations.")] = "fast",
    time_limit: Annotated[
        float | None, typer.Option(help="Seconds, after which the best so far is kept.", show_default=False)
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    threads: Threads = 1,
    classes: Classes = None,
    model_seed: ModelSeed = 0,
    model_state: Annotated[
        str | None, typer.Option(help="State of the model in words, for the record.", show_default=False)
    ] = None,
    title: Annotated[str, typer.Option(help="Title of the record.")] = "",
    tokeniser: Annotated[
        str | None,
        typer.Option(
            "--tokeniser",
            "--tokenizer",
            metavar="FOLDER|demo",
            help="Of texts; by default the one in the model's folder, or the demo's where it fits.",
            show_default=False,
        ),
    ] = None,
    measure: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[:k=v,..]", help="One more measure of pictures; may be repeated.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Attack a saved observation, or every one in a folder of recordings; prints what came of it."""
    from pathlib import Path

    from leakgauge.attacks.base import Limits, resolve_device
    from leakgauge.audit.case import attack_call
    from leakgauge.audit.folder import save_record
    from leakgauge.audit.making import bound_of, record_of
    from leakgauge.audit.measured import measures_of
    from leakgauge.audit.prior import with_picture, without_picture
    from leakgauge.audit.text_case import check_truth, tokeniser_for, with_public
    from leakgauge.audit.timing import expected_seconds
    from leakgauge.cli.networks import observation_and_model, state_in_words
    from leakgauge.cli.places import output_folder
    from leakgauge.registry import make
    from leakgauge.truth import Batch

    use_threads(threads)
    name, options = attack_call(attack)
    chosen = make("attacks", name, **without_picture(options))
    Limits(budget, time_limit)
    measures_of(measure or ())
    where = resolve_device(device)
    folder = output_folder(out)
    if Path(file).is_dir():
        from leakgauge.cli.attack_folder import attack_recordings

        attack_recordings(
            file, model, attack, folder,
            play=lambda seen, options: _run(
                seen, name, options, seed, budget, time_limit, where, planned=_planned(chosen, budget), quiet=as_json
            ),
            truth=truth, weights=weights, classes=classes, model_seed=model_seed, model_state=model_state,
            budget=budget, seed=seed, tokeniser=tokeniser, as_json=as_json,
        )  # fmt: skip
        return
    seen, fresh = observation_and_model(file, model, weights=weights, classes=classes, seed=model_seed)
    found = tokeniser_for(seen.spec, model, tokeniser)
    options = with_public(name, with_picture(options, seen.pictures), seen.spec, found)
    batch = Batch.load(truth) if truth else None
    _check_truth(seen, batch, truth)
    check_truth(seen.spec, batch, truth)
    bound = bound_of(seen)
    expected = expected_seconds(seen, name, options, chosen, budget, where)
    _before(bound.verdict if bound else "", expected, time_limit, as_json)
    guess = _run(seen, name, options, seed, budget, time_limit, where, planned=_planned(chosen, budget), quiet=as_json)
    record = record_of(
        seen,
        guess,
        batch,
        model=model,
        model_state=state_in_words(model, fresh, seen.model, model_state),
        budget=budget,
        seeds={"attack": seed},
        title=title or f"{attack} on {file.rpartition('/')[2]}",
        reproduce=_again(
            file, model, attack, weights, truth, seed, budget, time_limit, classes, model_seed, threads, tokeniser, out
        ),
        device=where.partition(":")[0],
        identity=(file.rpartition("/")[2], attack),
        tokeniser=found,
        measures=measure or (),
    )
    save_reconstruction(guess, folder / RECONSTRUCTION)
    save_record(record, folder)
    _after(record, folder, expected, as_json)


def _run(
    seen: Observation,
    name: str,
    options: dict[str, Any],
    seed: int,
    budget: str | int,
    time_limit: float | None,
    device: str,
    *,
    planned: int | None,
    quiet: bool,
) -> Reconstruction:
    """The attack under a progress line; Ctrl-C ends it with the best so far."""
    from leakgauge.attacks.run import attack
    from leakgauge.cli.progress import Bar, interruptible

    with interruptible("Stopping; the best so far is kept.") as cancelled, Bar(name, quiet) as bar:

        def tell(progress: Progress) -> None:
            total = max(planned or progress.planned, progress.evaluations, 1)
            share = progress.evaluations / total
            if time_limit is not None:
                share = max(share, progress.seconds / time_limit)
            bar.show(share, f"objective {progress.objective:.2e}")

        return attack(
            seen,
            name,
            seed=seed,
            budget=budget,
            time_limit=time_limit,
            device=device,
            cancelled=cancelled,
            progress=tell,
            **options,
        )


def _planned(chosen: object, budget: str | int) -> int | None:
    from leakgauge.audit.timing import planned_evaluations

    return planned_evaluations(chosen, budget)


def _check_truth(seen: Observation, batch: Batch | None, path: str | None) -> None:
    from leakgauge.errors import ShapeError

    if (
        batch is not None
        and seen.pictures is not None
        and batch.pictures is not None
        and batch.pictures.shape != seen.pictures.shape
    ):
        raise ShapeError(
            f"The truth in {path} has inputs of shape {batch.pictures.shape}; the observation has {seen.pictures.shape}. "
            "Is it the right file?"
        )


def save_reconstruction(guess: Reconstruction, path: Path) -> None:
    """Inputs in model space, labels, certificates and confidence as one safetensors file; the same bytes for the same result."""
    import json

    from safetensors.torch import save_file

    tensors = {"inputs": guess.inputs, "certified": guess.certified, "confidence": guess.confidence}
    if guess.labels is not None:
        tensors["labels"] = guess.labels
    facts = {"format": 1, "attack": guess.attack, "outcome": guess.outcome.name, "explains": guess.explains}
    ready = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    save_file(ready, str(path), metadata={"leakgauge-reconstruction": json.dumps(facts)})


def _before(bound: str, expected: float | None, time_limit: float | None, as_json: bool) -> None:
    from leakgauge.cli.console import duration, remark, say

    tell = remark if as_json else say
    if bound:
        tell(bound)
    if expected is None:
        tell("Expected time: not known for this attack.")
        return
    limited = time_limit is not None and time_limit < expected
    seconds = time_limit if time_limit is not None and limited else expected
    tell(
        f"Expected time: {duration(seconds)}"
        + (", by the time limit." if limited else " at most; less where it converges early.")
    )


def _after(record: Record, folder: Path, expected: float | None, as_json: bool) -> None:
    from leakgauge.audit.folder import record_to_json
    from leakgauge.cli.console import print_json, result_console, say

    places = {"out": str(folder), "reconstruction": str(folder / RECONSTRUCTION)}
    if as_json:
        print_json(record_to_json(record) | places | {"expected_seconds": expected, "time": time.strftime("%Y-%m-%dT%H:%M:%S")})
        return
    from leakgauge.report.layers import layers_sentence
    from leakgauge.report.spans import count_spans, spans_sentence
    from leakgauge.report.terminal import layers_table, record_tables
    from leakgauge.report.words import certificate

    for table in record_tables([record]):
        result_console().print(table)
    if record.layers:
        say(layers_sentence(record))
        result_console().print(layers_table(record))
    say(f"{record.outcome}: {record.outcome_text}")
    if record.cause:
        say(record.cause)
    say(
        f"Explains the update: {'yes' if record.explains else 'no'}; certified: {record.certified}; "
        f"{record.evaluations} evaluations in {record.seconds:.1f} s."
    )
    if record.certified:
        say(f"Certified: {certificate(record)}.")
    if personal := spans_sentence(count_spans([record])):
        say(personal)
    if not record.scores:
        say("No truth was given (--truth FILE), so nobody can say here how near this is to the original.")
    say(f"Record and reconstruction: {folder}")
    say(f"For a page: leakgauge report {folder} --html {folder / 'report.html'}")


def _again(
    file: str,
    model: str,
    attack: str,
    weights: str | None,
    truth: str | None,
    seed: int,
    budget: str,
    time_limit: float | None,
    classes: int | None,
    model_seed: int,
    threads: int,
    tokeniser: str | None,
    out: str,
) -> str:
    import shlex

    words = ["leakgauge", "attack", file, "--model", model, "--with", attack]
    for option, value, default in (
        ("--weights", weights, None),
        ("--classes", classes, None),
        ("--model-seed", model_seed, 0),
        ("--seed", seed, 0),
        ("--budget", budget, "fast"),
        ("--time-limit", time_limit, None),
        ("--threads", threads, 1),
        ("--tokeniser", tokeniser, None),
        ("--truth", truth, None),
        ("--out", out, None),
    ):
        if value != default:
            words += [option, str(value)]
    return shlex.join(words)
