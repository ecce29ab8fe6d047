"""`leakgauge compare`: two audits side by side, and a verdict for a build."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from leakgauge.errors import DataError, OptionError

if TYPE_CHECKING:
    from leakgauge.report.comparison.match import Comparison
    from leakgauge.report.comparison.rules import Growth

FLAG, WORSE = "--fail-if", "worse"


def compare_command(
    before: Annotated[str, typer.Argument(metavar="DIR", help="A folder that audit wrote.", show_default=False)],
    after: Annotated[str, typer.Argument(metavar="DIR", help="Another one, the newer.", show_default=False)],
    html: Annotated[str | None, typer.Option(metavar="FILE", help="The page.", show_default=False)] = None,
    json_file: Annotated[str | None, typer.Option("--json", metavar="FILE", help="The same as JSON.", show_default=False)] = None,
    fail_if: Annotated[
        list[str] | None,
        typer.Option(
            FLAG,
            metavar="[RULE]",
            help="Exit code 1 if it holds: 'worse' (the default), or a growth as 'psnr > +3'; may be repeated.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Compare two audits cell by cell; with --fail-if, judge what got worse. Prints nothing on stdout where nothing differs."""
    from leakgauge.cli.console import remark, say
    from leakgauge.cli.places import output_file
    from leakgauge.cli.run_folder import is_run, load_findings
    from leakgauge.report.comparison.match import compare
    from leakgauge.report.comparison.page import lines, write_comparison, write_comparison_json
    from leakgauge.report.comparison.rules import growths

    rules = [None if text.strip().lower() == WORSE else parse_growth(text) for text in fail_if or ()]
    for file in (html, json_file):
        if file is not None:
            output_file(file)
    for folder in (before, after):
        if not is_run(folder):
            raise DataError(f"There is no audit in {folder!r}; expected a folder that `leakgauge audit` wrote.")
    pair = load_findings(before, pictures=False), load_findings(after, pictures=False)
    found = compare(*pair, names=(before, after))
    for line in lines(found):
        (remark if found.empty else say)(line)
    if html is not None:
        from leakgauge.report.grid.html import today

        write_comparison(found, html, date=today())
        say(f"Page: {html}")
    if json_file is not None:
        write_comparison_json(found, json_file)
        say(f"JSON: {json_file}")
    broken = [text for rule in rules for text in (_worse(found) if rule is None else growths(*pair, rule))]
    for text in broken:
        say(f"Rule broken: {text}")
    if rules and not broken:
        remark(f"No rule broken: {'; '.join(str(rule) if rule else WORSE for rule in rules)}")
    if broken:
        raise typer.Exit(1)


def parse_growth(text: str) -> Growth:
    """'psnr > +3' as a rule over how much a measure grew.

    Raises:
        OptionError: for anything else.
    """
    from leakgauge.cli.rules import parse_rule
    from leakgauge.report.comparison.rules import MEASURES, Growth

    match = re.search(r"(>=|<=|==|!=|>|<)\s*\+", text)
    rule = parse_rule(text.replace("+", "", 1) if match else text)
    if rule.metric not in MEASURES:
        raise OptionError(
            f"The rule {text!r} cannot be compared; expected 'worse' or the growth of one of {', '.join(MEASURES)}."
        )
    return Growth(rule.metric, rule.comparison, rule.limit)


def with_default_rule(arguments: Sequence[str]) -> list[str]:
    """The command line with 'worse' after each --fail-if of `compare` that stands without a rule."""
    given = list(arguments)
    if "compare" not in given[:1]:
        return given
    completed: list[str] = []
    for place, word in enumerate(given):
        completed.append(word)
        following = given[place + 1] if place + 1 < len(given) else "--"
        if word == FLAG and following.startswith("--"):
            completed.append(WORSE)
    return completed


def _worse(found: Comparison) -> list[str]:
    from leakgauge.report.words import count

    return [f"worse, {count(len(found.of(WORSE)), 'time')}"] if found.of(WORSE) else []
