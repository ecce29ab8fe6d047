"""UpdateJacobian: how the shared gradient moves with the picture, as a matrix or as two products."""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch
from torch import Tensor, nn

from leakgauge.core.callables import Loss
from leakgauge.core.spec import ImageSpec
from leakgauge.core.training import LocalTraining
from leakgauge.errors import ModelError, UnsupportedError
from leakgauge.local.derivatives import directional, lacks_derivative
from leakgauge.local.network import Network, Tensors, cast
from leakgauge.local.replay import replay
from leakgauge.randomness import rng

ISOMETRIC = 1e-9  # relative change of length up to which a compressed tangent counts as unchanged
NUMBERS = 20_000_000  # gradient entries in one batch of products

Function = Callable[[Tensor], Tensor]


class UpdateJacobian:
    r"""$J = \partial g / \partial x$ at one picture, in float64: g all gradient entries, x the n pixel values.

    The weight gradient of a linear layer that sees one vector is the outer product $u v^T$ of its output gradient and its
    input. Its derivatives keep their lengths and angles when $(h, d)$ entries are reduced to the $d$ numbers $\hat u^T G$ and
    the $h$ numbers $(I - \hat u \hat u^T) G \hat v$; that is used wherever it holds, which random directions check.

    Args:
        model: any module; it is copied, and used in eval mode.
        pixels: the picture, (*shape), in [0, 1] where `spec` is given, else in model space.
        target: the label as the loss takes it, with one row.
        loss: name or callable.
        spec: turns pixels into model space; None where they are the same.

    Raises:
        ModelError: if no parameter is trained, or the gradient is not finite.
        UnsupportedError: if an operation has no forward-mode derivative.
    """

    def __init__(
        self, model: nn.Module, pixels: Tensor, target: Tensor, loss: Loss = "cross_entropy", spec: ImageSpec | None = None
    ) -> None:
        self.network = Network(model, "eval")
        self.names = self.network.trainable()
        if not self.names:
            raise ModelError("The model has no parameter with requires_grad, so its update is empty.")
        self.parameters = cast(self.network.parameters(), torch.float64)
        self.buffers = cast(self.network.buffers(), torch.float64)
        device = next(iter(self.parameters.values())).device
        self.shape, self.loss, self.spec, self.target = pixels.shape, loss, spec, target.to(device)
        self.point = pixels.detach().to(device, torch.float64).reshape(-1)
        with torch.no_grad():
            gradients = self.gradients(self.point)
        self.entries = sum(tensor.numel() for tensor in gradients.values())
        self.norm = float(torch.stack([tensor.square().sum() for tensor in gradients.values()]).sum().sqrt())
        if not torch.isfinite(torch.tensor(self.norm)):
            raise ModelError("The gradient at the probe is not finite; check the model's weights and the probe's range.")
        self._factors: dict[str, tuple[Tensor, Tensor]] = {}
        self._factors = self._rank_one(gradients)

    @property
    def unknowns(self) -> int:
        """Number of pixel values, n."""
        return len(self.point)

    def inputs(self, point: Tensor) -> Tensor:
        """A flat vector of pixels as the model takes it, (1, *shape)."""
        picture = point.reshape(self.shape)
        return (picture if self.spec is None else self.spec.normalise(picture))[None]

    def gradients(self, point: Tensor) -> Tensors:
        """The gradient that a picture (n,) causes, by parameter name."""
        target = self.target
        if target.is_floating_point():  # its derivative of zero must be a tensor that can be written to
            target = target.to(point) + 0.0 * point.sum()
        return replay(
            self.network,
            self.inputs(point),
            target,
            loss=self.loss,
            training=LocalTraining(),
            parameters=self.parameters,
            buffers=self.buffers,
            graph="func",
        ).tensors

    def parts(self, point: Tensor) -> dict[str, Tensor]:
        """The same as compressed vectors."""
        return self._compressed(self.gradients(point))

    def vector(self, point: Tensor) -> Tensor:
        """The same as one vector, (m,)."""
        return torch.cat(list(self.parts(point).values()))

    @property
    def blocks(self) -> dict[str, slice]:
        """Which rows of the matrix belong to which parameter."""
        found: dict[str, slice] = {}
        start = 0
        for name in self.names:
            found[name] = slice(start, start + self._rows(name))
            start = found[name].stop
        return found

    def _rows(self, name: str) -> int:
        shape = self.parameters[name].shape
        return sum(shape) if name in self._factors else shape.numel()

    @property
    def equations(self) -> int:
        """Number of rows after compression, m."""
        return sum(self._rows(name) for name in self.names)

    def matrix(self) -> Tensor:
        """J by forward-mode derivatives along every pixel, (m, n)."""
        return dense(self.vector, self.point, self.entries)

    def gram_products(self, vectors: Tensor) -> Tensor:
        """J^T J v for each row v, by one forward-mode and one reverse-mode product each; (k, n) to (k, n)."""

        def product(direction: Tensor) -> Tensor:
            tangent = directional(self.vector, self.point, direction)
            pull = torch.func.vjp(self.vector, self.point)[1]
            found: Tensor = pull(tangent)[0]
            return found

        return _batched(product, vectors, self.entries)

    def _compressed(self, tensors: Tensors) -> dict[str, Tensor]:
        found = {}
        for name in self.names:
            tensor = tensors[name]
            if name in self._factors:
                left, right = self._factors[name]
                along = left @ tensor
                tensor = torch.cat([along, tensor @ right - left * (along @ right)])
            found[name] = tensor.reshape(-1)
        return found

    def _rank_one(self, gradients: Tensors) -> dict[str, tuple[Tensor, Tensor]]:
        """Unit factors of the weight gradients that are outer products wherever the picture moves."""
        candidates = {}
        for name, tensor in gradients.items():
            if tensor.ndim == 2 and min(tensor.shape) > 1 and bool(tensor.any()):
                left = tensor[:, tensor.square().sum(0).argmax()]
                left = left / left.norm()
                right = left @ tensor
                candidates[name] = (left, right / right.norm())
        if not candidates:
            return {}
        generator = rng(0, "leakage score", "compression")
        for _ in range(2):
            direction = torch.randn(self.unknowns, generator=generator, dtype=torch.float64).to(self.point)
            with forward_mode():
                tangents = directional(self.gradients, self.point, direction)
            self._factors = candidates
            reduced = self._compressed(tangents)
            self._factors = {}
            candidates = {
                name: pair
                for name, pair in candidates.items()
                if abs(float(reduced[name].norm() - tangents[name].norm())) <= ISOMETRIC * float(tangents[name].norm())
            }
        return candidates


def dense(function: Function, point: Tensor, numbers: int) -> Tensor:
    """The Jacobian of a function at a point (n,), (m, n); `numbers` is what one product needs to hold."""

    def product(direction: Tensor) -> Tensor:
        return directional(function, point, direction)

    return _batched(product, torch.eye(len(point), dtype=point.dtype, device=point.device), numbers).T


def _batched(product: Function, vectors: Tensor, numbers: int) -> Tensor:
    chunk = max(1, min(256, NUMBERS // max(numbers, len(vectors))))
    with torch.no_grad(), forward_mode():
        return torch.cat([torch.func.vmap(product)(part) for part in torch.split(vectors, chunk)])


class forward_mode:
    """Turns torch's report of a missing forward-mode derivative into an UnsupportedError."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None and lacks_derivative(error):
            raise UnsupportedError(
                "The leakage score needs forward-mode derivatives, and the network has an operation without them: "
                f"{str(error).splitlines()[0]}"
            ) from error


def rows_of(blocks: dict[str, slice], names: Collection[str]) -> list[int]:
    """The rows of the matrix that belong to the parameters named."""
    return [row for name, block in blocks.items() if name in names for row in range(block.start, block.stop)]
