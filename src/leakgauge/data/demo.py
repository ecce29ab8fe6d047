"""The demo pictures: real pictures that are on every machine with scikit-image and scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch

from leakgauge.core.spec import ImageSpec
from leakgauge.data.bundled import FACES, bundled_picture, digit, digits, face
from leakgauge.data.item import Item
from leakgauge.data.pictures import one_shape
from leakgauge.errors import OptionError, ShapeError, did_you_mean
from leakgauge.truth import Batch

DEFAULT_SIZE = (32, 32)


@dataclass(frozen=True)
class DemoPicture:
    """A demo name: what it shows, the file it stands in (inside scikit-image), and under what terms as the wheel states them."""

    description: str
    licence: str
    file: str | None = None


DEMO: dict[str, DemoPicture] = {
    "cat": DemoPicture("the cat Chelsea, 451x300, colour", "CC0 by the photographer, Stefan van der Walt", "data/chelsea.png"),
    "astronaut": DemoPicture("Eileen Collins, 512x512, colour", "NASA, no known copyright restrictions", "data/astronaut.png"),
    "coffee": DemoPicture("a cup of coffee, 600x400, colour", "CC0 by the photographer, Rachel Michetti", "data/coffee.png"),
    "rocket": DemoPicture("launch of a Falcon 9, 640x427, colour", "SpaceX, released to the public domain", "data/rocket.jpg"),
    "retina": DemoPicture("fundus of a human eye, 1411x1411, colour", "CC0; M. Häggström 2014", "data/retina.jpg"),
    "face": DemoPicture("the first face of lfw_subset, 25x25, grey", "not stated; Huang et al. 2012, LFW"),
    "digit": DemoPicture("the first of scikit-learn's digits, 8x8, grey", "not stated; UCI, Alpaydin and Kaynak 1998"),
}
SERIES: dict[str, DemoPicture] = {
    "faces": DemoPicture("the 100 faces of lfw_subset, 25x25, grey", DEMO["face"].licence),
    "digits": DemoPicture("scikit-learn's 1,797 digits, 8x8, grey", DEMO["digit"].licence),
}


def demo_names() -> tuple[str, ...]:
    """What may follow 'demo:'; 'all' stands for one of each."""
    return (*DEMO, *SERIES, "all")


def list_demo(names: Sequence[str]) -> list[Item]:
    """The demo pictures of these names, in order.

    The label is the picture's place in the list of names (cat 0, astronaut 1, coffee 2, rocket 3, retina 4, face and
    faces 5, digit 6); those of 'digits' have the digit itself.

    Raises:
        OptionError: for an unknown name.
        DataError: if the installed packages lack the file; nothing is downloaded.
    """
    items: list[Item] = []
    order = list(DEMO)
    for name in names:
        if name == "all":
            items += list_demo(order)
        elif name == "face":
            items.append(Item("face", order.index("face"), partial(face, 0)))
        elif name == "faces":
            items += [Item(f"faces[{number}]", order.index("face"), partial(face, number)) for number in range(FACES)]
        elif name == "digit":
            items.append(Item("digit", order.index("digit"), partial(digit, 0)))
        elif name == "digits":
            labels = digits()[1]
            items += [Item(f"digits[{row}]", int(label), partial(digit, row)) for row, label in enumerate(labels)]
        elif name in DEMO:
            items.append(Item(name, order.index(name), partial(bundled_picture, "skimage", str(DEMO[name].file))))
        else:
            raise OptionError(f"There is no demo picture {name!r}.{did_you_mean(name, demo_names())}")
    return items


def demo_pictures(
    names: Sequence[str] = ("cat",), size: int | tuple[int, int] = DEFAULT_SIZE, channels: int | None = None
) -> Batch:
    """Demo pictures as a batch with mean 0 and std 1, so that inputs are pixels in [0, 1].

    Args:
        names: out of `demo_names()`.
        size: one side of a square, or (H, W); cropping and filter as `pictures` states.
        channels: 1 or 3; None for 3 as soon as one picture has colour.

    Returns:
        Inputs (N, C, H, W), labels as `list_demo` gives them.

    Raises:
        OptionError: for an unknown name, or channels other than 1 and 3.
        ShapeError: for a size that is not positive, or no names at all.
    """
    sides = (size, size) if isinstance(size, int) else tuple(size)
    if len(sides) != 2 or min(sides) < 1 or not names:
        raise ShapeError(
            f"demo_pictures got names {tuple(names)!r} and size {size!r}; expected at least one name and positive sides."
        )
    if channels not in (None, 1, 3):
        raise OptionError(f"demo_pictures got channels {channels!r}; expected 1 or 3.")
    items = list_demo(names)
    inputs = one_shape([item.pixels() for item in items], [item.name for item in items], (sides[0], sides[1]), channels)
    labels = torch.tensor([item.label for item in items])
    spec = ImageSpec((inputs.shape[1], inputs.shape[2], inputs.shape[3]))
    return Batch(inputs, labels, spec, tuple(item.name for item in items))
