"""Figures of a grid: every cell by attack and condition, and what a defence or a better model trades for leakage."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from leakgauge.audit.record import PARTLY_DB, REBUILT_DB
from leakgauge.report.by_attack import bootstrap_median, median
from leakgauge.report.charts import Chart, chart, colour, marker
from leakgauge.report.grid.axes import axis_name, axis_text
from leakgauge.report.grid.cells import level_value
from leakgauge.report.grid.records import Sighting
from leakgauge.report.text_words import is_text
from leakgauge.report.words import control_score, count

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CEILING = 60.0  # dB at which identical pictures are drawn
PANELS, LINES = 12, 16
MANY = 1500  # dots from which they are drawn as pixels
Found = Mapping[str, Sequence[Sighting]]
PICTURE_UNIT, TEXT_UNIT = "PSNR in dB, higher is nearer", "tokens at their place in per cent"


def grid_charts(sightings: Found, differing: Sequence[str]) -> tuple[Chart, ...]:
    """Small multiples of all attempts, pictures and texts apart."""
    made = []
    for kind in (False, True):
        found = _of_kind(sightings, kind)
        if found:
            made.append(_multiples(found, differing, kind))
    return tuple(made)


def tradeoff_charts(sightings: Found) -> tuple[Chart, ...]:
    """The strongest attack on each private record behind each defence; and against the model's accuracy where that is known."""
    made = []
    for kind in (False, True):
        found = _of_kind(sightings, kind)
        made += [entry for entry in (_defences(found, kind), _accuracy(found, kind)) if entry is not None]
    return tuple(made)


def _diagnostic(found: Sequence[Sighting]) -> str:
    """A warning where diagnostic cells are among these."""
    mixed = any(not one.record.conditions.realistic for one in found)
    return " Diagnostic cells, whose attacker had more than a real server has, are among them." if mixed else ""


def _of_kind(sightings: Found, texts: bool) -> list[Sighting]:
    every = [one for found in sightings.values() for one in found if is_text(one.record) is texts]
    return [one for one in every if not math.isnan(level_value(one.score))]


def _drawn(value: float) -> float:
    return min(value, CEILING)


def _multiples(found: Sequence[Sighting], differing: Sequence[str], texts: bool) -> Chart:
    """One panel per condition, one line per attack, one dot per private record in one cell; a bar for the control's median."""
    axis = next((name for name in ("defence", "protocol", "threat", "state", "model", "data") if name in differing), "")
    panels = _grouped(found, axis)
    shown = dict(list(panels.items())[:PANELS])
    attacks = list(dict.fromkeys(one.result.cell.attack for one in sorted(found, key=lambda one: one.number)))[:LINES]
    columns = min(3, len(shown))
    rows = math.ceil(len(shown) / columns)
    flat = len(found) > MANY
    lowest = [_drawn(level_value(one.score)) for one in found]
    least = min(0.0 if texts else 5.0, *lowest)

    def draw(figure: Figure) -> None:
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        places = [axes for line in grid for axes in line]
        for axes in places[len(shown) :]:
            axes.set_axis_off()
        for axes, (name, members) in zip(places, shown.items(), strict=False):
            axes.set_title(_short(name), fontsize=9, loc="left")
            for line, attack in enumerate(attacks):
                _line(axes, line, [one for one in members if one.result.cell.attack == attack], flat)
            for value in (PARTLY_DB, REBUILT_DB) if not texts else (50.0,):
                axes.axvline(value, color="#8a8f98", linewidth=0.8, linestyle=":", zorder=0)
            axes.set_yticks(range(len(attacks)), [_short(attack) for attack in attacks], fontsize=8)
            axes.set_ylim(len(attacks) - 0.4, -0.6)
            axes.set_xlim(least - 2, 102 if texts else CEILING + 2)
        figure.supxlabel(TEXT_UNIT if texts else PICTURE_UNIT, fontsize=9)

    parts = []
    for name, members in shown.items():
        for attack in attacks:
            values = [level_value(one.score) for one in members if one.result.cell.attack == attack]
            if values:
                parts.append(f"{name}, {attack}: median {_figure(median(values), texts)}, best {_figure(max(values), texts)}")
    unit = "50 per cent" if texts else "20 and 30 dB"
    left = f" The first {PANELS} of {len(panels)} conditions are drawn." if len(panels) > PANELS else ""
    caption = (
        f"One dot is one private record in one cell, hollow where the attacker had more than a real server has. "
        f"The upright bar is the control's median, the dotted lines are {unit}. "
        f"{'' if texts else 'From 60 dB on all is drawn at 60 dB. '}Seeds and all else that differs lie in one line.{left}"
    )
    title = f"Every attempt by attack{f' and {axis_name(axis).lower()}' if axis else ''}" + (" (texts)" if texts else "")
    size = (9.4 if columns > 1 else 6.4, 0.9 + rows * (0.45 + 0.3 * len(attacks)))
    return chart("attempts-texts" if texts else "attempts", title, "; ".join(parts) + ".", caption, size, draw)


