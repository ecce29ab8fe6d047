"""load_model: a name becomes a network."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from leakgauge.errors import ModelError
from leakgauge.models.catalogue import NETWORKS
from leakgauge.models.entry import configure
from leakgauge.models.foreign import prepare_call
from leakgauge.models.huggingface import prepare_folder
from leakgauge.models.initialise import isolated_randomness, seed_generators
from leakgauge.models.libraries import prepare_timm, prepare_torchvision
from leakgauge.models.name import ModelName
from leakgauge.randomness import derived_seed


def load_model(name: str, num_classes: int | None = None, input_shape: tuple[int, ...] | None = None, seed: int = 0) -> nn.Module:
    """A network in eval mode and float32, its initial weights a function of `seed` alone.

    No global generator is read or moved.

    Args:
        name: what `ModelName.parse` reads.
        num_classes: outputs; by default what the paper's network has here (10, or 2 for Mu's), or the builder's own default.
        input_shape: (C, H, W), or any shape for a fully connected network; by default (3, 32, 32), for FCN3 (1, 28, 28).
        seed: any integer; the same name and seed give the same weights, bit for bit, on one version of torch.

    Raises:
        ModelError: if the name cannot be resolved, or the network does not fit the shape.
        OptionError: for an unknown option or a value that does not fit.
        MissingExtraError: if the library that a name asks for is absent or broken.
    """
    if num_classes is not None and (isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 1):
        raise ModelError(f"num_classes is {num_classes!r}; expected a positive integer.")
    if input_shape is not None:
        input_shape = tuple(input_shape)
        if not input_shape or any(not isinstance(side, int) or side < 1 for side in input_shape):
            raise ModelError(f"input_shape is {input_shape!r}; expected positive integers such as (3, 32, 32).")
    parsed = ModelName.parse(name)
    weights_seed = derived_seed(seed, "model", "hf" if parsed.place == "hf" else parsed.name)
    with isolated_randomness(weights_seed):
        build = _prepare(parsed, num_classes, input_shape, seed)
        seed_generators(weights_seed)  # importing a module may have drawn
        model = build()
    return model.to(torch.float32).eval()


def _prepare(
    parsed: ModelName, num_classes: int | None, input_shape: tuple[int, ...] | None, seed: int
) -> Callable[[], nn.Module]:
    """Everything up to the drawing of weights."""
    if parsed.place == "network":
        network = configure(parsed.name, NETWORKS[parsed.name], dict(parsed.options))
        return partial(network.build, num_classes or network.default_classes, input_shape or network.default_shape)
    if parsed.place == "callable":
        return prepare_call(parsed.name, num_classes, input_shape, seed)
    if parsed.place == "hf":
        return prepare_folder(parsed.name, num_classes)
    prepare = prepare_timm if parsed.place == "timm" else prepare_torchvision
    return prepare(parsed.name, num_classes, input_shape)
