"""`leakgauge simulate`: federated rounds, attacked round by round and client by client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from leakgauge.cli.options import Json, Threads, use_threads

if TYPE_CHECKING:
    from pathlib import Path

    from leakgauge.audit.simulation.plan import SimulationPlan
    from leakgauge.audit.simulation.record import SimulationResult

Plan = Annotated[str, typer.Argument(metavar="PLAN.toml", help="The plan; see docs/simulate.md.", show_default=False)]
Out = Annotated[
    str,
    typer.Option("--out", metavar="DIR", help="Where records, figures and page go; a second run continues.", show_default=False),
]
Data = Annotated[
    str | None, typer.Option("--data", metavar="SPEC", help="Pictures in place of the plan's data.source.", show_default=False)
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=VALUE", help="Change one key of the plan; may be repeated.", show_default=False),
]
Redact = Annotated[
    bool, typer.Option("--redact", help="Leave originals, names and what comes near an original out of page, figures and JSON.")
]


def simulate_command(
    plan: Plan,
    out: Out,
    data: Data = None,
    settings: Settings = None,
    redact: Redact = False,
    threads: Threads = 1,
    as_json: Json = False,
) -> None:
    """Play federated learning round by round, attack what leaves the clients, and write figures and a page."""
    from pathlib import Path

    from leakgauge.audit.plan_file import read_plan
    from leakgauge.audit.simulation.run import run_simulation
    from leakgauge.cli.console import print_json
    from leakgauge.cli.places import output_folder
    from leakgauge.cli.progress import Bar, interruptible
    from leakgauge.report.simulation.files import simulation_to_json, write_simulation

    use_threads(threads)
    chosen = read_plan(plan, settings or (), data)
    refuse_texts(chosen)
    folder = output_folder(out)
    with (
        interruptible("Stopping; what is done is kept, and the same command continues.") as stopped,
        Bar("simulate", as_json) as bar,
    ):
        result = run_simulation(chosen, folder, beside=Path(plan).parent, cancelled=stopped, progress=bar.show)
    write_simulation(result, folder, redact)
    if as_json:
        print_json(simulation_to_json(result, redact) | {"out": str(folder)})
    else:
        _tell(result, folder, redact)


def refuse_texts(plan: SimulationPlan) -> None:
    """Raises OptionError for a plan on texts: rounds, evaluation and page are of pictures."""
    from leakgauge.errors import OptionError

    source = plan.data.source.strip()
    if source.startswith("text:") or source.partition("?")[0] == "demo:texts":
        raise OptionError(
            f"simulate and tradeoff play rounds on pictures, and {source!r} holds texts; use 'capture' and 'attack' for texts, "
            "or record a real training with lg.record."
        )


def _tell(result: SimulationResult, folder: Path, redact: bool) -> None:
    from leakgauge.cli.console import remark, result_console, say
    from leakgauge.report.simulation.terminal import leaks_table
    from leakgauge.report.simulation.words import answers, headline

    remark(f"Pictures: {result.source}.")
    if result.leaks:
        result_console().print(leaks_table(result))
    for line in answers(result):
        say(line)
    say(headline(result))
    if not result.complete:
        say("Stopped before its end; the same command continues.")
    say(f"The page: {(folder / 'report.html').resolve()} ({result.seconds:.0f} s in all)")
    if redact:
        say(f"Page, figures and JSON are redacted; {folder / 'records'} and {folder / 'state'} still hold private pictures.")
