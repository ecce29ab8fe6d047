"""`leakgauge report`: what is in a folder into a page, files for other programs, and a verdict for a build."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from leakgauge.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from leakgauge.cli.rules import Breach, Rule
    from leakgauge.report.exports.lines import Line
    from leakgauge.report.spans import Patterns


def report_command(
    folder: Annotated[
        str, typer.Argument(metavar="DIR", help="A folder that attack, demo, check or audit wrote.", show_default=False)
    ],
    html: Annotated[str | None, typer.Option(metavar="FILE", help="The page.", show_default=False)] = None,
    json_file: Annotated[str | None, typer.Option("--json", metavar="FILE", help="The same as JSON.", show_default=False)] = None,
    redact: Annotated[bool, typer.Option("--redact", help="Leave out originals and what comes near them.")] = False,
    fail_if: Annotated[
        list[str] | None,
        typer.Option(
            "--fail-if",
            metavar="RULE",
            help="Exit code 1 if it holds for any attack, as 'ssim > 0.5' or 'identified > 0'; may be repeated.",
            show_default=False,
        ),
    ] = None,
    csv: Annotated[str | None, typer.Option(metavar="FILE", help="One line per attack and example.", show_default=False)] = None,
    parquet: Annotated[str | None, typer.Option(metavar="FILE", help="The same as Parquet.", show_default=False)] = None,
    latex: Annotated[str | None, typer.Option(metavar="FILE", help="An audit's table of medians.", show_default=False)] = None,
    junit: Annotated[str | None, typer.Option(metavar="FILE", help="An audit as test cases.", show_default=False)] = None,
    annex: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="An audit's technical facts for a data-protection impact assessment, as HTML, or Markdown for FILE.md.",
            show_default=False,
        ),
    ] = None,
    reporters: Annotated[
        list[str] | None,
        typer.Option(
            "--with", metavar="NAME=FILE", help="What a plug-in's reporter writes; may be repeated.", show_default=False
        ),
    ] = None,
    patterns: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="More patterns of identifying spans in texts, one NAME = REGULAR EXPRESSION per line.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write the page (and other files) for what is in a folder; with --fail-if, judge it."""
    from leakgauge.cli.places import output_file
    from leakgauge.cli.rules import parse_rule
    from leakgauge.cli.run_folder import is_run

    rules = [parse_rule(text) for text in fail_if or ()]
    files = {"html": html, "json": json_file, "csv": csv, "parquet": parquet, "latex": latex, "junit": junit, "annex": annex}
    others = [_reporter(text) for text in reporters or ()]
    for file in (*files.values(), *(file for _, file in others)):
        if file is not None:
            output_file(file)
    _write_others(folder, others, redact)
    if is_run(folder):
        if patterns is not None:
            raise OptionError("--patterns goes with folders of records; the page over an audit counts no spans.")
        _report_audit(folder, files, redact, rules, quiet=bool(others))
        return
    for name in ("latex", "junit", "annex"):
        if files[name] is not None:
            raise OptionError(
                f"--{name} is made from an audit, and {folder!r} is none; expected a folder that `leakgauge audit` wrote."
            )
    _report_records(folder, files, redact, rules, patterns, quiet=bool(others))


def _reporter(text: str) -> tuple[str, str]:
    """'NAME=FILE' into both.

    Raises:
        OptionError: if it is not that, or no reporter of that name is installed.
    """
    from leakgauge.registry import find

    name, sign, file = text.partition("=")
    if not sign or not file.strip():
        raise OptionError(f"--with {text!r} names no file; expected NAME=FILE, such as html=page.html.")
    find("reporters", name.strip())
    return name.strip(), file.strip()


def _write_others(folder: str, others: Sequence[tuple[str, str]], redact: bool) -> None:
    """What reporters by name write: of records, or of an audit where the reporter is one for audits."""
    from leakgauge.audit.folder import load_records
    from leakgauge.cli.console import say
    from leakgauge.cli.run_folder import is_run, load_findings
    from leakgauge.registry import make
    from leakgauge.report.reporters import AUDITS

    if not others:
        return
    audit = load_findings(folder) if is_run(folder) else None
    kept = [result.record for result in audit.results if result.record is not None] if audit else load_records(folder)
    for name, file in others:
        if name in AUDITS and audit is None:
            raise OptionError(f"--with {name} goes with an audit, and {folder!r} is none.")
        write = make("reporters", name, redact=redact)
        write(audit if name in AUDITS else kept, file)
        say(f"{name}: {file}")


