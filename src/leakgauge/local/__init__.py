"""What a client computes: the protocol, the pure replay of local training, losses, BatchNorm bookkeeping."""

from leakgauge.core.training import LocalTraining
from leakgauge.local.losses import loss_value
from leakgauge.local.network import Network
from leakgauge.local.replay import Replayed, draw_order, replay

__all__ = ["LocalTraining", "Network", "Replayed", "draw_order", "loss_value", "replay"]
