"""From MODEL and a file to the network that fits: classes where they are not given, and whether it takes the input at all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from leakgauge.errors import LeakgaugeError, ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from leakgauge.core.observation import Observation
    from leakgauge.truth import Batch


def observation_and_model(
    path: str, model: str, *, weights: str | None, classes: int | None, seed: int
) -> tuple[Observation, nn.Module]:
    """A saved observation, and the network that MODEL names, built for the observation's input shape.

    Without `classes` the number is taken from the file where the network's own default does not fit.
    """
    from leakgauge.core.files import _part, _read, load_observation
    from leakgauge.core.spec import ImageSpec, spec_from_json
    from leakgauge.core.update import strip_wrappers

    manifest, tensors = _read(Path(path))
    try:
        spec = spec_from_json(manifest["spec"]) if manifest.get("spec") else None
    except (KeyError, TypeError, ValueError) as error:
        from leakgauge.errors import UpdateError

        raise UpdateError(f"The manifest of {path} is damaged ({type(error).__name__}: {error}).") from error
    shape = spec.shape if isinstance(spec, ImageSpec) else None
    built = fitted_model(model, strip_wrappers(_part(tensors, "tensor/")), shape, classes=classes, seed=seed)
    return load_observation(path, built, weights), built


def fitted_model(
    model: str, tensors: Mapping[str, Tensor], shape: tuple[int, int, int] | None, *, classes: int | None, seed: int
) -> nn.Module:
    """The network that MODEL names; without `classes`, with as many as the tensors of an update show."""
    from leakgauge.models import load_model

    built = load_model(model, num_classes=classes, input_shape=shape, seed=seed)
    if classes is not None:
        return built
    wanted = _classes_in(built, tensors)
    if wanted is None:
        return built
    try:
        other = load_model(model, num_classes=wanted, input_shape=shape, seed=seed)
    except LeakgaugeError:
        return built
    return other if _classes_in(other, tensors) is None and _agree(other, tensors) else built


def _classes_in(model: nn.Module, tensors: Mapping[str, Tensor]) -> int | None:
    """The one first dimension that the differing tensors share, where they differ in nothing else; None otherwise."""
    sizes = set()
    for name, parameter in model.named_parameters():
        tensor = tensors.get(name)
        if tensor is not None and tensor.shape != parameter.shape:
            if tensor.ndim == 0 or tensor.shape[1:] != parameter.shape[1:]:
                return None
            sizes.add(int(tensor.shape[0]))
    return sizes.pop() if len(sizes) == 1 else None


def _agree(model: nn.Module, tensors: Mapping[str, Tensor]) -> bool:
    parameters = dict(model.named_parameters())
    return all(name in parameters and parameters[name].shape == tensor.shape for name, tensor in tensors.items())


def outputs_of(model: nn.Module, name: str, shape: tuple[int, ...]) -> int:
    """Number of outputs; raises ModelError where the network does not take inputs of this shape, or its output is no (N, K)."""
    from leakgauge.audit import networks

    return networks.outputs_of(model, name, shape)


def check_labels(batch: Batch, outputs: int, loss: str, name: str) -> None:
    """Raises ModelError where a label has no output."""
    from leakgauge.audit.networks import label_problem

    problem = label_problem(batch, outputs, loss, name, "--classes ")
    if problem:
        raise ModelError(problem)


def load_weights(model: nn.Module, weights: str | None) -> None:
    """Loads a state dict into the network, in place, where one is given."""
    if weights is not None:
        from leakgauge.core.state_files import load_state, read_state

        load_state(model, read_state(weights), weights)


def state_in_words(name: str, model: nn.Module, seen_model: nn.Module, given: str | None) -> str:
    """'untrained' where the weights are those a named network starts with, else 'as given'."""
    from leakgauge.core.state_files import state_hash
    from leakgauge.models import ModelName
    from leakgauge.models.huggingface import holds_weights

    if given:
        return given
    parsed = ModelName.parse(name)
    fresh = parsed.place in ("network", "timm", "torchvision") or (parsed.place == "hf" and not holds_weights(parsed.name))
    return "untrained" if fresh and state_hash(model) == state_hash(seen_model) else "as given"
