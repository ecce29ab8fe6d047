"""The files of a trade-off: tradeoff.json, tradeoff.csv, figures and report.html."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from leakgauge.audit.folder import strict_json
from leakgauge.audit.simulation.record import Leak
from leakgauge.audit.tradeoff.record import TradeoffPoint, TradeoffResult
from leakgauge.audit.tradeoff.strength import NONE
from leakgauge.report.charts import Chart
from leakgauge.report.files import write_text
from leakgauge.report.gallery import Picture
from leakgauge.report.html import render_template
from leakgauge.report.simulation.facts import best_finds
from leakgauge.report.simulation.page import Row, Strip, conditions_of_leak, picture_cell
from leakgauge.report.simulation.redaction import EXPLANATION, redacted_result
from leakgauge.report.simulation.words import MEASURES, conditions_text, identification, ratio
from leakgauge.report.tradeoff.charts import tradeoff_charts
from leakgauge.report.tradeoff.words import (
    READING,
    adaptive_sentences,
    headline,
    percent,
    share,
    trend_sentences,
    untested,
    verification_sentences,
)
from leakgauge.report.words import decibels, similarity

PAGE, JSON, TABLE, FIGURES = "report.html", "tradeoff.json", "tradeoff.csv", "figures"
HEADINGS = (
    "Defence", "Accuracy", "RDLV, mean (largest)", "SSIM, mean (largest)", "PSNR, mean (largest)", "Identified", "Epsilon",
    "Policy", "Frontier",
)  # fmt: skip
BY_ATTACK = (
    "Defence",
    "Attack",
    "Pictures",
    "RDLV, mean (largest)",
    "SSIM, mean (largest)",
    "PSNR, mean (largest)",
    "Identified",
)
COLUMNS = (
    "defence", "family", "option", "strength", "seed", "run", "accuracy", "attack", "variant", "pictures", "rdlv_undefined",
    "rdlv_mean", "rdlv_max", "ssim_mean", "ssim_max", "psnr_mean", "psnr_max", "identified", "identification_p", "epsilon",
    "frontier", "policy",
)  # fmt: skip


@dataclass(frozen=True)
class TradeoffPage:
    """Everything that the page shows; see the template."""

    title: str
    headline: str
    verification: tuple[str, ...]
    trends: tuple[str, ...]
    conditions: tuple[str, ...]
    shared: tuple[tuple[str, str], ...]
    untested: tuple[str, ...]
    remarks: tuple[str, ...]
    charts: tuple[Chart, ...]
    strips: tuple[Strip, ...]
    rows: tuple[Row, ...]
    by_attack: tuple[Row, ...]
    guarantees: tuple[str, ...]
    skipped: tuple[str, ...]


def write_tradeoff(result: TradeoffResult, folder: str | Path, redact: bool = False) -> None:
    """Writes everything into the folder, in place of what an earlier call wrote.

    Raises:
        DataError: if the folder cannot be written to.
    """
    place = Path(folder)
    write_text(place / JSON, json.dumps(tradeoff_to_json(result, redact), indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    write_text(place / TABLE, tradeoff_csv(result))
    for name in ("strength", "frontier"):
        for ending in ("svg", "png"):
            (place / FIGURES / f"{name}.{ending}").unlink(missing_ok=True)
    page = tradeoff_page(result, redact)
    for figure in page.charts:
        figure.write(place / FIGURES)
    write_text(place / PAGE, _html_of(page, redact))


def tradeoff_html(result: TradeoffResult, redact: bool = False) -> str:
    """The page as text."""
    return _html_of(tradeoff_page(result, redact), redact)


def _html_of(page: TradeoffPage, redact: bool) -> str:
    return render_template(
        "tradeoff.html.j2",
        page=page,
        kind="defences compared",
        headings=HEADINGS,
        by_attack=BY_ATTACK,
        reading=READING,
        measures=MEASURES,
        redaction=EXPLANATION if redact else "",
    )


def tradeoff_page(result: TradeoffResult, redact: bool = False) -> TradeoffPage:
    """The page as values; with `redact` without anything that shows or names a private picture."""
    shown = redacted(result) if redact else result
    points = shown.points
    leaks = [leak for point in points if point.result is not None for leak in point.result.attacks]
    conditions = [conditions_of_leak(leak) for leak in leaks]
    names = list(dict.fromkeys(name for entry in conditions for name in entry))
    shared = [(name, conditions[0][name]) for name in names if len({entry.get(name) for entry in conditions}) == 1]
    first = next((point.result for point in points if point.result is not None), None)
    remarks = []
    if result.bundled:
        remarks.append(f"The pictures are {shown.source}; nothing follows from them about your data.")
    if not result.complete:
        remarks.append("The run was stopped before its end. The same command continues it.")
    judged = bool(shown.plan.tradeoff and shown.plan.tradeoff.policy)
    return TradeoffPage(
        title=f"What defences cost and what still leaks: {shown.plan.name}" if shown.plan.name else "Defences compared",
        headline=headline(result),
        verification=verification_sentences(result.choice),
        trends=(*trend_sentences(result), *adaptive_sentences(result)),
        conditions=conditions_text(first) if first else (),
        shared=tuple(shared),
        untested=untested(shown),
        remarks=tuple(remarks),
        charts=tradeoff_charts(shown),
        strips=_strips(result, shown, redact),
        rows=tuple(_row(point, judged) for point in points),
        by_attack=tuple(row for point in points for row in _attack_rows(point)),
        guarantees=tuple(dict.fromkeys(f"{point.strength.text}: {point.guarantee}" for point in points)),
        skipped=tuple(f"{point.strength.text}: {reason}" for point in points for reason in point.skipped),
    )


def tradeoff_to_json(result: TradeoffResult, redact: bool = False) -> dict[str, Any]:
    """Verdict, plan and points as strict JSON; timings only under 'seconds'."""
    shown = redacted(result) if redact else result
    strict: dict[str, Any] = strict_json(
        {
            "verdict": {
                "headline": headline(result),
                "policy": result.choice.policy if result.choice else "",
                "chosen": result.choice.chosen.strength.text if result.choice and result.choice.chosen else None,
                "verification": list(verification_sentences(result.choice)),
                "trends": [asdict(trend) for trend in result.trends],
                "redacted": redact,
                "complete": result.complete,
            },
            "plan": shown.plan.model_dump(by_alias=True, exclude_none=True),
            "data": {"source": shown.source, "bundled": shown.bundled},
            "points": [_point_json(point) for point in shown.points],
            "fresh_points": [_point_json(fresh) for _, fresh in (result.choice.tried if result.choice else ())],
            "seconds": result.seconds,
        }
    )
    return strict


def tradeoff_csv(result: TradeoffResult) -> str:
    """One line per defence, attack and form; the fresh runs that verify the choice stand at the end."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    runs = [("sweep", point) for point in result.points]
    runs += [("fresh", fresh) for _, fresh in (result.choice.tried if result.choice else ())]
    for run, point in runs:
        strength = point.strength
        common = {
            "defence": strength.text, "family": strength.family, "option": strength.option, "strength": strength.value,
            "seed": point.seed, "run": run, "accuracy": point.accuracy, "epsilon": point.epsilon,
            "frontier": point.frontier if run == "sweep" else None, "policy": "; ".join(point.broken) or "met",
        }  # fmt: skip
        if result.choice is None:
            common["policy"] = None
        for entry in point.leakages:
            numbers = {f"{name}_mean": entry.mean[name] for name in entry.mean} | {
                f"{name}_max": entry.largest[name] for name in entry.largest
            }
            writer.writerow(
                common
                | {
                    "attack": entry.attack,
                    "variant": entry.variant,
                    "pictures": entry.pictures,
                    "rdlv_undefined": entry.undefined,
                }
                | {"identified": entry.identified, "identification_p": entry.probability}
                | numbers
            )
        if not point.leakages:
            writer.writerow(common)
    return out.getvalue()


