"""A simulation's records, and a trade-off's points, as tables for the terminal."""

from __future__ import annotations

import math

from rich.table import Table

from leakgauge.audit.simulation.record import SimulationResult, leak_verdicts
from leakgauge.audit.tradeoff.record import TradeoffResult
from leakgauge.report.simulation.words import ratio
from leakgauge.report.words import SEVERITY, decibels, similarity


def leaks_table(result: SimulationResult) -> Table:
    """One line per attack (and control) on one message: the picture that leaked most."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("round", "sender", "attack", "form", "verdict"):
        table.add_column(heading)
    for heading in ("RDLV", "SSIM", "PSNR"):
        table.add_column(heading, justify="right")
    for leak in result.leaks:
        if not leak.scores:
            table.add_row(str(leak.round), leak.channel, leak.attack, leak.variant, leak.skipped)
            continue
        verdicts = leak_verdicts(result, leak)
        worst = max(range(len(verdicts)), key=lambda place: (SEVERITY[verdicts[place]], _low(leak.scores[place].ssim)))
        score = leak.scores[worst]
        shown = verdicts[worst] if leak.is_attack else ""
        numbers = ratio(score.rdlv), similarity(score.ssim), decibels(score.psnr)
        table.add_row(str(leak.round), leak.channel, leak.attack, leak.variant, shown, *numbers)
    return table


def tradeoff_table(result: TradeoffResult) -> Table:
    """One line per defence: accuracy, and the largest mean leakage over attacks and forms."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("defence", overflow="fold")
    for heading in ("accuracy", "RDLV", "SSIM", "PSNR", "identified", "epsilon"):
        table.add_column(heading, justify="right")
    table.add_column("policy")
    table.add_column("frontier")
    for point in result.points:
        identified = point.leakage("identification")
        table.add_row(
            point.strength.text,
            f"{100 * point.accuracy:.0f} %",
            ratio(point.leakage("rdlv")),
            similarity(point.leakage("ssim")),
            decibels(point.leakage("psnr")),
            "not testable" if math.isnan(identified) else f"{100 * identified:.0f} %",
            "none" if point.epsilon is None else f"{point.epsilon:.3g}",
            "" if result.plan.tradeoff is None or not result.plan.tradeoff.policy else "broken" if point.broken else "met",
            "yes" if point.frontier else "",
        )
    return table


def _low(value: float) -> float:
    return -1.0 if math.isnan(value) else value