def _line(axes: Axes, line: int, members: Sequence[Sighting], flat: bool) -> None:
    if not members:
        return
    values = [_drawn(level_value(one.score)) for one in members]
    spread = [0.22 * math.sin(12.9898 * place) for place in range(len(values))]  # the same shift every time
    heights = [line + shift for shift in spread] if len(values) > 1 else [float(line)]
    for realistic in (True, False):
        kept = [place for place, one in enumerate(members) if one.record.conditions.realistic is realistic]
        axes.scatter(
            [values[place] for place in kept],
            [heights[place] for place in kept],
            s=11,
            facecolors=colour(line) if realistic else "none",
            edgecolors="none" if realistic else colour(line),
            alpha=0.65 if realistic else 1,
            linewidths=0 if realistic else 0.8,
            zorder=2,
            rasterized=flat,
        )
    controls = [control_score(one.record, one.score.index) for one in members]
    known = [_drawn(level_value(score)) for score in controls if score is not None and not math.isnan(level_value(score))]
    if known:
        axes.plot([median(known)] * 2, [line - 0.36, line + 0.36], color="#1b1f24", linewidth=1.6, zorder=3)


def _defences(found: Sequence[Sighting], texts: bool) -> Chart | None:
    """The strongest attack on each private record, defence by defence."""
    groups = _grouped(found, "defence")
    if len(groups) < 2:
        return None
    best = {name: _strongest(members) for name, members in groups.items()}
    names = list(best)[:LINES]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for place, name in enumerate(names):
            values = [_drawn(value) for value in best[name]]
            spread = [0.16 * math.sin(12.9898 * step) for step in range(len(values))]
            axes.scatter([place + shift for shift in spread], values, s=14, color=colour(0), alpha=0.5, linewidths=0)
            interval = bootstrap_median(values)
            middle = median(values)
            axes.plot([place - 0.28, place + 0.28], [middle] * 2, color=colour(1), linewidth=2.2)
            if interval is not None:
                axes.plot([place] * 2, list(interval), color=colour(1), linewidth=1.2)
        for value in (PARTLY_DB, REBUILT_DB) if not texts else (50.0,):
            axes.axhline(value, color="#8a8f98", linewidth=0.8, linestyle=":", zorder=0)
        axes.set_xticks(range(len(names)), [_short(name) for name in names], fontsize=8, rotation=20, ha="right")
        axes.set_ylabel(TEXT_UNIT if texts else PICTURE_UNIT, fontsize=9)

    alt = "; ".join(
        f"{name}: median {_figure(median(best[name]), texts)}, highest {_figure(max(best[name]), texts)}" for name in names
    )
    caption = (
        "One dot is one private record: the best that any attack, seed or other condition reached on it behind this defence. The "
        "bar is the median with its 95 % bootstrap interval over records. What a defence costs in accuracy this grid does not "
        f"measure; the command 'leakgauge tradeoff' does.{_diagnostic(found)}"
    )
    name = "defences-texts" if texts else "defences"
    return chart(name, "The strongest attack behind each defence", alt + ".", caption, (7.6, 3.6), draw)


def _accuracy(found: Sequence[Sighting], texts: bool) -> Chart | None:
    """Leakage against the accuracy of the model's state, where the states say theirs."""
    groups: dict[tuple[str, float], list[Sighting]] = {}
    for one in found:
        match = re.search(r"(\d+(?:\.\d+)?) ?% accuracy", one.record.conditions.model_state)
        if match:
            groups.setdefault((axis_text(one.result.cell, "defence"), float(match[1])), []).append(one)
    if len({accuracy for _, accuracy in groups}) < 2:
        return None
    names = list(dict.fromkeys(name for name, _ in groups))[:LINES]
    lines = {
        name: sorted((accuracy, median(_strongest(members))) for (own, accuracy), members in groups.items() if own == name)
        for name in names
    }

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for place, name in enumerate(names):
            accuracies, values = zip(*lines[name], strict=True)
            axes.plot(
                accuracies, [_drawn(value) for value in values], color=colour(place), marker=marker(place), label=_short(name)
            )
        axes.set_xlabel("accuracy of the model in per cent")
        axes.set_ylabel(TEXT_UNIT if texts else PICTURE_UNIT, fontsize=9)
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8, title="Defence", title_fontsize=8)

    alt = "; ".join(
        f"{name}: " + ", ".join(f"accuracy {accuracy:g} %, median {_figure(value, texts)}" for accuracy, value in line)
        for name, line in lines.items()
    )
    caption = (
        "Medians over private records of the best that any attack reached, by the accuracy of the model that was attacked."
        f"{_diagnostic(found)}"
    )
    name = "accuracy-texts" if texts else "accuracy"
    return chart(name, "Leakage against the accuracy of the model", alt + ".", caption, (7.6, 3.4), draw)


def _strongest(members: Sequence[Sighting]) -> list[float]:
    """For each private record the best value."""
    best: dict[str, float] = {}
    for one in members:
        best[one.key] = max(best.get(one.key, -math.inf), level_value(one.score))
    return list(best.values())


def _grouped(found: Sequence[Sighting], axis: str) -> dict[str, list[Sighting]]:
    groups: dict[str, list[Sighting]] = {}
    for one in sorted(found, key=lambda one: one.number):
        groups.setdefault(axis_text(one.result.cell, axis) if axis else "all cells", []).append(one)
    return groups


def _figure(value: float, texts: bool) -> str:
    if texts:
        return f"{value:.0f} %"
    return "exact" if value == math.inf else f"{value:.1f} dB"


def _short(text: str) -> str:
    return text if len(text) <= 34 else f"{text[:33]}…"


def counted(sightings: Found) -> str:
    """'120 attempts on 12 private records'."""
    attempts = sum(len(found) for found in sightings.values())
    return f"{count(attempts, 'attempt')} on {count(len(sightings), 'private record')}"