def redacted(result: TradeoffResult) -> TradeoffResult:
    """The result without anything that shows or names a private picture; scores stay."""
    points = tuple(
        replace(point, result=redacted_result(point.result) if point.result is not None else None) for point in result.points
    )
    first = next((point.result for point in points if point.result is not None), None)
    plan = result.plan if first is None else result.plan.model_copy(update={"data": first.plan.data, "name": first.plan.name})
    if first is not None:
        plan = plan.model_copy(update={"attack": plan.attack.model_copy(update={"prior": first.plan.attack.prior})})
    return replace(result, points=points, plan=plan, source=first.source if first else result.source)


def _point_json(point: TradeoffPoint) -> dict[str, Any]:
    return {
        "defence": point.strength.text,
        "strength": asdict(point.strength),
        "seed": point.seed,
        "accuracy": point.accuracy,
        "leakages": [asdict(entry) for entry in point.leakages],
        "guarantee": point.guarantee,
        "epsilon": point.epsilon,
        "broken": list(point.broken),
        "frontier": point.frontier,
        "skipped": list(point.skipped),
        "seconds": point.seconds,
    }


def _row(point: TradeoffPoint, judged: bool) -> Row:
    cells = (
        percent(point.accuracy),
        _both(point, "rdlv", ratio),
        _both(point, "ssim", similarity),
        _both(point, "psnr", decibels),
        share(point.leakage("identification")),
        "no guarantee" if point.epsilon is None else f"{point.epsilon:.3g}",
        ("broken: " + "; ".join(point.broken) if point.broken else "met") if judged else "none given",
        "yes" if point.frontier else "no",
    )
    return Row(point.strength.text, cells)


