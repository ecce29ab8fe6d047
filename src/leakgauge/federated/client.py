"""Client: trains on its private batch and returns an update."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from leakgauge.core.callables import Loss, check_loss, loss_on
from leakgauge.core.training import LocalTraining
from leakgauge.core.update import Update
from leakgauge.defences.base import Defence, TrainingDefence
from leakgauge.errors import OptionError, UpdateError
from leakgauge.local.network import Inputs, Network, cast
from leakgauge.local.private import GradientNoise
from leakgauge.local.replay import draw_order, replay
from leakgauge.randomness import derived_seed, rng
from leakgauge.truth.batch import Batch


@dataclass(frozen=True)
class Client:
    """One participant: the received model, the loss and the local training protocol.

    Args:
        model: the module as received; never changed. Parameters with requires_grad False are not trained and not shared.
        loss: 'cross_entropy' (for a causal language model with the shift by one token), 'binary_cross_entropy', 'mse', or a
            callable (output, target) -> scalar.
        training: the protocol.
        defences: those of stage 'training' (at most one) act inside local training; those of stage 'update' are then applied
            in order to the update before it is returned.
        withhold: names of parameters that stay with the client (partial sharing).
    """

    model: nn.Module = field(repr=False)
    loss: Loss = "cross_entropy"
    training: LocalTraining = LocalTraining()  # noqa: RUF009 - frozen
    defences: tuple[Defence, ...] = ()
    withhold: tuple[str, ...] = ()

    def train(self, batch: Batch, seed: int = 0) -> Update:
        """Runs local training on the batch and returns what the client shares.

        Args:
            batch: the private examples.
            seed: of mini-batch order, dropout and the client's own defences.

        Returns:
            An update of kind 'gradient' when `training.lr` is None, else 'delta'.

        Raises:
            OptionError: for an unknown loss, a withheld name that is no parameter, or defences that do not belong here.
            UnsupportedError: for DP-SGD where BatchNorm in train mode mixes examples.
            UpdateError: if the loss is not finite.
        """
        check_loss(self.loss)
        loss = loss_on(self.loss, batch.spec)
        inside = self._training_defence()
        noise = None
        if inside is not None:
            noise = GradientNoise(inside[1].noise_std, rng(seed, "client", "defence", inside[0]))
        dtype = getattr(torch, self.training.dtype)
        network = Network(self.model, self.training.mode)
        unknown = set(self.withhold) - set(network.parameters())
        if unknown:
            raise OptionError(f"Client.withhold names {sorted(unknown)[0]!r}, which is no parameter of the model.")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed(seed, "client", "dropout"))
            result = replay(
                network,
                _cast_inputs(batch.model_inputs, dtype),
                batch.model_labels,
                loss=loss,
                training=self.training,
                order=draw_order(self.training, len(batch), rng(seed, "client", "order")),
                parameters=cast(network.parameters(), dtype),
                buffers=cast(network.buffers(), dtype),
                graph="none",
                example_clip=None if inside is None else inside[1].example_clip,
                noise=noise,
            )
        if not bool(torch.isfinite(result.losses).all()):
            step = int((~torch.isfinite(result.losses)).nonzero()[0])
            raise UpdateError(f"The client's loss is not finite at step {step + 1}; expected a finite number.")
        frozen = tuple(name for name in network.parameters() if name not in result.tensors)
        update = Update(
            tensors={name: tensor for name, tensor in result.tensors.items() if name not in self.withhold},
            kind=self.training.kind,
            buffers=result.buffers,
            loss=loss,
            training=self.training,
            num_examples=len(batch),
            labels=batch.model_labels,
            client_seed=seed,
            withheld=frozen + tuple(name for name in self.withhold if name not in frozen),
            defences=() if inside is None else (inside[1].record(),),
        )
        for index, defence in enumerate(self.defences):
            if defence.stage == "update":
                update = defence.protect(update, generator=rng(seed, "client", "defence", index))
        return update

    def _training_defence(self) -> tuple[int, TrainingDefence] | None:
        """The defence that acts inside local training, with its place in `defences`; None without one."""
        found: list[tuple[int, TrainingDefence]] = []
        for index, defence in enumerate(self.defences):
            if isinstance(defence, TrainingDefence):
                found.append((index, defence))
            elif defence.stage != "update":
                raise OptionError(
                    f"Client.defences holds {type(defence).__name__}, which belongs to the {defence.stage}: a client can apply "
                    "defences of the stages 'training' and 'update' only."
                )
        if len(found) > 1:
            raise OptionError("Client.defences holds more than one defence of stage 'training'; expected one at most.")
        return found[0] if found else None


def _cast_inputs(inputs: Inputs, dtype: torch.dtype) -> Inputs:
    if isinstance(inputs, Tensor):
        return inputs.to(dtype) if inputs.is_floating_point() else inputs
    return cast(inputs, dtype)
