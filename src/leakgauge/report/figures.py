"""The objective over evaluations as inline SVG, in the page's own text colour, the same bytes every time."""

from __future__ import annotations

import io
import math
import re
from functools import lru_cache
from typing import Any

from leakgauge.audit.record import Record
from leakgauge.report.words import number

INK, LINE = "#123456", "#654321"  # stand-ins, replaced by the page's colours
POINTS = 200


def finite_curve(record: Record) -> list[tuple[int, float]]:
    """The finite points of the objective curve, thinned evenly to at most 200."""
    points = [(evaluations, value) for evaluations, value in record.curve if math.isfinite(value)]
    if len(points) <= POINTS:
        return points
    last = len(points) - 1
    return [points[round(position * last / (POINTS - 1))] for position in range(POINTS)]


def curve_text(record: Record) -> str:
    """The curve in one sentence, for those who do not see it; '' where there is none."""
    points = finite_curve(record)
    if len(points) < 2:
        return ""
    (first, start), (last, end) = points[0], points[-1]
    return f"The attack's own objective went from {number(start)} after {first} evaluations to {number(end)} after {last}."


def curve_svg(record: Record, prefix: str) -> str:
    """Objective over evaluations as an `<svg>` element, logarithmic where all values are positive; '' for less than two points.

    Args:
        record: whose curve to draw.
        prefix: put before every id, so that several figures share one page.
    """
    points = finite_curve(record)
    return _inline(_drawn(tuple(points)), prefix, curve_text(record)) if len(points) > 1 else ""


@lru_cache(maxsize=1024)
def _drawn(points: tuple[tuple[int, float], ...]) -> str:
    """The figure as matplotlib writes it."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    settings: dict[Any, Any] = {
        "svg.hashsalt": "leakgauge",
        "svg.fonttype": "none",
        "axes.formatter.use_mathtext": False,
        "font.size": 10,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
    }
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(6.4, 2.6))
        FigureCanvasSVG(figure)
        figure.patch.set_visible(False)
        axes = figure.add_axes((0.13, 0.2, 0.84, 0.75))
        axes.patch.set_visible(False)
        evaluations, objectives = zip(*points, strict=True)
        axes.plot(evaluations, objectives, color=LINE, linewidth=2)
        positive = min(objectives) > 0
        if positive:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(numticks=6))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.minorticks_off()
        axes.set_xlabel("gradient evaluations")
        axes.set_ylabel("objective (log scale)" if positive else "objective")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color=INK, alpha=0.2)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return out.getvalue()


def _inline(svg: str, prefix: str, label: str) -> str:
    """Only the element, without addresses, fixed colours, global styles, or ids that another figure might use."""
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r'\bid="([^"]*)"', rf'id="{prefix}-\1"', svg)
    svg = svg.replace('href="#', f'href="#{prefix}-').replace("url(#", f"url(#{prefix}-")
    svg = re.sub(r"font: [^;\"]*(?=[;\"])", "font: 10px system-ui, sans-serif", svg)
    svg = svg.replace(INK, "currentColor").replace(LINE, "var(--line)")
    return re.sub(r'^<svg width="[^"]*" height="[^"]*"', f'<svg role="img" aria-label="{label}"', svg)
