"""Link and Chain: a network as a row of steps between places where all information passes through one tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from leakgauge.chain.activations import Activation
from leakgauge.chain.geometry import ConvGeometry
from leakgauge.errors import UnsupportedError

State = Mapping[str, Tensor]  # parameters and buffers by their names in the model
KINDS = ("conv", "linear", "activation", "affine", "pool", "reshape", "identity", "block", "join", "unsupported")


@dataclass(frozen=True)
class Link:
    """One step of a chain.

    Args:
        name: of the module in the network, or of the traced operation ('add', 'flatten').
        kind: 'conv' and 'linear' carry weights; 'activation' acts on each value; 'affine' scales and shifts each value
            (BatchNorm in eval mode); 'pool', 'reshape' and 'identity' are linear without weights; 'block' is a part with
            side branches (a residual block), its links in `inner`; 'join' adds branches inside a block.
        type: the module's class or the operation, for people.
        input_shape, output_shape: without the batch.
        function: (inputs with a batch of one, state) -> outputs.
        parameters: names of its parameters in the model.
        module: the module, where it is one.
        geometry: of a convolution.
        activation: of an activation.
        inner: the links of a block in the order they are computed.
        reason: why closed forms cannot treat it; '' if they can.
    """

    name: str
    kind: str
    type: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    function: Callable[[Tensor, State], Tensor] = field(repr=False)
    parameters: tuple[str, ...] = ()
    module: nn.Module | None = field(default=None, repr=False)
    geometry: ConvGeometry | None = None
    activation: Activation | None = None
    inner: tuple[Link, ...] = ()
    reason: str = ""

    @property
    def weight(self) -> str | None:
        """Name of its weight in the model; None for a link without one."""
        return next((name for name in self.parameters if name.rpartition(".")[2] == "weight"), None)

    @property
    def bias(self) -> str | None:
        """Name of its bias in the model; None for a link without one."""
        return next((name for name in self.parameters if name.rpartition(".")[2] == "bias"), None)


@dataclass(frozen=True)
class Chain:
    """A network from its input to its output.

    Args:
        links: input side first.
        input_shape: of one example, without the batch.
        reasons: every layer that closed forms cannot treat, with why; empty if there is none.
    """

    links: tuple[Link, ...]
    input_shape: tuple[int, ...]
    reasons: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.links)

    def walk(self) -> Iterator[Link]:
        """All links, those inside blocks instead of the blocks."""
        for link in self.links:
            yield from link.inner or (link,)

    def run(self, inputs: Tensor, state: State, first: int = 0, last: int | None = None) -> Tensor:
        """Applies the links first..last-1 to (1, *shape)."""
        for link in self.links[first:last]:
            inputs = link.function(inputs, state)
        return inputs

    def require(self, method: str, instead: str) -> None:
        """Raises if any layer cannot be treated.

        Args:
            method: who asks.
            instead: what to do about it, a sentence.

        Raises:
            UnsupportedError: with every reason at once.
        """
        if self.reasons:
            raise UnsupportedError(f"{method} cannot treat this network: {'; '.join(self.reasons)}. {instead}")