def _report_records(
    folder: str, files: dict[str, str | None], redact: bool, rules: Sequence[Rule], patterns: str | None, *, quiet: bool
) -> None:
    from leakgauge.audit.architecture import load_architectures
    from leakgauge.audit.folder import load_records
    from leakgauge.cli.console import result_console, say
    from leakgauge.cli.rules import breaches
    from leakgauge.report.spans import BUILT_IN, read_patterns

    wanted: Patterns = BUILT_IN if patterns is None else read_patterns(patterns)
    records, counted = load_records(folder), load_architectures(folder)
    if files["html"] is not None:
        from leakgauge.report.html import write_html

        write_html(records, files["html"], redact, architectures=counted, patterns=wanted)
        say(f"Page: {files['html']}")
    if files["json"] is not None:
        from leakgauge.report.json_export import write_json

        write_json(records, files["json"], redact, counted, wanted)
        say(f"JSON: {files['json']}")
    if files["csv"] or files["parquet"]:
        from leakgauge.report.exports.lines import lines_of_records
        from leakgauge.report.redaction import scrub_text

        _write_tables(lines_of_records(scrub_text(records) if redact else records), files)
    if not any(files.values()) and not quiet:
        from leakgauge.report.terminal import print_report

        print_report(records, result_console(), wanted)
    _judge(rules, lambda rule: breaches(records, rule))


def _report_audit(folder: str, files: dict[str, str | None], redact: bool, rules: Sequence[Rule], *, quiet: bool) -> None:
    from leakgauge.cli.console import result_console, say
    from leakgauge.cli.rules import audit_breaches
    from leakgauge.cli.run_folder import load_findings
    from leakgauge.report.grid.export import write_page_json
    from leakgauge.report.grid.html import render_grid_page, today, write_page_annex
    from leakgauge.report.grid.page import build_grid_page

    seen = any(files[name] for name in ("html", "json", "annex"))
    findings = load_findings(folder, pictures=seen or redact)
    if seen:
        from leakgauge.report.files import write_text

        page = build_grid_page(findings, redact=redact, date=today())
        if files["html"]:
            write_text(files["html"], render_grid_page(page, date=today()))
            say(f"Page: {files['html']}")
        if files["json"]:
            write_page_json(page, files["json"])
            say(f"JSON: {files['json']}")
        if files["annex"]:
            write_page_annex(page, files["annex"], date=today())
            say(f"Annex: {files['annex']}")
        shown = page.findings
    else:
        from leakgauge.report.grid.redaction import redacted

        shown = redacted(findings) if redact else findings
    if files["csv"] or files["parquet"]:
        from leakgauge.report.exports.lines import lines_of

        _write_tables(lines_of(shown), files)
    if files["latex"]:
        from leakgauge.report.exports.latex import write_latex

        write_latex(shown, files["latex"])
        say(f"LaTeX: {files['latex']}")
    if files["junit"]:
        from leakgauge.report.exports.junit import write_junit

        write_junit(shown, files["junit"], [(str(rule), [str(one) for one in audit_breaches(shown, rule)]) for rule in rules])
        say(f"JUnit: {files['junit']}")
    if not any(files.values()) and not quiet:
        from leakgauge.report.grid.terminal import print_findings

        print_findings(shown, result_console())
    _judge(rules, lambda rule: audit_breaches(shown, rule))


def _write_tables(lines: Sequence[Line], files: dict[str, str | None]) -> None:
    from leakgauge.cli.console import say
    from leakgauge.report.exports.table_files import write_csv, write_parquet

    if files["csv"]:
        write_csv(lines, files["csv"])
        say(f"CSV: {files['csv']}")
    if files["parquet"]:
        write_parquet(lines, files["parquet"])
        say(f"Parquet: {files['parquet']}")


def _judge(rules: Sequence[Rule], find: Callable[[Rule], list[Breach]]) -> None:
    """Names what breaks the rules, and leaves with exit code 1 where anything does."""
    from leakgauge.cli.console import say

    broken = [breach for rule in rules for breach in find(rule)]
    for breach in broken:
        say(f"Rule broken: {breach}")
    if rules and not broken:
        say(f"No rule broken: {'; '.join(map(str, rules))}")
    if broken:
        raise typer.Exit(1)
