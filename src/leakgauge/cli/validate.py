"""`leakgauge validate`: does an observation follow from the true batch and the declared protocol?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from leakgauge.cli.options import Classes, Json, ModelOption, ModelSeed, Weights, use_threads

if TYPE_CHECKING:
    from leakgauge.core.observation import Observation
    from leakgauge.federated.validation.validate import Validation

STRUCTURE = (
    "Structure only: the file is whole, its tensors fit the model in name and shape and are finite, and its weights are those "
    "it was computed at. Without --truth FILE nothing could be recomputed, so whether the update is right is not known."
)


def validate_command(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The observation.", show_default=False)],
    model: ModelOption,
    weights: Weights = None,
    truth: Annotated[str | None, typer.Option(metavar="FILE", help="The private batch.", show_default=False)] = None,
    classes: Classes = None,
    model_seed: ModelSeed = 0,
    as_json: Json = False,
) -> None:
    """Recompute the update, and print the residual per tensor and the likely cause of a mismatch."""
    from leakgauge.cli.console import print_json, say
    from leakgauge.cli.networks import load_weights, observation_and_model
    from leakgauge.federated.validation.validate import validate
    from leakgauge.truth import Batch

    use_threads()
    seen, network = observation_and_model(file, model, weights=weights, classes=classes, seed=model_seed)
    if truth is None:
        if as_json:
            print_json(
                {"observation": file, "structure": True, "agrees": None, "checked": STRUCTURE, "tensors": list(seen.tensors)}
            )
        else:
            say(STRUCTURE)
        return
    batch = Batch.load(truth)
    load_weights(network, weights)
    result = validate(seen, seen.model if weights is None else network, batch)
    if as_json:
        print_json({"observation": file, "structure": True} | _facts(result))
    else:
        _print(seen, result)


def _facts(result: Validation) -> dict[str, object]:
    from dataclasses import asdict

    return asdict(result)


def _print(seen: Observation, result: Validation) -> None:
    from rich.table import Table

    from leakgauge.cli.console import result_console, say

    table = Table("tensor", "shape", "residual", title="||recomputed - observed|| / ||observed||", title_justify="left")
    table.columns[2].justify = "right"
    for name, value in result.per_tensor.items():
        table.add_row(name, "x".join(map(str, seen.tensors[name].shape)), f"{value:.1e}")
    result_console().print(table)
    say(f"Residual over all tensors: {result.residual:.1e}; rounding may leave {result.tolerance:.1e}.")
    if result.agrees:
        say("The update agrees with the batch and the protocol.")
    else:
        say(f"The update does not agree with the batch and the protocol. Likely cause: {result.cause}")
    if result.note:
        say(result.note)
