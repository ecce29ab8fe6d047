"""Observations on disk: bit-exact round trips, missing and other weights, broken and hostile files."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from small_network import SPEC, client_update, network, observed
from torch import Tensor, nn

from leakgauge.core import ImageSpec, LocalTraining, Observation, ThreatModel, Update
from leakgauge.core.files import KEY, client_of
from leakgauge.core.state_files import read_state, state_hash
from leakgauge.core.update import strip_wrappers
from leakgauge.errors import LeakgaugeError, ModelError, OptionError, ShapeError, UpdateError
from leakgauge.randomness import rng


def same(one: Tensor, other: Tensor) -> bool:
    """Equal in dtype, shape and every bit."""
    return one.dtype == other.dtype and one.shape == other.shape and one.numpy().tobytes() == other.numpy().tobytes()


def assert_same(one: Observation, other: Observation) -> None:
    for field in (
        "kind",
        "loss",
        "training",
        "spec",
        "num_examples",
        "defences",
        "withheld",
        "knowledge",
        "threat",
        "model_name",
    ):
        assert getattr(one, field) == getattr(other, field), field
    for field in ("tensors", "buffers"):
        left, right = getattr(one, field), getattr(other, field)
        assert left.keys() == right.keys()
        assert all(same(left[name], right[name]) for name in left)
    assert one.batch_norm.keys() == other.batch_norm.keys()
    for name, entry in one.batch_norm.items():
        found = other.batch_norm[name]
        assert same(entry.mean, found.mean)
        assert same(entry.var, found.var)
        assert (entry.steps, entry.exact) == (found.steps, found.exact)
    assert (one.labels is None) == (other.labels is None)
    assert one.labels is None or other.labels is None or same(one.labels, other.labels)
    assert state_hash(one.model) == state_hash(other.model)


@pytest.mark.parametrize("training", [{}, {"lr": 0.05, "epochs": 2, "batch_size": 3, "mode": "train"}, {"dtype": "float64"}])
@pytest.mark.parametrize("labels", [True, False])
def test_round_trip_is_bit_exact(tmp_path: Path, training: dict[str, Any], labels: bool) -> None:
    model = network()
    seen = observed(model, labels=labels, **training)
    path = tmp_path / "seen.safetensors"
    seen.save(path)
    loaded = Observation.load(path, network(seed=7))
    assert_same(seen, loaded)
    assert not loaded.model.training
    assert [parameter.requires_grad for parameter in loaded.model.parameters()] == [True] * 6
    again = tmp_path / "again.safetensors"
    loaded.save(again)
    assert path.read_bytes() == again.read_bytes()


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 1000),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.float16, torch.bfloat16]),
    power=st.integers(-30, 4),
)
def test_any_finite_values_survive(tmp_path_factory: pytest.TempPathFactory, seed: int, dtype: torch.dtype, power: int) -> None:
    model = nn.Linear(3, 2)
    tensors = {
        name: (torch.randn(parameter.shape, generator=rng(seed, name)) * 10.0**power).to(dtype)
        for name, parameter in model.named_parameters()
    }
    tensors["bias"][0] = -0.0
    seen = ThreatModel.honest_but_curious().observe(Update(tensors, "gradient"), model, None)
    path = tmp_path_factory.mktemp("any") / "seen.safetensors"
    seen.save(path)
    loaded = Observation.load(path, model)
    for name, tensor in seen.tensors.items():
        assert tensor.dtype == dtype
        assert loaded.tensors[name].view(torch.uint8).tolist() == tensor.view(torch.uint8).tolist()


def test_what_is_frozen_survives(tmp_path: Path) -> None:
    model = network()
    model.get_parameter("4.bias").requires_grad_(False)
    observed(model).save(tmp_path / "seen.safetensors")
    loaded = Observation.load(tmp_path / "seen.safetensors", network())
    assert [name for name, parameter in loaded.model.named_parameters() if not parameter.requires_grad] == ["4.bias"]
    assert loaded.withheld == ("4.bias",)


def test_without_state_the_weights_are_asked_for(tmp_path: Path) -> None:
    model, path = network(), tmp_path / "seen.safetensors"
    observed(model).save(path, include_state=False)
    with safe_open(str(path), framework="pt") as file:
        assert not [name for name in file.keys() if name.startswith("state/")]  # noqa: SIM118
    assert_same(Observation.load(path, network()), observed(model))
    with pytest.raises(UpdateError, match="holds only the hash of the model's weights.*--weights FILE"):
        Observation.load(path, network(seed=1))
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    save_file({f"module.{name}": tensor for name, tensor in model.state_dict().items()}, tmp_path / "weights.safetensors")
    for weights in ("weights.pt", "weights.safetensors"):
        assert_same(Observation.load(path, network(seed=1), tmp_path / weights), observed(model))
    torch.save(network(seed=2).state_dict(), tmp_path / "other.pt")
    with pytest.raises(UpdateError, match="are not those that the update in .* was computed at"):
        Observation.load(path, network(), tmp_path / "other.pt")


def test_one_changed_buffer_is_another_state(tmp_path: Path) -> None:
    path, other = tmp_path / "seen.safetensors", network()
    observed().save(path, include_state=False)
    other.get_buffer("1.running_var").add_(1e-6)
    with pytest.raises(UpdateError, match="holds only the hash"):
        Observation.load(path, other)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.999])
def test_truncated_file(tmp_path: Path, share: float) -> None:
    path = tmp_path / "seen.safetensors"
    observed().save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UpdateError, match="cannot be read as safetensors; it is truncated or of another format"):
        Observation.load(path, network())


def test_files_that_are_no_observation(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(UpdateError, match="There is no file"):
        Observation.load(path, network())
    with pytest.raises(UpdateError, match="There is no file"):
        Observation.load(tmp_path, network())
    for content in (pickle.dumps({"a": 1}), pickle.dumps([1], protocol=5)):
        path.write_bytes(content)
        with pytest.raises(UpdateError, match="is a pickle or torch file.*never unpickles"):
            Observation.load(path, network())
    torch.save(network().state_dict(), path)
    with pytest.raises(UpdateError, match="is a pickle or torch file"):
        Observation.load(path, network())
    save_file(network().state_dict(), path)
    with pytest.raises(UpdateError, match="without a leakgauge manifest.*leakgauge pack"):
        Observation.load(path, network())
    path.write_text("hello")
    with pytest.raises(UpdateError, match="cannot be read as safetensors"):
        Observation.load(path, network())


def rewritten(path: Path, change: Any = None, drop: tuple[str, ...] = (), add: dict[str, Tensor] | None = None) -> Path:
    """The file with its manifest changed and tensors dropped or added."""
    with safe_open(str(path), framework="pt") as file:
        manifest = json.loads(file.metadata()[KEY])
        tensors = {name: file.get_tensor(name) for name in file.keys() if name not in drop}  # noqa: SIM118
    if change is not None:
        manifest = change(manifest)
    save_file({**tensors, **(add or {})}, path, metadata={KEY: manifest if isinstance(manifest, str) else json.dumps(manifest)})
    return path


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda manifest: "{not json", UpdateError, "manifest of .* is damaged"),
        (lambda manifest: [1], UpdateError, "without a leakgauge manifest"),
        (lambda manifest: {**manifest, "format": 99}, UpdateError, "format 99; this version reads format 1"),
        (lambda manifest: {key: manifest[key] for key in manifest if key != "kind"}, UpdateError, "damaged .*'kind'"),
        (lambda manifest: {**manifest, "training": {**manifest["training"], "steps": 0}}, OptionError, "steps is 0"),
        (lambda manifest: {**manifest, "training": 3}, UpdateError, "damaged"),
        (lambda manifest: {**manifest, "loss": "os:system"}, UpdateError, "hand that function over as `loss=`"),
        (lambda manifest: {**manifest, "loss": "mystery"}, UpdateError, "'mystery', which this version does not know"),
        (lambda manifest: {**manifest, "spec": {"type": "sound"}}, OptionError, "expected 'image'"),
        (lambda manifest: {**manifest, "knowledge": ["EVERYTHING"]}, UpdateError, "damaged"),
        (lambda manifest: {**manifest, "batch_norm": {"9": {"steps": 1, "exact": True}}}, UpdateError, "damaged"),
        (lambda manifest: {**manifest, "state_sha256": "0"}, UpdateError, "hash differs"),
        (lambda manifest: {**manifest, "kind": "votes"}, UpdateError, "kind"),
        (lambda manifest: {**manifest, "num_examples": 0}, UpdateError, "example"),
        (lambda manifest: {**manifest, "withheld": None}, UpdateError, "damaged"),
    ],
)
def test_damaged_manifest(tmp_path: Path, change: Any, error: type[Exception], words: str) -> None:
    path = tmp_path / "seen.safetensors"
    observed(mode="train").save(path)
    with pytest.raises(error, match=words):
        Observation.load(rewritten(path, change), network())


def test_missing_unknown_and_broken_tensors(tmp_path: Path) -> None:
    path = tmp_path / "seen.safetensors"

    def fresh() -> Path:
        observed().save(path)
        return path

    with pytest.raises(UpdateError, match=r"lacks the tensor\(s\) '4.bias'.*list them as withheld"):
        Observation.load(rewritten(fresh(), drop=("tensor/4.bias",)), network())
    with pytest.raises(UpdateError, match="'9.bias' is no parameter"):
        Observation.load(rewritten(fresh(), add={"tensor/9.bias": torch.zeros(2)}), network())
    with pytest.raises(ShapeError, match=r"'4.bias' of the update has shape \(2,\)"):
        Observation.load(rewritten(fresh(), add={"tensor/4.bias": torch.zeros(2)}), network())
    with pytest.raises(UpdateError, match="Tensor '4.bias' of the update holds 3 value.* NaN"):
        Observation.load(rewritten(fresh(), add={"tensor/4.bias": torch.full((3,), float("nan"))}), network())
    with pytest.raises(UpdateError, match="'1.running_var' of the update's buffers"):
        Observation.load(rewritten(fresh(), add={"buffer/1.running_var": torch.full((3,), float("inf"))}), network())
    with pytest.raises(ModelError, match="missing: 4.bias"):
        Observation.load(rewritten(fresh(), drop=("state/4.bias",)), network())
    loaded = Observation.load(
        rewritten(fresh(), lambda manifest: {**manifest, "withheld": ["4.bias"]}, drop=("tensor/4.bias",)), network()
    )
    assert "4.bias" not in loaded.tensors


def test_another_model_is_named(tmp_path: Path) -> None:
    path = tmp_path / "seen.safetensors"
    observed().save(path)
    with pytest.raises(UpdateError, match="Is it the right model"):
        Observation.load(path, nn.Sequential(nn.Flatten(), nn.Linear(72, 3)))
    more_classes = network()
    more_classes[4] = nn.Linear(48, 10)
    with pytest.raises(ShapeError, match=r"'4.bias' of the update has shape \(3,\); the model's parameter has \(10,\)"):
        Observation.load(path, more_classes)


def test_wrappers_are_stripped() -> None:
    tensors = {"module._orig_mod.a.weight": torch.zeros(1), "_module.module.b": torch.ones(1), "submodule.c": torch.ones(1)}
    assert list(strip_wrappers(tensors)) == ["a.weight", "b", "submodule.c"]
    model = network()
    update = client_update(model)
    wrapped = replace(update, tensors={f"module.{name}": tensor for name, tensor in update.tensors.items()})
    seen = ThreatModel.honest_but_curious().observe(wrapped, model, SPEC)
    assert list(seen.tensors) == [name for name, _ in model.named_parameters()]


def weighted(output: Tensor, target: Tensor) -> Tensor:
    """A loss that a file can name."""
    return nn.functional.cross_entropy(output, target) * 2


def test_a_callable_loss_must_be_handed_over(tmp_path: Path) -> None:
    path, seen = tmp_path / "seen.safetensors", observed()
    replace(seen, loss=weighted).save(path)
    with pytest.raises(UpdateError, match=r"made with the loss '.*:weighted'; hand that function over"):
        Observation.load(path, network())
    assert Observation.load(path, network(), loss=weighted).loss is weighted
    with pytest.raises(UpdateError, match="no import path"):
        replace(seen, loss=lambda output, target: output.sum()).save(path)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UpdateError, match="cannot be written"):
        observed().save(tmp_path / "absent" / "seen.safetensors")


def test_read_state_reads_common_containers(tmp_path: Path) -> None:
    state = network().state_dict()
    for index, container in enumerate((state, {"state_dict": state}, {"model": state, "epoch": 3})):
        torch.save(container, tmp_path / f"{index}.pt")
        assert list(read_state(tmp_path / f"{index}.pt")) == list(state)
    torch.save(list(state.values()), tmp_path / "list.pt")
    assert list(read_state(tmp_path / "list.pt")) == [f"#{index}" for index in range(len(state))]
    for index, wrong in enumerate(({"a": 1}, torch.zeros(3), 7, [1, 2])):
        torch.save(wrong, tmp_path / f"wrong{index}.pt")
        with pytest.raises(UpdateError, match="something else than tensors by name"):
            read_state(tmp_path / f"wrong{index}.pt")


def test_observations_are_checked_in_memory_too() -> None:
    seen = observed()
    broken = {**seen.tensors, "4.bias": torch.tensor([float("inf"), 0.0, 0.0])}
    with pytest.raises(UpdateError, match="'4.bias' of the update holds 1 value"):
        replace(seen, tensors=broken)
    with pytest.raises(UpdateError, match=r"lacks the tensor\(s\) '0.weight'"):
        replace(seen, tensors={name: tensor for name, tensor in seen.tensors.items() if name != "0.weight"})
    assert list(replace(seen, tensors=dict(reversed(seen.tensors.items()))).tensors) == list(seen.tensors)


def test_kind_of_update_and_spec_are_checked() -> None:
    with pytest.raises(OptionError, match="Update.kind is 'votes'; expected one of gradient, delta, weights"):
        Update({}, "votes")
    with pytest.raises(OptionError, match="no loss 'cross_entrop'. Did you mean 'cross_entropy'"):
        Update({}, "gradient", loss="cross_entrop")
    with pytest.raises(OptionError, match="std is 0.0; expected positive"):
        ImageSpec((3, 2, 2), std=0.0)
    with pytest.raises(ShapeError, match=r"shape is \(3, 0, 2\)"):
        ImageSpec((3, 0, 2))
    assert LocalTraining() == LocalTraining()


@pytest.mark.parametrize("value", [None, True, -1, 10**30, 0.5, "x", [], [0], {}, {"a": 1}], ids=repr)
def test_an_entry_of_another_kind_ends_in_a_sentence_or_does_no_harm(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "seen.safetensors"
    observed(mode="train").save(path)
    with safe_open(str(path), framework="pt") as file:
        names = list(json.loads(file.metadata()[KEY]))
    good, refused = path.read_bytes(), 0
    for name in names:
        path.write_bytes(good)
        rewritten(path, lambda manifest, name=name: {**manifest, name: value})
        try:
            client_of(path)
            Observation.load(path, network())
        except LeakgaugeError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused >= 5
