"""The table of likely causes of a mismatch, the simplest first. A new cause is a new row."""

from __future__ import annotations

from leakgauge.core.observation import Observation
from leakgauge.federated.validation import causes_optimiser as optimiser
from leakgauge.federated.validation import causes_protocol as protocol
from leakgauge.federated.validation import causes_tensors as tensors
from leakgauge.federated.validation.trial import Hypothesis

HYPOTHESES: tuple[Hypothesis, ...] = (
    Hypothesis("private noise", optimiser.private_noise),
    Hypothesis("mode", protocol.other_mode),
    Hypothesis("reduction", protocol.other_reduction),
    Hypothesis("factor", tensors.named_factor),
    Hypothesis("weights shared", tensors.weights_shared),
    Hypothesis("clipping", tensors.clipped_once),
    Hypothesis("constant factor", tensors.any_factor),
    Hypothesis("tensors exchanged", tensors.tensors_exchanged),
    Hypothesis("rounding", tensors.rounded_to_16_bit),
    Hypothesis("pruning", tensors.pruned),
    Hypothesis("weights", protocol.other_weights),
    Hypothesis("inputs", protocol.other_inputs),
    Hypothesis("loss", protocol.other_loss),
    Hypothesis("loss scale", optimiser.loss_scale),
    Hypothesis("rounding in Adam", optimiser.rounding_in_adam),
    Hypothesis("optimiser", protocol.other_optimiser),
    Hypothesis("AMSGrad", optimiser.amsgrad),
    Hypothesis("epsilon", optimiser.other_epsilon),
    Hypothesis("dampening", optimiser.dampened),
    Hypothesis("weight decay of some", optimiser.decay_of_some),
    Hypothesis("order", protocol.other_order),
    Hypothesis("steps", protocol.other_steps),
    Hypothesis("weight decay of a gradient", protocol.decayed_gradient),
    Hypothesis(
        "weight decay",
        protocol.fitted(
            "weight_decay", "weight decay was {value}, not {declared} as the protocol says", (0.0, 5e-4, 1e-2, 0.1), 10.0
        ),
    ),
    Hypothesis(
        "label smoothing",
        protocol.fitted(
            "label_smoothing", "label smoothing was {value}, not {declared} as the protocol says", (0.0, 0.1, 0.2, 0.05), 0.99
        ),
    ),
    Hypothesis(
        "momentum", protocol.fitted("momentum", "momentum was {value}, not {declared}", (0.9, 0.5), 0.999, nesterov=False)
    ),
    Hypothesis(
        "Nesterov momentum",
        protocol.fitted("momentum", "Nesterov momentum was {value}, not momentum {declared}", (0.9, 0.5), 0.999, nesterov=True),
    ),
    Hypothesis("no momentum", protocol.fitted("momentum", "momentum was none, not {declared}", (0.0,), 0.0, nesterov=False)),
    Hypothesis(
        "clipping of each step",
        protocol.fitted("clip_norm", "gradients were clipped to the norm {value}, not {declared}", (0.0, 1.0, 0.5, 0.1), 1e6),
    ),
    Hypothesis(
        "proximal term",
        protocol.fitted(
            "proximal", "the proximal term was {value}, not {declared} as the protocol says", (0.0, 0.01, 0.1, 1.0), 100.0
        ),
    ),
    Hypothesis(
        "learning rate", protocol.fitted("lr", "the learning rate was {value}, not {declared}", (0.1, 0.01, 0.001, 1.0), 100.0)
    ),
    Hypothesis("dropout off", protocol.without_dropout),
    Hypothesis("noise", tensors.white_noise),
)

DROPOUT = (
    "dropout is active in train mode, so the update depends on draws that were not shared and cannot be recomputed; "
    "validate with dropout off"
)
NOTED = "no single cause found, but the recorder noted what the protocol cannot say: "
NOTHING_FITS = "no single cause found; other weights or another batch are likely"


def has_dropout(seen: Observation) -> bool:
    """Whether the declared protocol makes random draws in the network itself."""
    return seen.training.mode == "train" and protocol.has_dropout(seen.model)