def _attack_rows(point: TradeoffPoint) -> list[Row]:
    rows = []
    for entry in point.leakages:
        name = entry.attack if entry.variant == "plain" else f"{entry.attack} (adaptive)"
        words = {"rdlv": ratio, "ssim": similarity, "psnr": decibels}
        numbers = tuple(f"{words[measure](entry.mean[measure])} ({words[measure](entry.largest[measure])})" for measure in words)
        undefined = f", RDLV undefined for {entry.undefined}" if entry.undefined else ""
        rows.append(Row(point.strength.text, (name, f"{entry.pictures}{undefined}", *numbers, share(entry.identified))))
    return rows


def _both(point: TradeoffPoint, measure: str, words: Any) -> str:
    return f"{words(point.leakage(measure))} ({words(point.leakage(measure, 'max'))})"


def _strips(result: TradeoffResult, shown: TradeoffResult, redact: bool) -> tuple[Strip, ...]:
    """The picture that leaked most without a defence (or anywhere), as it came back behind each defence."""
    start = next((point for point in result.points if point.strength.family == NONE), result.points[0] if result.points else None)
    best = best_finds(start.result) if start is not None and start.result is not None else {}
    if not best:
        return ()
    find = max((finds[0] for finds in best.values()), key=lambda entry: entry.rank)
    key = (find.leak.round, find.leak.sender, find.leak.receiver)
    pictures: list[Picture] = []
    for point in shown.points:
        leaks = [leak for leak in point.result.attacks if (leak.round, leak.sender, leak.receiver) == key] if point.result else []
        if leaks and not pictures:
            pictures.append(picture_cell("original", leaks[0], find.place, "truth", "Original", "Original", redact))
            pictures.append(picture_cell("prior", leaks[0], find.place, "prior", "Class mean", "Class mean", redact))
        if leaks:
            leak = max(leaks, key=lambda entry: _ssim(entry, find.place))
            score = leak.scores[find.place]
            near = f"{decibels(score.psnr)}, SSIM {similarity(score.ssim)} ({leak.variant}), {identification(score)}"
            words = f"{point.strength.text}: {near}"
            pictures.append(
                picture_cell("reconstruction", leak, find.place, "guess", f"Reconstruction behind {words}", words, redact)
            )
    return (
        Strip(f"Round {key[0]}, {find.leak.channel}: the nearer of the plain and the adaptive reconstruction", tuple(pictures)),
    )


def _ssim(leak: Leak, place: int) -> float:
    value = leak.scores[place].ssim
    return -1.0 if math.isnan(value) else value
