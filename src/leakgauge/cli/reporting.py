"""`leakgauge report`: records on disk into a page, JSON, and a verdict for a build."""

from __future__ import annotations

from typing import Annotated

import typer


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
            help="Exit code 1 if it holds for any attack, as 'ssim > 0.5' or 'token_accuracy > 0.5'; may be repeated.",
            show_default=False,
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
    """Write the page (and JSON) for a folder of records; with --fail-if, judge them."""
    from leakgauge.cli.rules import breaches, parse_rule

    rules = [parse_rule(text) for text in fail_if or ()]
    from leakgauge.audit.architecture import load_architectures
    from leakgauge.audit.folder import load_records
    from leakgauge.cli.console import result_console, say
    from leakgauge.cli.places import output_file
    from leakgauge.report.spans import BUILT_IN, read_patterns

    wanted = BUILT_IN if patterns is None else read_patterns(patterns)
    for file in (html, json_file):
        if file is not None:
            output_file(file)
    records, counted = load_records(folder), load_architectures(folder)
    if html is not None:
        from leakgauge.report.html import write_html

        write_html(records, html, redact, architectures=counted, patterns=wanted)
        say(f"Page: {html}")
    if json_file is not None:
        from leakgauge.report.json_export import write_json

        write_json(records, json_file, redact, counted, wanted)
        say(f"JSON: {json_file}")
    if html is None and json_file is None:
        from leakgauge.report.terminal import print_report

        print_report(records, result_console(), wanted)
    broken = [breach for rule in rules for breach in breaches(records, rule)]
    for breach in broken:
        say(f"Rule broken: {breach}")
    if rules and not broken:
        say(f"No rule broken: {'; '.join(map(str, rules))}")
    if broken:
        raise typer.Exit(1)
