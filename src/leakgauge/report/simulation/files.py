"""The files of a simulation: simulation.json, leakage.csv, figures and report.html."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from leakgauge.audit.folder import strict_json
from leakgauge.audit.simulation.record import Leak, SimulationResult, leak_verdicts
from leakgauge.audit.simulation.store import leak_to_json
from leakgauge.report.charts import Chart
from leakgauge.report.files import write_text
from leakgauge.report.html import render_template
from leakgauge.report.simulation.charts import GRID_ROWS, picture_of, reconstructions_chart
from leakgauge.report.simulation.facts import best_finds
from leakgauge.report.simulation.page import HEADINGS, SimulationPage, simulation_page
from leakgauge.report.simulation.redaction import EXPLANATION, redacted_result
from leakgauge.report.simulation.words import MEASURES, RULE, answers, headline

PAGE, JSON, TABLE, FIGURES = "report.html", "simulation.json", "leakage.csv", "figures"
NUMBERS = ("psnr", "ssim", "mse", "rdlv", "rdlv_released", "prior_ssim", "probability")
COLUMNS = (
    "round", "sender", "receiver", "client", "picture", "attack", "variant", "verdict", "psnr", "ssim", "mse", "rdlv",
    "rdlv_released", "prior_ssim", "control_psnr", "control_ssim", "rank", "decoys", "probability", "model_state", "examples",
    "local_training", "local_steps", "batch_norm_mode", "batch_norm", "labels", "defence", "dtype", "threat", "known_start_exact",
    "epsilon", "evaluations", "outcome", "not_attacked",
)  # fmt: skip


def write_simulation(result: SimulationResult, folder: str | Path, redact: bool = False) -> None:
    """Writes everything into the folder, in place of what an earlier call wrote.

    Args:
        result: what was found.
        folder: where to.
        redact: leave out originals, names, places and what comes near an original.

    Raises:
        DataError: if the folder cannot be written to.
    """
    place = Path(folder)
    write_text(place / JSON, json.dumps(simulation_to_json(result, redact), indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    write_text(place / TABLE, leakage_csv(result, redact))
    shown = redacted_result(result) if redact else result
    for name in ("leakage", "attacks", "accuracy", "reconstructions"):
        for ending in ("svg", "png"):
            (place / FIGURES / f"{name}.{ending}").unlink(missing_ok=True)
    grid = grid_chart(shown, result)
    page = simulation_page(result, redact)
    for figure in (*page.charts, *([grid] if grid else [])):
        figure.write(place / FIGURES)
    write_text(place / PAGE, _html_of(page))


def simulation_html(result: SimulationResult, redact: bool = False) -> str:
    """The page as text."""
    return _html_of(simulation_page(result, redact))


def _html_of(page: SimulationPage) -> str:
    return render_template(
        "simulation.html.j2",
        page=page,
        kind="simulated federated learning",
        headings=HEADINGS,
        rule=RULE,
        measures=MEASURES,
        redaction=EXPLANATION if page.redacted else "",
    )


def simulation_to_json(result: SimulationResult, redact: bool = False) -> dict[str, Any]:
    """Verdict, plan, clients, rounds and records as strict JSON; timings only under 'seconds', versions under 'versions'."""
    shown = redacted_result(result) if redact else result
    records = []
    for leak in shown.leaks:
        entry = leak_to_json(leak)
        for score, verdict in zip(entry["scores"], leak_verdicts(shown, leak), strict=True):
            score["verdict"] = verdict if leak.is_attack else leak.variant
        records.append(entry)
    strict: dict[str, Any] = strict_json(
        {
            "verdict": {
                "headline": headline(result),
                "answers": list(answers(result)),
                "rule": RULE,
                "redacted": redact,
                "complete": shown.complete,
                "planned_attacks": shown.planned,
                "attacks": len(shown.attacks),
            },
            "plan": shown.plan.model_dump(by_alias=True, exclude_none=True),
            "data": {"source": shown.source, "bundled": shown.bundled},
            "clients": [asdict(facts) for facts in shown.clients],
            "rounds": [asdict(facts) for facts in shown.rounds],
            "records": records,
            "seconds": shown.seconds,
        }
    )
    return strict


def leakage_csv(result: SimulationResult, redact: bool = False) -> str:
    """One line per picture and attack (or control), with the conditions; a message that was not attacked has one line."""
    shown = redacted_result(result) if redact else result
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for leak in shown.leaks:
        for line in _lines(shown, leak):
            writer.writerow(line)
    return out.getvalue()


def _lines(result: SimulationResult, leak: Leak) -> list[dict[str, Any]]:
    conditions, setting = leak.conditions, leak.setting
    common = {
        "round": leak.round, "sender": leak.sender, "receiver": leak.receiver, "attack": leak.attack, "variant": leak.variant,
        "model_state": conditions.model_state, "examples": conditions.batch_size, "local_training": conditions.training,
        "local_steps": setting.local_steps, "batch_norm_mode": setting.batch_norm_mode, "batch_norm": conditions.batch_norm,
        "labels": conditions.labels, "defence": conditions.defence, "dtype": conditions.dtype, "threat": conditions.threat,
        "known_start_exact": setting.exact, "epsilon": setting.epsilon, "evaluations": leak.evaluations, "outcome": leak.outcome,
        "not_attacked": leak.skipped,
    }  # fmt: skip
    if not leak.scores:
        return [common]
    control = result.control_of(leak)
    found = []
    for place, (score, verdict) in enumerate(zip(leak.scores, leak_verdicts(result, leak), strict=True)):
        against = control.scores[place] if control is not None and leak.is_attack else None
        found.append(
            common
            | {
                "client": score.client, "picture": score.name, "verdict": verdict if leak.is_attack else leak.variant,
                "control_psnr": against.psnr if against else None, "control_ssim": against.ssim if against else None,
                "rank": score.rank or None, "decoys": score.decoys,
            }
            | {name: getattr(score, name) for name in NUMBERS}
        )  # fmt: skip
    return found


def grid_chart(shown: SimulationResult, scored: SimulationResult) -> Chart | None:
    """The picture that leaked most, round by round, as every attack saw it; pictures as `shown` has them."""
    best = best_finds(scored)
    if not best:
        return None
    client = max(best, key=lambda name: best[name][0].rank)
    places: dict[tuple[int, str, str], int] = {}
    for find in best[client]:
        places.setdefault((find.leak.round, find.leak.sender, find.leak.receiver), find.place)
    rows = []
    for key in sorted(places)[:GRID_ROWS]:
        leaks = [leak for leak in shown.leaks if (leak.round, leak.sender, leak.receiver) == key and leak.scores]
        cells = [
            ("original", picture_of(leaks[0], places[key], "truth")),
            ("class mean", picture_of(leaks[0], places[key], "prior")),
        ]
        for leak in leaks:
            if leak.is_attack:
                words = leak.attack if leak.variant == "plain" else f"{leak.attack}, adaptive"
                cells.append((words, picture_of(leak, places[key], "guess")))
        rows.append((f"{leaks[0].channel}, round {key[0]}", cells))
    return reconstructions_chart(rows)
