"""Bundled pictures as a private batch of any shape, for `check`, which has no data."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leakgauge.truth import Batch

ORDER = ("cat", "retina", "astronaut", "coffee", "rocket")


def bundled_batch(shape: tuple[int, int, int], count: int, classes: int, mean: float = 0.0, std: float = 1.0) -> Batch:
    """The first `count` bundled pictures at a shape, faces after the photographs; labels go round the classes.

    Args:
        shape: (C, H, W) with any number of channels; other than grey or colour, the colours repeat.
        count: at most 105.
        classes: number of outputs.
        mean, std: of the inputs.

    Raises:
        OptionError: for more pictures than there are.
    """
    import torch

    from leakgauge.audit.making import with_any_channels
    from leakgauge.core.spec import ImageSpec
    from leakgauge.data import load_data
    from leakgauge.errors import OptionError
    from leakgauge.truth import Batch

    most = len(ORDER) + 100
    if count > most:
        raise OptionError(f"There are {most} bundled pictures; a batch of {count} cannot be made of them.")
    size = f"size={shape[1]}x{shape[2]}&channels={1 if shape[0] == 1 else 3}"
    names = ",".join(ORDER[: min(count, len(ORDER))]) + (",faces" if count > len(ORDER) else "")
    loaded = load_data(f"demo:{names}?indices=0-{count - 1}&{size}")
    assert isinstance(loaded.inputs, torch.Tensor)
    pixels = loaded.inputs if shape[0] in (1, 3) else with_any_channels(loaded.inputs, shape[0])
    spec = ImageSpec(shape, mean, std)
    return Batch(spec.normalise(pixels), torch.arange(count) % classes, spec, loaded.names)
