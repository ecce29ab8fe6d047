"""How initial weights are drawn, and from which generator."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn


@contextmanager
def isolated_randomness(seed: int) -> Iterator[None]:
    """Seeds the CPU generators of torch, numpy and Python for the body, and puts their states back afterwards.

    Module constructors draw from torch's global generator and take no other; foreign constructors may draw from any of
    the three. The default dtype is float32 meanwhile, so that a seed means the same weights everywhere. No accelerator's
    generator is touched.

    Args:
        seed: 0 to 2^63 - 1.
    """
    generator = torch.default_generator
    state, numpy_state, python_state, dtype = (
        generator.get_state(),
        np.random.get_state(),
        random.getstate(),
        torch.get_default_dtype(),
    )
    try:
        seed_generators(seed)
        torch.set_default_dtype(torch.float32)
        yield
    finally:
        generator.set_state(state)
        np.random.set_state(numpy_state)
        random.setstate(python_state)
        torch.set_default_dtype(dtype)


def seed_generators(seed: int) -> None:
    """Seeds the three generators; only for the body of `isolated_randomness`."""
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def draw_uniform(model: nn.Module, bound: float = 0.5) -> None:
    """Redraws every weight and bias from U(-bound, bound), in the order of `parameters()`.

    Source: Zhu, Liu, Han 2019 (DLG), released code, where the bound is 0.5.
    """
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(-bound, bound)


def draw_kaiming(model: nn.Module) -> None:
    """Redraws convolution weights from N(0, 2 / fan_out); everything else stays as PyTorch made it.

    Source: He, Zhang, Ren, Sun 2015, "Delving deep into rectifiers", section 2.2 (backward form).
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
