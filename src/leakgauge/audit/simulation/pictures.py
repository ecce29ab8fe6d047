"""Where a plan's pictures come from: data on this machine, or crops of the bundled pictures, never downloaded."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from leakgauge.audit.simulation.plan import SimulationPlan
from leakgauge.core.spec import ImageSpec
from leakgauge.data.demo import list_demo
from leakgauge.data.load import list_items
from leakgauge.data.pictures import one_shape, resized, with_channels
from leakgauge.data.spec import DataSpec, parse_data_spec
from leakgauge.errors import DataError
from leakgauge.randomness import rng

CHECKOUT = Path(__file__).resolve().parents[4]  # tests/audit/test_simulation_split.py holds this to where it is
SOURCES = ("cat", "rocket", "coffee", "retina", "astronaut")
DETAILS = (4, 6, 8, 10, 12)  # crops per shorter side, coarser first
FLAT = 0.04  # crops whose pixels have a smaller standard deviation show nothing
SPARE = 600  # pictures read at most beyond those that the plan uses


@dataclass(frozen=True)
class Pool:
    """Labelled pictures, not yet shared out.

    Args:
        pixels: (N, C, H, W) in [0, 1].
        labels: (N,) int64.
        names: of each picture, for the truth's own records.
        spec: shape and normalisation.
        source: in words, for the report.
        bundled: whether they are bundled pictures.
    """

    pixels: Tensor
    labels: Tensor
    names: tuple[str, ...]
    spec: ImageSpec
    source: str
    bundled: bool


def pool_of(plan: SimulationPlan, needed: int, beside: Path | None = None) -> Pool:
    """The pictures of a plan.

    Args:
        plan: names the source.
        needed: how many pictures the plan shares out.
        beside: folder of the plan's file, where a relative path is also looked for.

    Raises:
        DataError: if the source is not there (and the plan names no substitute), or holds labels beyond the classes.
        LeakgaugeError: for a source that cannot be read.
    """
    if not plan.data.source:
        return bundled_pool(plan, needed, "bundled pictures")
    spec = parse_data_spec(plan.data.source)
    found = located(spec, beside)
    if found is None:
        if plan.data.otherwise == "bundled":
            return bundled_pool(plan, needed, f"bundled pictures, since there is no {spec.source}:{spec.path} on this machine")
        raise DataError(
            f"There is no {spec.path!r} for data.source in {', '.join(map(str, places(beside)))}; name its path, set "
            "LEAKGAUGE_DATA to the folder that holds it, or leave data.source out for bundled pictures."
        )
    return _read(plan, found, needed)


def places(beside: Path | None) -> tuple[Path, ...]:
    """Folders in which a relative path is looked for, in order."""
    given = os.environ.get("LEAKGAUGE_DATA")
    shared = Path(given).expanduser() if given else CHECKOUT.parent / "shared" / "data"
    return (Path.cwd(), *([beside.resolve()] if beside else []), shared)


def located(spec: DataSpec, beside: Path | None) -> DataSpec | None:
    """The spec with a path that exists, or None; demo pictures need none."""
    if spec.source == "demo":
        return spec
    path = Path(spec.path).expanduser()
    if path.is_absolute():
        return spec if path.exists() else None
    for folder in places(beside):
        if (folder / path).exists():
            return replace(spec, path=str(folder / path))
    return None


def _read(plan: SimulationPlan, spec: DataSpec, needed: int) -> Pool:
    items = list_items(spec)
    chosen = spec.select(len(items))
    most = needed + SPARE
    if len(chosen) > most:
        order = torch.randperm(len(chosen), generator=rng(plan.seed, "simulation", "pool"))[:most].tolist()
        chosen = [chosen[index] for index in sorted(order)]
    kept = [items[index] for index in chosen]
    highest = max(item.label for item in kept)
    if plan.loss == "cross_entropy" and highest >= plan.classes:
        raise DataError(
            f"The pictures of data.source have labels up to {highest}; classes is {plan.classes}, expected {highest + 1}."
        )
    channels, height, width = plan.shape
    names = [item.name for item in kept]
    pixels = one_shape([item.pixels() for item in kept], names, (height, width), channels)
    image_spec = ImageSpec(plan.shape, spec.mean, spec.std)
    labels = torch.tensor([item.label for item in kept], dtype=torch.int64)
    return Pool(pixels, labels, tuple(names), image_spec, f"{spec.source}: {Path(spec.path).name}", spec.source == "demo")


def bundled_pool(plan: SimulationPlan, needed: int, words: str) -> Pool:
    """Bundled pictures for up to ten classes: crops of five photographs, or handwritten digits for more than five classes.

    A class is one photograph or several; crops do not overlap, and those that show next to nothing are left out.

    Raises:
        DataError: for more than ten classes, or more pictures than there are.
    """
    if plan.classes > 10:
        raise DataError(f"classes is {plan.classes}; bundled pictures have at most 10, so give data.source.")
    channels, height, width = plan.shape
    if plan.classes > len(SOURCES):
        items = list_demo(("digits",))
        if needed > len(items):
            raise DataError(f"The plan needs {needed} pictures; there are {len(items)} bundled digits. Give data.source.")
        order = torch.randperm(len(items), generator=rng(plan.seed, "simulation", "pool"))[: needed + SPARE].tolist()
        kept = [items[index] for index in sorted(order)]
        names = [item.name for item in kept]
        pixels = one_shape([item.pixels() for item in kept], names, (height, width), channels)
        labels = torch.tensor([item.label for item in kept])
        return Pool(pixels, labels, tuple(names), ImageSpec(plan.shape), f"{words} (handwritten digits)", True)
    pictures: list[tuple[str, int, Tensor]] = []
    for detail in DETAILS:
        pictures = [entry for place in range(len(SOURCES)) for entry in _crops(place, plan, detail)]
        counts = [sum(label == wanted for _, label, _ in pictures) for wanted in range(plan.classes)]
        if min(counts) * plan.classes >= needed:
            break
    else:
        raise DataError(f"The plan needs {needed} pictures; {len(pictures)} bundled crops can be made. Give data.source.")
    pixels = torch.stack([pixels for _, _, pixels in pictures])
    labels = torch.tensor([label for _, label, _ in pictures])
    return Pool(
        pixels, labels, tuple(name for name, _, _ in pictures), ImageSpec(plan.shape), f"{words} (crops of photographs)", True
    )


def _crops(place: int, plan: SimulationPlan, detail: int) -> list[tuple[str, int, Tensor]]:
    """Tiles of one photograph that do not overlap: name, label, pixels."""
    channels, height, width = plan.shape
    item = list_demo((SOURCES[place],))[0]
    whole = with_channels(item.pixels(), channels)
    side = min(whole.shape[1:]) // detail
    tall, wide = (side, max(1, side * width // height)) if width <= height else (max(1, side * height // width), side)
    found = []
    for row in range(whole.shape[1] // tall):
        for column in range(whole.shape[2] // wide):
            tile = whole[:, row * tall : (row + 1) * tall, column * wide : (column + 1) * wide]
            if float(tile.std()) >= FLAT:
                name = f"{item.name}[{detail}:{row},{column}]"
                found.append((name, place % plan.classes, resized(tile, (height, width))))
    return found
