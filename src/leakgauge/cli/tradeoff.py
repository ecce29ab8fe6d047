"""`leakgauge tradeoff`: one defence after the other, what each costs in accuracy, and what still leaks."""

from __future__ import annotations

from leakgauge.cli.options import Json, Threads, use_threads
from leakgauge.cli.simulate import Data, Out, Plan, Redact, Settings, refuse_texts


def tradeoff_command(
    plan: Plan,
    out: Out,
    data: Data = None,
    settings: Settings = None,
    redact: Redact = False,
    threads: Threads = 1,
    as_json: Json = False,
) -> None:
    """Sweep defences over the plan's federation: accuracy, leakage and epsilon of each, in one figure and a page."""
    from pathlib import Path

    from leakgauge.audit.plan_file import read_plan
    from leakgauge.audit.tradeoff.run import run_tradeoff
    from leakgauge.cli.console import print_json, remark, result_console, say
    from leakgauge.cli.places import output_folder
    from leakgauge.cli.progress import Bar, interruptible
    from leakgauge.report.simulation.terminal import tradeoff_table
    from leakgauge.report.tradeoff.files import tradeoff_to_json, write_tradeoff
    from leakgauge.report.tradeoff.words import headline, trend_sentences

    use_threads(threads)
    chosen = read_plan(plan, settings or (), data)
    refuse_texts(chosen)
    folder = output_folder(out)
    with (
        interruptible("Stopping; what is done is kept, and the same command continues.") as stopped,
        Bar("tradeoff", as_json) as bar,
    ):
        result = run_tradeoff(chosen, folder, beside=Path(plan).parent, cancelled=stopped, progress=bar.show)
    write_tradeoff(result, folder, redact)
    if as_json:
        print_json(tradeoff_to_json(result, redact) | {"out": str(folder)})
        return
    remark(f"Pictures: {result.source or 'none was read'}.")
    if result.points:
        result_console().print(tradeoff_table(result))
    for line in (*trend_sentences(result), headline(result)):
        say(line)
    say(f"The page: {(folder / 'report.html').resolve()} ({result.seconds:.0f} s in all)")
    if redact:
        say(f"Page, figures and JSON are redacted; {folder / 'runs'} still holds private pictures.")
