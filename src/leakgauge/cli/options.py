"""Options that several commands share, and the texts behind them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

from leakgauge.errors import OptionError

if TYPE_CHECKING:
    from leakgauge.core.training import LocalTraining

MODEL_HELP = "A name with options (lenet-dlg, mu-cnn:width=24), pkg.mod:callable, hf:PATH, timm:NAME or torchvision:NAME."

Model = Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP, show_default=False)]
ModelOption = Annotated[str, typer.Option("--model", metavar="MODEL", help=MODEL_HELP, show_default=False)]
Threads = Annotated[
    int, typer.Option("--threads", min=1, help="CPU threads; more only helps large networks, and may change the last digits.")
]
ModelSeed = Annotated[int, typer.Option("--model-seed", help="Seed of the initial weights of a network given by name.")]
Classes = Annotated[
    int | None, typer.Option("--classes", min=1, help="Number of classes; by default the network's own.", show_default=False)
]
Weights = Annotated[
    str | None,
    typer.Option(
        "--weights", metavar="FILE", help="State dict: safetensors, or a torch file of plain weights.", show_default=False
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed; the same seed gives the same result.")]


def use_threads(count: int = 1) -> None:
    """Lets torch use so many threads. One by default: the same bits on every machine, and the fastest for small networks."""
    import torch

    torch.set_num_threads(count)


def parse_shape(text: str) -> tuple[int, int, int]:
    """'3x32x32' as (C, H, W).

    Raises:
        OptionError: for anything else.
    """
    sides = re.split("[x,*]", text.strip().lower().strip("()").replace(" ", ""))
    if len(sides) != 3 or not all(side.isascii() and side.isdigit() and 1 <= int(side) <= 8192 for side in sides):
        raise OptionError(f"The input {text!r} is no shape; expected channels x height x width, such as 3x32x32.")
    return int(sides[0]), int(sides[1]), int(sides[2])


def parse_numbers(text: str | None, option: str) -> tuple[float, ...] | None:
    """'0.9,0.999' as numbers; None for None.

    Raises:
        OptionError: if a part is no number.
    """
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise OptionError(f"--{option} is {text!r}; expected numbers joined by ','.") from None


def training_of(default: LocalTraining, **given: object) -> LocalTraining:
    """The protocol with every option that was given, that is, is not None."""
    from dataclasses import replace

    return replace(default, **{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
