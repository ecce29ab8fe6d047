"""Figures of a trade-off: accuracy and leakage over strength, and accuracy against leakage with the frontier."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from leakgauge.audit.tradeoff.record import TradeoffPoint, TradeoffResult
from leakgauge.audit.tradeoff.strength import NONE
from leakgauge.report.charts import Chart, chart, colour, marker
from leakgauge.report.tradeoff.words import MEASURES, percent
from leakgauge.report.words import count

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D


def tradeoff_charts(result: TradeoffResult) -> tuple[Chart, ...]:
    """Every figure that the points support."""
    found = [strength_chart(result), frontier_chart(result)]
    return tuple(entry for entry in found if entry is not None)


def strength_chart(result: TradeoffResult) -> Chart | None:
    """Accuracy (left axis) and leakage (right axis) over strength, one panel per family with at least two strengths."""
    families = _families(result)
    if not families:
        return None
    measure = _measure(result)
    columns = min(2, len(families))
    rows = math.ceil(len(families) / columns)
    none = next((point for point in result.points if point.strength.family == NONE), None)

    def draw(figure: Figure) -> None:
        grid = figure.subplots(rows, columns, squeeze=False)
        flat = [axes for line in grid for axes in line]
        for axes in flat[len(families) :]:
            axes.set_axis_off()
        handles: dict[str, Line2D] = {}
        values = [
            value
            for point in result.points
            for variant in ("plain", "adaptive", None)
            if not math.isnan(value := point.leakage(measure, variant=variant))
        ]
        spare = 0.06 * (max(values, default=1.0) - min(values, default=0.0) or 1.0)
        limits = min(values, default=0.0) - spare, max(values, default=1.0) + spare
        for axes, (family, points) in zip(flat, families.items(), strict=False):
            members = [*([none] if none else []), *points]
            names = ["none" if point is none else f"{point.strength.value:g}" for point in members]
            places = list(range(len(members)))
            (line,) = axes.plot(places, [point.accuracy for point in members], color=colour(0), marker="o", markersize=4)
            handles["accuracy (left)"] = line
            axes.set_ylim(0, 1.03)
            axes.set_xticks(places, names, fontsize=8.5)
            axes.set_xlabel(f"{family}: {points[0].strength.option}")
            axes.set_ylabel("accuracy", color=colour(0))
            handles |= _leakage_lines(axes, members, none, measure, limits)
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, fontsize=9)

    alt = " ".join(
        f"{family}: "
        + "; ".join(
            f"{point.strength.value:g} accuracy {percent(point.accuracy)}, leakage {_text(point.leakage(measure))}"
            for point in points
        )
        + "."
        for family, points in families.items()
    )
    caption = (
        f"Strength grows to the right. Leakage is {MEASURES[measure]}, the mean over the attacked pictures; plain and "
        "adaptive attack are drawn apart."
    )
    size = (8.6 if columns == 2 else 6.4, 0.5 + 2.7 * rows)
    return chart("strength", "Accuracy and leakage over strength", alt, caption, size, draw)


def frontier_chart(result: TradeoffResult) -> Chart | None:
    """Accuracy against leakage; non-dominated points are joined and filled."""
    measure = _measure(result)
    points = [point for point in result.points if not (math.isnan(point.accuracy) or math.isnan(point.leakage(measure)))]
    if not points:
        return None
    families = list(dict.fromkeys(point.strength.family for point in points))

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        edge = sorted((point.leakage(measure), point.accuracy) for point in points if point.frontier)
        axes.plot(*zip(*edge, strict=True), color="#8a8f98", linewidth=1.2, zorder=1, label="frontier")
        for place, family in enumerate(families):
            for kept in (True, False):
                own = [point for point in points if point.strength.family == family and point.frontier == kept]
                if own:
                    axes.scatter(
                        [point.leakage(measure) for point in own],
                        [point.accuracy for point in own],
                        s=46,
                        marker=marker(place),
                        facecolors=colour(place) if kept else "none",
                        edgecolors=colour(place),
                        label=family if kept or not any(it.frontier for it in points if it.strength.family == family) else None,
                        zorder=2,
                    )
        chosen = result.choice.chosen if result.choice is not None else None
        for point in points:
            bold = chosen is not None and point.strength == chosen.strength
            text = "none" if point.strength.family == NONE else f"{point.strength.value:g}" if point.strength.option else ""
            axes.annotate(
                f"{text} (chosen)" if bold else text,
                (point.leakage(measure), point.accuracy),
                xytext=(5, -13 if bold else 5),
                textcoords="offset points",
                fontsize=8,
                fontweight="bold" if bold else "normal",
            )
        accuracies = [point.accuracy for point in points]
        low, high = min(accuracies), max(accuracies)
        axes.set_ylim(max(-0.02, low - 0.05), min(1.04, high + 0.05))
        axes.set_xlabel(f"leakage: {MEASURES[measure]}")
        axes.set_ylabel("accuracy")
        axes.grid(color="#000000", alpha=0.1)
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9)

    edge = [point for point in points if point.frontier]
    alt = f"{count(len(points), 'setting')}; on the frontier: " + "; ".join(
        f"{point.strength.text} with accuracy {percent(point.accuracy)} and leakage {_text(point.leakage(measure))}"
        for point in edge
    )
    caption = "Better is up and to the left. Filled points are non-dominated; numbers are strengths."
    return chart("frontier", "Accuracy against leakage", alt + ".", caption, (8.6, 4.2), draw)


def _leakage_lines(
    axes: Axes, members: list[TradeoffPoint], none: TradeoffPoint | None, measure: str, limits: tuple[float, float]
) -> dict[str, Line2D]:
    right = axes.twinx()
    right.spines["right"].set_visible(True)
    handles: dict[str, Line2D] = {}
    for variant, style, place in (("plain", "--", 3), ("adaptive", "-", 1)):
        values = [point.leakage(measure, variant=None if point is none else variant) for point in members]
        if all(math.isnan(value) for value, point in zip(values, members, strict=True) if point is not none):
            continue
        (line,) = right.plot(
            range(len(members)),
            values,
            color=colour(place),
            linestyle=style,
            marker="s" if variant == "plain" else "^",
            markersize=8 if variant == "plain" else 4,
            markerfacecolor="none" if variant == "plain" else colour(place),
        )
        handles[f"leakage, {variant} (right)"] = line
    right.set_ylim(*limits)
    right.set_ylabel(MEASURES[measure], color=colour(1))
    return handles


def _families(result: TradeoffResult) -> dict[str, list[TradeoffPoint]]:
    groups: dict[str, list[TradeoffPoint]] = {}
    for point in result.points:
        if point.strength.option:
            groups.setdefault(point.strength.family, []).append(point)
    none = any(point.strength.family == NONE for point in result.points)
    several = {family: points for family, points in groups.items() if len(points) > 1}
    return several or {family: points for family, points in groups.items() if none}


def _measure(result: TradeoffResult) -> str:
    assert result.plan.tradeoff is not None
    return result.plan.tradeoff.measure


def _text(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{value:.2f}"
