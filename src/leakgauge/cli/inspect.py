"""`leakgauge inspect`: what a network's architecture gives away, by counting alone."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leakgauge.cli.options import Classes, Json, Model, ModelSeed, Threads, Weights, parse_shape, use_threads

if TYPE_CHECKING:
    from rich.table import Table

    from leakgauge.analysis.rank_profile import LayerRank, RankProfile
    from leakgauge.analysis.recommend import Recommendation
    from leakgauge.analysis.security import Security

SHOWN = 3  # recommendations in the terminal, the cheapest of each kind; JSON has all
REMARKS = ("none", "bias")


def inspect_command(
    model: Model,
    shape: Annotated[str, typer.Option("--input", metavar="CxHxW", help="Shape of one input, as 3x32x32.", show_default=False)],
    numerical: Annotated[
        bool,
        typer.Option("--numerical", help="Ranks of this network's own weights instead of counts, up to 6,000 unknowns; minutes."),
    ] = False,
    threshold: Annotated[
        float, typer.Option("--threshold", help="Share of the input that a recommended change leaves undetermined.")
    ] = 0.5,
    classes: Classes = None,
    weights: Weights = None,
    model_seed: ModelSeed = 0,
    threads: Threads = 1,
    as_json: Json = False,
) -> None:
    """Count, layer by layer, what one shared gradient determines; the security metric; what would close the leak."""
    started = time.monotonic()
    from leakgauge.analysis.rank_profile import profile_of
    from leakgauge.analysis.recommend import recommendations_of
    from leakgauge.analysis.security import security_of
    from leakgauge.chain.trace import trace
    from leakgauge.cli.networks import load_weights
    from leakgauge.errors import ModelError, OptionError, UnsupportedError
    from leakgauge.models import load_model

    use_threads(threads)
    sides = parse_shape(shape)
    if not 0 < threshold <= 1:
        raise OptionError(f"--threshold is {threshold}; expected a share above 0 and at most 1.")
    network = load_model(model, num_classes=classes, input_shape=sides, seed=model_seed)
    load_weights(network, weights)
    try:
        chain = trace(network, sides)
    except ModelError as error:
        raise ModelError(f"The model {model!r}: {str(error).rstrip('.')}.") from error
    profile = profile_of(network, chain, numerical=numerical)
    advice = recommendations_of(network, chain, threshold)
    try:
        metric = security_of(profile)
    except UnsupportedError:
        metric = None
    parameters = sum(parameter.numel() for parameter in network.parameters())
    if as_json:
        _print_json(model, sides, parameters, profile, metric, advice, time.monotonic() - started)
    else:
        _print_page(model, parameters, profile, metric, advice)


def _print_json(
    model: str,
    sides: tuple[int, int, int],
    parameters: int,
    profile: RankProfile,
    metric: Security | None,
    advice: tuple[Recommendation, ...],
    seconds: float,
) -> None:
    from dataclasses import asdict

    from leakgauge.cli.console import print_json

    facts: dict[str, Any] = {"model": model, "input": list(sides), "parameters": parameters}
    facts |= asdict(profile)
    facts["security"] = None if metric is None else asdict(metric) | {"deficit": metric.deficit}
    facts["recommendations"] = [asdict(one) for one in advice]
    print_json(facts | {"seconds": seconds})


def _print_page(
    model: str, parameters: int, profile: RankProfile, metric: Security | None, advice: tuple[Recommendation, ...]
) -> None:
    from leakgauge.cli.console import result_console, say

    result_console().print(_table(f"{model}: {parameters:,} parameters, {profile.inputs:,} input values", profile.layers))
    if metric is not None:
        say(
            f"Security metric (Chen & Campbell 2022): deficit {metric.deficit:,.0f} (published sign {metric.total:,.0f}). "
            "It predicts layer-by-layer attacks only, not leakage."
        )
    for one in _chosen(advice):
        say(one.sentence if one.kind in REMARKS else f"Recommendation: {one.sentence}")
    if any(one.kind not in REMARKS for one in advice):
        say("What stays open can still be guessed by a prior for pictures: measure it with an attack, such as hybrid.")
    say(profile.verdict)


def _chosen(advice: tuple[Recommendation, ...]) -> list[Recommendation]:
    kinds: dict[str, Recommendation] = {}
    for one in advice:
        if one.sufficient or one.kind in REMARKS:
            kinds.setdefault(one.kind, one)
    return list(kinds.values())[:SHOWN]


def _table(title: str, layers: tuple[LayerRank, ...]) -> Table:
    from rich.text import Text

    from leakgauge.report.terminal import framed

    caption = "one example, one gradient; equations: known outputs and shared weights; missing: unknowns that they leave open"
    table = framed(title, caption)
    table.add_column("layer", overflow="fold", min_width=8)
    table.add_column("kind", overflow="fold")
    for heading in ("unknowns", "equations", "rank", "missing"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("what it means", overflow="fold", min_width=24)
    for row in layers:
        counted = row.rank is not None
        missing = row.rank_deficiency or 0
        table.add_row(
            Text(row.name),
            Text(row.type, style="dim"),
            f"{row.unknowns:,}",
            f"{row.weight_equations + row.gradient_equations:,}" if counted else "-",
            f"{row.rank:,}" if counted else "-",
            Text(f"{missing:,}", style="yellow" if missing else "") if counted else Text("-"),
            Text(_meaning(row)),
        )
    return table


def _meaning(row: LayerRank) -> str:
    """A few words; the whole sentence is in the JSON."""
    missing = row.rank_deficiency
    if row.rank is None or missing is None:
        return f"not counted: {row.reason}"
    if row.type == "Linear":
        return "solved by its own gradient" if missing == 0 else "no gradient at all"
    if missing == 0:
        return "enough equations at best" if row.limited else "enough equations"
    if row.side:
        return "a side branch; others see its input too"
    if row.dead == missing:
        return "borders that reach no output"
    return "short by itself; wider layers before it can help" if row.virtual >= missing else "short of equations"
