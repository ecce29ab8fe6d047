"""Charts: matplotlib figures as SVG and PNG, the same bytes every time, for a folder and for a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leakgauge.errors import DataError
from leakgauge.report.files import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f3c8d", "#1b1f24")  # told apart by most eyes
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DOTS = 130
SETTINGS: dict[Any, Any] = {
    "svg.hashsalt": "leakgauge",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.formatter.use_mathtext": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


@dataclass(frozen=True)
class Chart:
    """One figure.

    Args:
        name: of its files, without ending.
        title: heading.
        alt: what it shows, in words, for those who do not see it.
        caption: how to read it.
        svg, png: the figure itself.
        width, height: in CSS pixels.
    """

    name: str
    title: str
    alt: str
    caption: str
    svg: str = field(repr=False)
    png: bytes = field(repr=False)
    width: int = 0
    height: int = 0

    @property
    def uri(self) -> str:
        """The SVG as a data URI for an `<img>`."""
        return "data:image/svg+xml;base64," + base64.b64encode(self.svg.encode()).decode("ascii")

    def write(self, folder: Path) -> None:
        """Writes NAME.svg and NAME.png.

        Raises:
            DataError: if the folder cannot be written to.
        """
        write_text(folder / f"{self.name}.svg", self.svg)
        try:
            (folder / f"{self.name}.png").write_bytes(self.png)
        except OSError as error:
            raise DataError(f"The figure cannot be written to {str(folder)!r}: {error.strerror or error}.") from error


def chart(name: str, title: str, alt: str, caption: str, size: tuple[float, float], draw: Callable[[Figure], None]) -> Chart:
    """Draws a figure of `size` inches (72 CSS pixels each) and renders it."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure)
        svg, png = io.StringIO(), io.BytesIO()
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
        figure.savefig(png, format="png", dpi=DOTS, metadata={"Software": None})
    text = svg.getvalue()
    return Chart(name, title, alt, caption, text[text.index("<svg") :], png.getvalue(), round(size[0] * 96), round(size[1] * 96))


def colour(place: int) -> str:
    """One of eight colours, round and round."""
    return COLOURS[place % len(COLOURS)]


def marker(place: int) -> str:
    """One of eight markers, round and round."""
    return MARKERS[place % len(MARKERS)]
