"""`leakgauge pack`: a real system's tensors into an observation."""

from __future__ import annotations

from typing import Annotated

import typer

from leakgauge.cli.options import Classes, Json, ModelOption, ModelSeed, Weights, parse_shape

TEXTS = "The counting bound is for pictures; span-check says what the update of texts determines."


def pack_command(
    model: ModelOption,
    out: Annotated[str, typer.Option("--out", metavar="FILE", help="The observation, a safetensors file.", show_default=False)],
    before: Annotated[
        str | None, typer.Option(metavar="FILE", help="Weights that the client received.", show_default=False)
    ] = None,
    after: Annotated[
        str | None, typer.Option(metavar="FILE", help="Weights that the client sent back.", show_default=False)
    ] = None,
    gradient: Annotated[
        str | None, typer.Option(metavar="FILE", help="A gradient, instead of before and after.", show_default=False)
    ] = None,
    protocol: Annotated[str | None, typer.Option(metavar="P.toml", help="The client's protocol.", show_default=False)] = None,
    weights: Weights = None,
    shape: Annotated[str | None, typer.Option("--input", metavar="CxHxW", help="Shape of one input.", show_default=False)] = None,
    examples: Annotated[
        int | None, typer.Option("--examples", min=1, help="Examples in the client's batch.", show_default=False)
    ] = None,
    classes: Classes = None,
    model_seed: ModelSeed = 0,
    batch_norm: Annotated[bool, typer.Option("--batch-norm/--no-batch-norm", help="Keep buffers such as BatchNorm's.")] = True,
    as_json: Json = False,
) -> None:
    """Turn a real system's tensors (weights before and after, or a gradient) into an observation."""
    from leakgauge.chain.counting import counting_bound_of
    from leakgauge.cli.console import print_json, say
    from leakgauge.cli.networks import fitted_model
    from leakgauge.cli.places import output_file
    from leakgauge.core.pack import pack
    from leakgauge.core.protocol_file import Protocol, protocol_from_toml
    from leakgauge.core.spec import ImageSpec
    from leakgauge.core.state_files import read_state
    from leakgauge.core.text_spec import TextSpec
    from leakgauge.core.training import LocalTraining
    from leakgauge.errors import OptionError

    stated = protocol_from_toml(protocol) if protocol else Protocol(LocalTraining())
    spec = stated.spec
    if shape is not None:
        sides = parse_shape(shape)
        if isinstance(spec, TextSpec):
            raise OptionError(f"--input {shape} is the shape of a picture, and {protocol} describes texts; give one of them.")
        if spec is not None and spec.shape != sides:
            raise OptionError(f"--input {shape} contradicts the shape {list(spec.shape)} in {protocol}; give one of them.")
        spec = spec or ImageSpec(sides)
    count = examples or stated.num_examples
    if count is None:
        raise OptionError("The number of examples is not known; give --examples N, or num_examples in the protocol file.")
    source = gradient or after
    if source is None or (gradient is None) == (before is None and after is None):
        raise OptionError("Give either --before FILE and --after FILE, or --gradient FILE.")
    target = output_file(out)
    pixels = spec.shape if isinstance(spec, ImageSpec) else None
    network = fitted_model(model, read_state(source), pixels, classes=classes, seed=model_seed)
    seen = pack(
        network,
        before=before,
        after=after,
        gradient=gradient,
        weights=weights,
        training=stated.training,
        spec=spec,
        loss=stated.loss,
        num_examples=count,
        labels=stated.labels,
        withheld=stated.withheld,
        batch_norm=batch_norm,
        model_name=model,
    )
    seen.save(target)
    unknown = "Without the shape of an input the counting bound is not known."
    bound = counting_bound_of(seen).verdict if seen.pictures else TEXTS if isinstance(seen.spec, TextSpec) else unknown
    facts = {"observation": str(target), "kind": seen.kind, "num_examples": count, "tensors": len(seen.tensors), "bound": bound}
    if as_json:
        print_json(facts)
        return
    what = "gradient" if seen.kind == "gradient" else "weight change"
    say(f"Observation: {target} ({what} of {count} example(s), {len(seen.tensors)} tensors)")
    say(bound)
