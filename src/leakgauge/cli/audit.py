"""`leakgauge audit`: a grid of cells, played on processes or a cluster, into a store that survives anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from leakgauge.errors import OptionError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leakgauge.audit.audit import Audit, AuditReport
    from leakgauge.cli.rules import Rule

AGAIN = ("failed", "timeout", "unsupported", "underdetermined", "ok")

Plan = Annotated[
    str | None,
    typer.Argument(metavar="PLAN", help="A TOML file, or plan:NAME for one that comes with the package.", show_default=False),
]
StoreFolder = Annotated[
    str | None,
    typer.Option("--store", metavar="DIR", help="Where results are kept; the same command continues there.", show_default=False),
]
Workers = Annotated[
    int | None, typer.Option("--workers", min=1, help="Worker processes; as many as cores by default.", show_default=False)
]
Ray = Annotated[
    str | None,
    typer.Option("--ray", metavar="ADDRESS", help="A Ray cluster, or local for one on this machine.", show_default=False),
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads", min=1, help="CPU threads per worker; other numbers may change the last digits.", show_default=False
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=VALUE", help="Change one key of the plan; may be repeated.", show_default=False),
]
Again = Annotated[
    list[str] | None,
    typer.Option("--again", metavar="STATUS", help="Play cells of this status once more; may be repeated.", show_default=False),
]
FailIf = Annotated[
    list[str] | None,
    typer.Option(
        "--fail-if", metavar="RULE", help="Exit code 1 if it holds, as 'identified > 0'; may be repeated.", show_default=False
    ),
]


def audit_command(
    plan: Plan = None,
    store: StoreFolder = None,
    workers: Workers = None,
    ray: Ray = None,
    threads: Threads = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List cells, work and expected time, and play nothing.")] = False,
    settings: Settings = None,
    again: Again = None,
    html: Annotated[str | None, typer.Option(metavar="FILE", help="The page.", show_default=False)] = None,
    json_file: Annotated[str | None, typer.Option("--json", metavar="FILE", help="The same as JSON.", show_default=False)] = None,
    redact: Annotated[
        bool, typer.Option("--redact", help="Leave originals and what comes near them out of page and JSON.")
    ] = False,
    fail_if: FailIf = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of a plan, for editors.")] = False,
) -> None:
    """Play a plan's grid of attacks, and say what came of it. Stopped or killed, the same command continues."""
    if schema:
        from leakgauge.audit.plan.schema import schema_text
        from leakgauge.cli.console import say

        say(schema_text().rstrip("\n"))
        return
    if plan is None:
        raise OptionError("The plan is missing; expected a TOML file, or the name of a plan that comes with the package.")
    if ray is not None and not ray.strip():
        raise OptionError("--ray names no address; expected local, auto or HOST:PORT.")
    for status in again or ():
        if status not in AGAIN:
            raise OptionError(f"--again {status!r} is no status.{did_you_mean(status, AGAIN)}")
    from leakgauge.audit.audit import Audit
    from leakgauge.cli.options import use_threads
    from leakgauge.cli.places import output_file
    from leakgauge.cli.rules import parse_rule

    use_threads()
    rules = [parse_rule(text) for text in fail_if or ()]
    audit = Audit.from_toml(plan, settings or ())
    if dry_run:
        _list(audit, workers)
        return
    if store is None:
        raise OptionError("--store is missing; expected a folder for the results, which need not exist yet.")
    for file in (html, json_file):
        if file is not None:
            output_file(file)
    _check_device(device)
    report = _play(audit, store, workers, ray, threads, device, again or ())
    _write(report, html, json_file, redact)
    _tell(report)
    _judge(report, rules)


def _play(
    audit: Audit, store: str, workers: int | None, ray: str | None, threads: int | None, device: str, again: Sequence[str]
) -> AuditReport:
    """The run; Ctrl-C ends it with what is done."""
    from leakgauge.audit.store.store import Store
    from leakgauge.cli.console import remark
    from leakgauge.cli.progress import Bar, interruptible
    from leakgauge.errors import DataError

    with interruptible("Stopping; the cells that have ended are kept.") as stopped, Bar("audit") as bar:
        try:
            report = audit.run(store, workers, ray, threads=threads, device=device, again=again, stopped=stopped, tell=bar.show)
        except DataError:
            if not stopped():
                raise
            with Store.open(store, write=False) as kept:
                ended = sum(count for status, count in kept.counts().items() if status != "pending")
        else:
            ended = len(report.results)
    if stopped() and ended < len(audit.cells):
        remark(f"{ended} of {len(audit.cells)} cells have ended and are kept in {store}; the same command continues.")
        raise KeyboardInterrupt
    return report


def _list(audit: Audit, workers: int | None) -> None:
    """What would be played, what it costs, and how long it may take."""
    from rich.table import Table

    from leakgauge.audit.plan.expected import expected_work, in_words
    from leakgauge.audit.run.local import cores
    from leakgauge.cli.console import duration, result_console, say
    from leakgauge.cli.progress import Bar

    with Bar("timing the attacks") as bar:
        found = expected_work(audit.plan, audit.cells, bar.show)
    differing = [
        name
        for name in ("data", "model", "state", "protocol", "threat", "defence", "attack", "seed")
        if len({str(getattr(cell, name)) for cell in audit.cells}) > 1 or name == "attack"
    ]
    table = Table("", *differing, "work", "seconds at most")
    for number, one in enumerate(found, start=1):
        axes = (_in_words(getattr(one.cell, name)) for name in differing)
        table.add_row(str(number), *axes, one.work, "not timed" if one.seconds is None else duration(one.seconds))
    result_console().print(table)
    say(in_words(found, workers or cores()))


def _in_words(value: object) -> str:
    """An axis's entry: text as it is, a table as 'k=v, k=v'."""
    if not isinstance(value, tuple):
        return str(value)
    return ", ".join(f"{name}={entry}" for name, entry in value) or "default"


def _check_device(device: str) -> None:
    from leakgauge.attacks.base import resolve_device

    resolve_device(device)


def _write(report: AuditReport, html: str | None, json_file: str | None, redact: bool) -> None:
    from leakgauge.cli.console import say

    if html is not None:
        report.to_html(html, redact)
        say(f"Page: {html}")
    if json_file is not None:
        report.to_json(json_file, redact)
        say(f"JSON: {json_file}")


def _tell(report: AuditReport) -> None:
    """The verdict, what each cell came to, the plan's expectations, and where everything is."""
    from leakgauge.cli.console import result_console, say
    from leakgauge.report.grid.findings import Findings
    from leakgauge.report.grid.terminal import print_findings

    findings = Findings(report.results, report.verdict, report.plan, report.plan_hash, report.planned, report.ended)
    print_findings(findings, result_console())
    for entry in report.expected:
        say(entry.sentence)
    say(f"The store: {report.folder.resolve()} (plan {report.plan_hash})")


def _judge(report: AuditReport, rules: Sequence[Rule]) -> None:
    """Names what breaks a rule or an expectation, and leaves with exit code 1 where anything does."""
    from leakgauge.cli.console import say
    from leakgauge.cli.rules import audit_breaches
    from leakgauge.report.grid.findings import Findings

    findings = Findings(report.results, report.verdict, report.plan, report.plan_hash, report.planned, report.ended)
    broken = [breach for rule in rules for breach in audit_breaches(findings, rule)]
    for breach in broken:
        say(f"Rule broken: {breach}")
    if rules and not broken:
        say(f"No rule broken: {'; '.join(map(str, rules))}")
    if broken or report.failed:
        raise typer.Exit(1)
