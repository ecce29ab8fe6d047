"""What server and clients share: the network; and what only a client has: its private digits."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from leakgauge.audit.guard.probe import Private
from leakgauge.data import load_data
from leakgauge.models import load_model
from leakgauge.truth import Batch

MODEL, CLASSES, SHAPE = "shallow-resnet:width=16", 10, (1, 16, 16)  # three BatchNorm layers
LR, BATCH_SIZE = 0.01, 2
DIGITS = {"site-1": "0", "site-2": "1-4"}  # one private picture, and four in mini-batches of two


class Net(nn.Sequential):
    """The network as a class, which is what an NVFlare job wants; its state dict is that of MODEL."""

    def __init__(self) -> None:
        super().__init__(OrderedDict(load_model(MODEL, CLASSES, SHAPE, seed=0).named_children()))


def examples(site: str) -> Batch:
    """The site's private digits, with the order in which its mini-batches take them."""
    found = load_data(f"demo:digits?indices={DIGITS[site]}&size={SHAPE[1]}")
    order = tuple((tuple(rows.tolist()),) for rows in torch.arange(len(found)).split(BATCH_SIZE))
    return Batch(found.inputs, found.labels, found.spec, found.names, order)


def private(site: str, round_index: int) -> Private:  # noqa: ARG001 - see below
    """What leakgauge scores against on the client's own machine: the batch, and other digits as decoys.

    Every round trains on the same digits here; a client that draws others would return those of `round_index`.
    """
    others = load_data(f"demo:digits?indices=100-199&size={SHAPE[1]}")
    batch = examples(site)
    same_class = torch.isin(others.labels, batch.labels)
    return Private(batch, decoys=others.inputs[same_class])
