"""Figures of a simulation: leakage and accuracy over the rounds, attacks side by side, reconstructions in a grid."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from leakgauge.audit.simulation.record import Leak, SimulationResult
from leakgauge.report.charts import Chart, chart, colour, marker
from leakgauge.report.simulation.facts import Bar, Line, bars_of, compared_messages, lines_of, references_of
from leakgauge.report.words import count, listed

if TYPE_CHECKING:
    import torch
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GRID_ROWS = 8


def simulation_charts(result: SimulationResult) -> tuple[Chart, ...]:
    """Every figure that the records support, in the order of the page; none without attacks."""
    found = [leakage_chart(result), attacks_chart(result), accuracy_chart(result)]
    return tuple(entry for entry in found if entry is not None)


def leakage_chart(result: SimulationResult) -> Chart | None:
    """RDLV and SSIM per round, one line per client or edge, with a band from the least to the most leaking picture."""
    sides = {measure: lines_of(result, measure) for measure in ("rdlv", "ssim")}
    if not sides["ssim"]:
        return None
    numbers = sorted({point.round for line in sides["ssim"] for point in line.points})

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        _lines(left, sides["rdlv"], numbers)
        left.axhline(0, color="#555555", linewidth=1, linestyle="--")
        left.annotate(
            "prior: 0", (1, 0), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8, color="#555555"
        )
        left.set_title("RDLV against the prior", fontsize=10, loc="left")
        _lines(right, sides["ssim"], numbers)
        reference = references_of(result, "ssim")
        if reference:
            right.plot(*zip(*reference, strict=True), color="#555555", linewidth=1.2, linestyle="--", label="prior (class mean)")
        right.set_title("SSIM", fontsize=10, loc="left")
        right.set_ylim(top=1.03)
        handles, labels = right.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 4), fontsize=9)

    leaked = [line.name for line in sides["ssim"] if line.leaked]
    alt = f"Leakage over {count(len(numbers), 'attacked round')} for {count(len(sides['ssim']), 'sender')}. " + (
        f"{listed(leaked)} leaked." if leaked else "No line reaches the limit for a leak."
    )
    alt += "".join(f" {_line_text(line)}" for line in sides["rdlv"][:12])
    caption = (
        "Each line is one sender; the line is the mean over its pictures, the band goes from the picture that leaked "
        "least to the one that leaked most. Where several attacks were played, the one with the largest mean is drawn."
    )
    height = 3.7 + 0.22 * math.ceil((len(sides["ssim"]) + 1) / 4)
    return chart("leakage", "Leakage per round", alt, caption, (8.6, height), draw)


def attacks_chart(result: SimulationResult) -> Chart | None:
    """SSIM and PSNR of every attack and control on the same messages; None with fewer than two of them."""
    sides = {measure: bars_of(result, measure) for measure in ("ssim", "psnr")}
    if sum(bar.attack for bar in sides["ssim"]) < 1 or len(sides["ssim"]) < 2:
        return None
    names = [_wrapped(bar.name) for bar in sides["ssim"]]

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, sharey=True)
        for axes, measure, label in ((left, "ssim", "SSIM"), (right, "psnr", "PSNR (dB)")):
            _bars(axes, sides[measure])
            axes.set_xlabel(label)
        left.set_yticks(range(len(names)), names, fontsize=8.5)
        left.invert_yaxis()

    messages = compared_messages(result)
    pictures = len(sides["ssim"][0].values)
    alt = "Mean over the same pictures: " + "; ".join(
        f"{bar.name} SSIM {bar.mean:.2f}, {other.mean:.1f} dB" for bar, other in zip(sides["ssim"], sides["psnr"], strict=True)
    )
    work = {bar.name: bar.evaluations for bar in sides["ssim"] if bar.attack}
    same = len(set(work.values())) == 1
    spent = (
        f"each with {next(iter(work.values()))} evaluations"
        if same
        else "evaluations per message: " + ", ".join(f"{name} {evaluations}" for name, evaluations in work.items())
    )
    caption = (
        f"The same {count(len(messages), 'message')} with the fewest examples ({count(pictures, 'picture')} in all) for "
        f"every bar; bars are means, dots single pictures; {spent}. Grey bars look at no update."
    )
    return chart("attacks", "Attacks on the same messages", alt + ".", caption, (8.6, 1.3 + 0.5 * len(names)), draw)


def accuracy_chart(result: SimulationResult) -> Chart | None:
    """Validation accuracy after each round; None where it was not measured."""
    points = [(facts.index, facts.accuracy) for facts in result.rounds if not math.isnan(facts.accuracy)]
    if not points:
        return None

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        rounds, values = zip(*points, strict=True)
        axes.plot(rounds, values, color=colour(0), marker="o", markersize=4)
        for number in result.plan.attacked_rounds:
            if number <= rounds[-1]:
                axes.axvline(number, color="#999999", linewidth=0.8, linestyle=":")
        axes.set_ylim(0, 1.03)
        axes.set_xlabel("round")
        axes.set_ylabel("accuracy")
        _whole_rounds(axes, list(rounds))

    alt = f"Accuracy went from {points[0][1]:.0%} after round {points[0][0]} to {points[-1][1]:.0%} after round {points[-1][0]}."
    alt = alt.replace("%", " %")
    caption = (
        f"Share of right classes on {count(result.plan.data.validation, 'validation picture')} that no client has. Dotted lines "
        "mark the attacked rounds, each before the model's next step."
    )
    return chart("accuracy", "Accuracy per round", alt, caption, (8.6, 2.5), draw)


def reconstructions_chart(rows: list[tuple[str, list[tuple[str, torch.Tensor | None]]]]) -> Chart | None:
    """A grid of pictures: one row per message and picture, columns original, prior, and one per attack.

    Args:
        rows: caption of a row, and (heading, (C, H, W) in [0, 1] or None for an empty box) per column.
    """
    if not rows:
        return None
    columns = list(dict.fromkeys(heading for _, cells in rows for heading, _ in cells))

    def draw(figure: Figure) -> None:
        grid = figure.subplots(len(rows), len(columns), squeeze=False)
        for place, (caption, cells) in enumerate(rows):
            found = dict(cells)
            for at, heading in enumerate(columns):
                axes = grid[place][at]
                axes.set_xticks([])
                axes.set_yticks([])
                for spine in axes.spines.values():
                    spine.set_visible(False)
                pixels = found.get(heading)
                if pixels is None or not bool(pixels.isfinite().all()):
                    axes.text(0.5, 0.5, "none", ha="center", va="center", fontsize=8, color="#666666", transform=axes.transAxes)
                elif len(pixels) == 3:
                    axes.imshow(pixels.permute(1, 2, 0).clamp(0, 1).numpy(), interpolation="nearest")
                else:
                    axes.imshow(pixels.mean(0).clamp(0, 1).numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
                if place == 0:
                    axes.set_title(_wrapped(heading, 18), fontsize=8)
                if at == 0:
                    axes.set_ylabel(_wrapped(caption, 16), fontsize=8, rotation=0, ha="right", va="center")

    alt = f"{count(len(rows), 'private picture')} in rows; columns: {listed(columns)}."
    size = (1.5 + 1.25 * len(columns), 0.5 + 1.25 * len(rows))
    return chart("reconstructions", "Reconstructions", alt, "Rows are messages, columns what was tried.", size, draw)


def _lines(axes: Axes, lines: tuple[Line, ...], numbers: list[int]) -> None:
    for place, line in enumerate(lines):
        points = [point for point in line.points if not math.isnan(point.mean)]
        label = f"{line.name} ({count(line.examples, 'picture')})"
        if not points:
            axes.plot([], [], color=colour(place), marker=marker(place), label=label)
            continue
        rounds = [point.round for point in points]
        width = 2.2 if line.leaked else 1.2
        axes.plot(
            rounds,
            [point.mean for point in points],
            color=colour(place),
            marker=marker(place),
            markersize=5,
            linewidth=width,
            label=label,
        )
        lows, highs = [point.low for point in points], [point.high for point in points]
        if lows != highs and len(points) > 1:
            axes.fill_between(rounds, lows, highs, color=colour(place), alpha=0.13, linewidth=0)
        elif lows != highs:
            axes.vlines(rounds, lows, highs, color=colour(place), alpha=0.4)
    axes.set_xlabel("round")
    axes.grid(axis="y", color="#000000", alpha=0.12)
    _whole_rounds(axes, numbers)


def _bars(axes: Axes, bars: tuple[Bar, ...]) -> None:
    for place, bar in enumerate(bars):
        mean = bar.mean
        axes.barh(place, 0 if math.isnan(mean) else mean, color=colour(0) if bar.attack else "#b8bec6", height=0.62)
        values = [min(value, 100.0) for value in bar.values if not math.isnan(value)]
        axes.plot(values, [place] * len(values), linestyle="", marker="o", markersize=3, color="#1b1f24", alpha=0.6)
    axes.grid(axis="x", color="#000000", alpha=0.12)
    axes.axvline(0, color="#555555", linewidth=0.8)


def _whole_rounds(axes: Any, numbers: list[int]) -> None:
    step = max(1, math.ceil(len(numbers) / 12))
    axes.set_xticks(numbers[::step])
    spare = 0.3 if len(numbers) == 1 else 0.04 * (numbers[-1] - numbers[0])
    axes.set_xlim(numbers[0] - spare, numbers[-1] + spare)


def _line_text(line: Line) -> str:
    values = [f"{point.mean:.2f} in round {point.round}" for point in line.points if not math.isnan(point.mean)]
    return f"{line.name}: RDLV {', '.join(values)}." if values else f"{line.name}: RDLV undefined."


def _wrapped(text: str, width: int = 34) -> str:
    """Lines of about `width` characters, broken after ':', ',' and '-' too."""
    lines, current = [], ""
    for part in re.split(r"(?<=[,:\s-])", text):
        if current and len(current) + len(part.rstrip()) > width:
            lines.append(current.rstrip())
            current = part
        else:
            current += part
    return "\n".join([*lines, current.rstrip()])


def picture_of(leak: Leak, place: int, what: str) -> torch.Tensor | None:
    """One picture of a record: 'truth', 'guess' or 'prior'; None where it is not there or was left out."""
    if leak.pictures is None:
        return None
    pixels: torch.Tensor = getattr(leak.pictures, what)[place]
    return pixels if bool(pixels.isfinite().all()) else None
