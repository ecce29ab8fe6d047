"""`leakgauge demo`: the main job, on pictures that are on this machine."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING, Annotated

import typer

from leakgauge.cli.options import Seed

if TYPE_CHECKING:
    from pathlib import Path

PAGE = "report.html"


def demo_command(
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="Where records and page go.")] = "leakgauge-demo",
    quick: Annotated[bool, typer.Option("--quick", help="Smaller pictures, fewer cases; about a quarter of the time.")] = False,
    seed: Seed = 0,
) -> None:
    """Rebuild real pictures from what clients share, with several attacks and a defence, into one page."""
    started = time.monotonic()
    from leakgauge.audit.architecture import architecture_of, save_architectures
    from leakgauge.audit.folder import load_records
    from leakgauge.cli.console import remark, result_console, say
    from leakgauge.cli.demo_cases import COUNTED, COUNTED_QUICK, planned_cases
    from leakgauge.cli.places import output_folder
    from leakgauge.cli.progress import Bar, interruptible
    from leakgauge.cli.workers import play_all
    from leakgauge.errors import LeakgaugeError
    from leakgauge.models import load_model
    from leakgauge.report.html import write_html
    from leakgauge.report.proof import proof_seconds, proof_sentences
    from leakgauge.report.terminal import architecture_table, record_tables

    folder = output_folder(out)
    _clear(folder)
    cases = planned_cases(quick, seed)
    named = COUNTED_QUICK if quick else COUNTED
    counted = [architecture_of(load_model(name, input_shape=shape, seed=seed), name, shape) for name, shape in named]
    save_architectures(counted, folder)
    remark(f"{len(cases)} cases on bundled data; records and page go to {folder}.")
    kept = 0
    problem: LeakgaugeError | None = None
    with interruptible("Stopping; what is done is kept.") as stopped, Bar("demo", False) as bar:
        try:
            for done in play_all(cases, folder, stopped, bar.show):
                kept += bool(done.key)
                if done.problem:
                    remark(done.problem)
        except LeakgaugeError as error:
            problem = error
    if not kept:
        raise problem or LeakgaugeError("Stopped before any case had ended; there is nothing to report.")
    records = load_records(folder)
    page = folder / PAGE
    write_html(records, page, architectures=counted)
    for table in record_tables(records):
        result_console().print(table)
    result_console().print(architecture_table(counted[0]))
    for line in (counted[0].verdict, *proof_sentences(records), *proof_seconds(records)):
        say(line)
    if kept < len(cases):
        say(f"{kept} of {len(cases)} cases ended; the page holds those.")
    say(f"The page: {page.resolve()} ({time.monotonic() - started:.0f} s in all)")
    if problem is not None:
        raise problem


def _clear(folder: Path) -> None:
    """Removes the records of an earlier demo, so that one page shows one run."""
    from leakgauge.audit.folder import RECORDS

    if (folder / PAGE).is_file():
        shutil.rmtree(folder / RECORDS, ignore_errors=True)
