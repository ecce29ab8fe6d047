"""An attack's prior picture, where it is given as data: read here, since attacks read no files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from leakgauge.core.spec import ImageSpec
from leakgauge.data.load import list_items
from leakgauge.data.pictures import one_shape
from leakgauge.data.spec import DataSpec, parse_data_spec
from leakgauge.errors import ShapeError, UnsupportedError

OPTION = "prior"


def names_picture(options: Mapping[str, Any]) -> bool:
    """Whether an attack's options name their prior as data: 'SOURCE:PATH?..'. Models ('hf:..', 'pkg.mod:..') are none."""
    text = options.get(OPTION)
    source = text.partition(":")[0] if isinstance(text, str) and ":" in text else ""
    return bool(source) and source != "hf" and "." not in source


def without_picture(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options for a first check, before any picture is read: no prior in place of one that is named as data."""
    return {**options, OPTION: None} if names_picture(options) else dict(options)


def with_picture(
    options: Mapping[str, Any], spec: ImageSpec | None, locate: Callable[[DataSpec], DataSpec] = lambda data: data
) -> dict[str, Any]:
    """The options with a prior that is named as data replaced by the picture itself; others as they are.

    Args:
        options: of an attack.
        spec: of the observed inputs.
        locate: finds the data on this machine.

    Raises:
        OptionError: for text that is no data.
        DataError: for data that cannot be read.
        ShapeError: for a size or number of channels other than the observation's.
        UnsupportedError: where inputs are no pictures.
    """
    if not names_picture(options):
        return dict(options)
    if spec is None:
        raise UnsupportedError("A prior picture needs an observation of pictures; this one has no shape of pictures.")
    return {**options, OPTION: prior_picture(options[OPTION], spec, locate)}


def prior_picture(text: str, spec: ImageSpec, locate: Callable[[DataSpec], DataSpec] = lambda data: data) -> Tensor:
    """The mean of the named pictures, (C, H, W) in [0, 1], of the observation's shape.

    Without `size` and `channels` (or `grey`) in the text, pictures are brought to those of the observation.

    Args:
        text: as `parse_data_spec` reads it.
        spec: of the observed inputs.
        locate: finds the data on this machine.

    Raises:
        OptionError, DataError, ShapeError: see `with_picture`.
    """
    data = locate(parse_data_spec(text))
    channels, height, width = spec.shape
    if data.size not in (None, (height, width)):
        assert data.size is not None
        raise ShapeError(
            f"The prior {text!r} asks for pictures of {data.size[0]}x{data.size[1]} (height by width); the observation has "
            f"{height}x{width}. Leave size out, and they are brought to that."
        )
    if data.channels not in (None, channels):
        raise ShapeError(f"The prior {text!r} asks for {data.channels} channel(s); the observation has {channels}.")
    if channels not in (1, 3):
        raise ShapeError(f"The prior {text!r} names pictures, which have 1 or 3 channels; the observation has {channels}.")
    items = list_items(data)
    chosen = [items[index] for index in data.select(len(items))]
    pixels = one_shape([item.pixels() for item in chosen], [item.name for item in chosen], (height, width), channels)
    return pixels.mean(0)
