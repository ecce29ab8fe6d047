"""DataSpec: the text 'SOURCE:PATH?key=value&key=value', taken apart."""

from __future__ import annotations

import math
from dataclasses import dataclass

from leakgauge.errors import DataError, OptionError, did_you_mean

HALVES = ("train", "test")
SPLITS: dict[str, tuple[str, ...]] = {
    "folder": HALVES,
    "cifar10": HALVES,
    "cifar100": HALVES,
    "mnist": HALVES,
    "cats-dogs": HALVES,
    "medmnist": ("train", "val", "test"),
    "npz": HALVES,
    "dicom": (),
    "demo": (),
}
KEYS = ("indices", "size", "mean", "std", "split", "grey", "channels")
LARGEST_SIDE = 8192
Numbers = float | tuple[float, ...]


@dataclass(frozen=True)
class DataSpec:
    """Which examples to read, and how they become model inputs.

    Args:
        source: one of the names in `SPLITS`.
        path: a file or folder; for 'demo' the names of pictures joined by ','.
        ranges: the chosen indices in order, as ranges; None for all.
        size: (H, W) of the pictures; None keeps their own.
        mean: one number, or one per channel; inputs are (pixel - mean) / std.
        std: one number, or one per channel.
        split: a part of the data set; None for its first ('train'), or for all of a source without parts.
        channels: 1 or 3; None for 3 as soon as one picture has colour.
    """

    source: str
    path: str
    ranges: tuple[range, ...] | None = None
    size: tuple[int, int] | None = None
    mean: Numbers = 0.0
    std: Numbers = 1.0
    split: str | None = None
    channels: int | None = None

    @property
    def things(self) -> str:
        """What one example is, in words."""
        return "text" if self.source == "text" else "picture"

    def select(self, count: int) -> list[int]:
        """The chosen indices out of `count` examples.

        Raises:
            DataError: if one of them is not there, or there are no examples at all.
        """
        if count == 0:
            raise DataError(f"{self.source}:{self.path} holds no {self.things}s.")
        if self.ranges is None:
            return list(range(count))
        for chosen in self.ranges:
            if chosen[-1] >= count:
                held = f"one {self.things}, index 0" if count == 1 else f"{count} {self.things}s, indices 0 to {count - 1}"
                raise DataError(f"{self.source}:{self.path} holds {held}; there is no index {chosen[-1]}.")
        return [index for chosen in self.ranges for index in chosen]


def parse_data_spec(text: str) -> DataSpec:
    """Reads 'SOURCE:PATH?indices=0-4,7&size=32x48&mean=0.5&std=0.25&split=test&channels=3' (or grey=true).

    A range includes both of its ends. The query starts at the last '?'.

    Raises:
        OptionError: for an unknown source, key or value; the nearest is suggested.
    """
    source, colon, rest = text.strip().partition(":")
    if not colon and source not in SPLITS:
        raise OptionError(f"The data {text!r} names no source; expected SOURCE:PATH such as folder:{source} or demo:cat.")
    if source not in SPLITS:
        raise OptionError(f"There is no data source {source!r}.{did_you_mean(source, SPLITS)}")
    path, mark, query = rest.rpartition("?")
    if not mark:
        path, query = rest, ""
    if not path:
        raise OptionError(f"The data {text!r} names nothing after {source!r}; expected {source}:{_example(source)}.")
    values: dict[str, str] = {}
    for part in query.split("&") if mark else ():
        key, equals, value = part.partition("=")
        if key not in KEYS:
            raise OptionError(f"The data {text!r} has no option {key!r}.{did_you_mean(key, KEYS)}")
        if not equals or not value:
            raise OptionError(f"The data {text!r} gives {key!r} no value; expected {key}=VALUE.")
        if key in values:
            raise OptionError(f"The data {text!r} gives {key!r} twice.")
        values[key] = value
    return DataSpec(
        source,
        path,
        ranges=ranges_of(values["indices"]) if "indices" in values else None,
        size=_size(values["size"]) if "size" in values else None,
        mean=_numbers("mean", values.get("mean", "0")),
        std=_numbers("std", values.get("std", "1")),
        split=_split(source, values.get("split")),
        channels=_channels(values),
    )


def _example(source: str) -> str:
    return "cat,astronaut" if source == "demo" else "PATH"


def ranges_of(text: str) -> tuple[range, ...]:
    """'0-4,7' as ranges, both ends included.

    Raises:
        OptionError: for anything else.
    """
    ranges = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        ends = (first, last if dash else first)
        if not all(end.isascii() and end.isdigit() and len(end) < 12 for end in ends) or int(ends[0]) > int(ends[1]):
            raise OptionError(
                f"indices={text} has the part {part!r}; expected indices such as 0-4 or 0,3,7 (from 0, rising ranges)."
            )
        ranges.append(range(int(ends[0]), int(ends[1]) + 1))
    return tuple(ranges)


def _size(text: str) -> tuple[int, int]:
    sides = text.split("x")
    if len(sides) == 1:
        sides = sides * 2
    if len(sides) != 2 or not all(side.isascii() and side.isdigit() and 1 <= int(side) <= LARGEST_SIDE for side in sides):
        raise OptionError(f"size={text}; expected 32, or height by width as 32x48, each from 1 to {LARGEST_SIDE}.")
    return int(sides[0]), int(sides[1])


def _numbers(key: str, text: str) -> Numbers:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = (math.nan,)
    if len(numbers) not in (1, 3) or not all(map(math.isfinite, numbers)) or (key == "std" and min(numbers) <= 0):
        kind = "a positive number" if key == "std" else "a number"
        raise OptionError(f"{key}={text}; expected {kind}, or three joined by ','.")
    return numbers[0] if len(numbers) == 1 else numbers


def _split(source: str, text: str | None) -> str | None:
    if text is None:
        return None
    if not SPLITS[source]:
        raise OptionError(f"The data source {source!r} has no parts; leave split={text} out.")
    if text not in SPLITS[source]:
        raise OptionError(f"split={text}; {source!r} has the parts {', '.join(SPLITS[source])}.")
    return text


def _channels(values: dict[str, str]) -> int | None:
    channels = values.get("channels")
    if channels not in (None, "1", "3"):
        raise OptionError(f"channels={channels}; expected 1 or 3.")
    grey = values.get("grey")
    if grey not in (None, "true", "false"):
        raise OptionError(f"grey={grey}; expected true or false.")
    if grey == "true" and channels == "3":
        raise OptionError("grey=true contradicts channels=3; give one of them.")
    if grey == "true":
        return 1
    return int(channels) if channels else None
