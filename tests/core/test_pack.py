"""Real files into observations: state dicts, gradients, lists of arrays, hostile and broken ones."""

from __future__ import annotations

import copy
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from small_network import SPEC, batch, client_update, network
from torch import Tensor, nn

from leakgauge.core import LocalTraining, Observation
from leakgauge.core.pack import pack
from leakgauge.core.protocol_file import protocol_from_toml
from leakgauge.errors import LeakgaugeError, ModelError, OptionError, ShapeError, UpdateError

DELTA = LocalTraining(lr=0.1, steps=2, mode="train")


def trained(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """State dicts before and after an ordinary training loop, as a federated system would save them."""
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model, data = copy.deepcopy(model).train(), batch()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(data.inputs), data.labels).backward()
        optimiser.step()
    return before, {name: tensor.clone() for name, tensor in model.state_dict().items()}


def packed(model: nn.Module, **sources: Any) -> Observation:
    return pack(model, **({"training": DELTA, "spec": SPEC, "num_examples": 4} | sources))


def test_state_dicts_before_and_after_equal_our_own_client(tmp_path: Path) -> None:
    model = network()
    before, after = trained(model)
    torch.save(before, tmp_path / "before.pt")
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in after.items()}}, tmp_path / "after.pth")
    save_file(before, tmp_path / "before.safetensors")
    expected = client_update(model, lr=0.1, steps=2, mode="train")
    for source in (tmp_path / "before.pt", str(tmp_path / "before.safetensors"), before):
        seen = packed(network(seed=9), before=source, after=tmp_path / "after.pth", model_name="mine")
        assert seen.kind == "delta"
        assert seen.labels is None
        assert seen.model_name == "mine"
        for name, tensor in seen.model.state_dict().items():
            assert torch.equal(tensor, before[name]), "the state must be that of the file, not that of the given model"
        for name, tensor in expected.tensors.items():
            torch.testing.assert_close(seen.tensors[name], tensor, rtol=1e-3, atol=1e-6)
        assert list(seen.batch_norm) == ["1"]
        assert seen.batch_norm["1"].steps == 2


def test_a_gradient_needs_no_before(tmp_path: Path) -> None:
    model = network(norm=False)
    gradient = client_update(model).tensors
    save_file(dict(gradient), tmp_path / "gradient.safetensors")
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    plain = LocalTraining()
    seen = packed(model, gradient=tmp_path / "gradient.safetensors", training=plain, labels=[0, 1, 2, 0])
    assert seen.kind == "gradient"
    assert seen.labels is not None
    assert seen.labels.tolist() == [0, 1, 2, 0]
    other = packed(network(5, norm=False), gradient=gradient, training=plain, weights=tmp_path / "weights.pt")
    for name, tensor in model.state_dict().items():
        assert torch.equal(other.model.state_dict()[name], tensor)
    for name, tensor in gradient.items():
        assert torch.equal(seen.tensors[name], tensor)


def test_unnamed_lists_are_matched_in_verified_order(tmp_path: Path) -> None:
    model = network()
    before, after = trained(model)
    wanted = packed(model, before=before, after=after)
    torch.save(list(before.values()), tmp_path / "before.pt")
    by_state = packed(model, before=tmp_path / "before.pt", after=[tensor.numpy() for tensor in after.values()])
    by_parameter = packed(model, before=before, after=[after[name] for name, _ in model.named_parameters()])
    for seen in (by_state, by_parameter):
        for name, tensor in wanted.tensors.items():
            assert torch.equal(seen.tensors[name], tensor)
    assert by_state.batch_norm
    assert not by_parameter.batch_norm
    with pytest.raises(UpdateError, match=r"8 tensors without names.*9 entries of the state dict, 6 parameters"):
        packed(model, before=list(before.values())[:-1], after=after)
    turned = list(before.values())
    turned[0], turned[1] = turned[1], turned[0]
    with pytest.raises(UpdateError, match=r"first that differs is number 0 of entries of the state dict: \(3,\)"):
        packed(model, before=turned, after=after)


def test_after_may_hold_only_what_was_trained() -> None:
    model = network()
    before, after = trained(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("4."))
    seen = packed(model, before=before, after={name: after[name] for name in ("4.weight", "4.bias")})
    assert list(seen.tensors) == ["4.weight", "4.bias"]
    assert set(seen.withheld) == {"0.weight", "0.bias", "1.weight", "1.bias"}
    whole = packed(model, before=before, after={**before, "4.weight": after["4.weight"], "4.bias": after["4.bias"]})
    assert list(whole.tensors) == ["4.weight", "4.bias"]


def test_withheld_tensors_are_declared_and_others_are_missed() -> None:
    before, after = trained(network())
    short = {name: tensor for name, tensor in after.items() if name != "4.bias"}
    assert "4.bias" not in packed(network(), before=before, after=short, withheld=["4.bias"]).tensors
    assert "4.bias" not in packed(network(), before=before, after=after, withheld=["4.bias"]).tensors
    with pytest.raises(UpdateError, match=r"lacks the tensor\(s\) '4.bias'"):
        packed(network(), before=before, after=short)


def test_buffers_missing_before_are_an_error_only_where_they_matter() -> None:
    model = network()
    before, after = trained(model)
    bare = {name: before[name] for name, _ in model.named_parameters()}
    assert packed(model, before=bare, after=after).batch_norm
    evaluated = LocalTraining(lr=0.1, mode="eval")
    with pytest.raises(UpdateError, match="lack the buffer '1.running_mean', which a client in eval mode uses"):
        packed(model, before=bare, after=after, training=evaluated)
    assert packed(model, before=bare, after=after, training=evaluated, weights=before).kind == "delta"


class Payload:
    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.place),)


@pytest.mark.parametrize("how", ["pickle", "torch", "old torch", "nested"])
def test_a_hostile_pickle_never_runs(tmp_path: Path, how: str) -> None:
    _, after = trained(network())
    place, file = tmp_path / "executed", tmp_path / "before.pt"
    payload = {**network().state_dict(), "extra": Payload(place)}
    if how == "pickle":
        file.write_bytes(pickle.dumps(payload))
    elif how == "nested":
        torch.save({"state_dict": payload}, file)
    else:
        torch.save(payload, file, _use_new_zipfile_serialization=how == "torch")
    with pytest.raises(UpdateError, match="never loads"):
        packed(network(), before=file, after=after)
    assert not place.exists()


@pytest.mark.parametrize("kind", ["pt", "safetensors"])
def test_truncated_and_missing_files(tmp_path: Path, kind: str) -> None:
    before, after = trained(network())
    whole = tmp_path / f"whole.{kind}"
    torch.save(before, whole) if kind == "pt" else save_file(before, whole)
    content = whole.read_bytes()
    for share in (0.0, 0.02, 0.5, 0.99):
        broken = tmp_path / f"broken.{kind}"
        broken.write_bytes(content[: int(share * len(content))])
        with pytest.raises(UpdateError, match="broken"):
            packed(network(), before=broken, after=after)
    with pytest.raises(UpdateError, match="There is no file"):
        packed(network(), before=tmp_path / "absent.pt", after=after)


def edited(source: dict[str, Tensor], **changes: Tensor | None) -> dict[str, Tensor]:
    changed = {name.replace("_", "."): tensor for name, tensor in changes.items()}
    return {name: tensor for name, tensor in {**source, **changed}.items() if tensor is not None}


def test_sentences() -> None:
    model = network()
    before, after = trained(model)
    nan = after["4.bias"].clone()
    nan[0] = float("nan")
    off, five, whole = before["4.bias"], torch.zeros(5), torch.zeros(3, dtype=torch.long)

    def early(name: str, tensor: Tensor | None) -> dict[str, Any]:
        return {"before": edited(before, **{name: tensor}), "after": after}

    def late(name: str, tensor: Tensor | None) -> dict[str, Any]:
        return {"before": before, "after": edited(after, **{name: tensor})}

    both = {"before": before, "after": after}
    cases: list[tuple[type[LeakgaugeError], str, dict[str, Any]]] = [
        (UpdateError, "before and after are identical", {"before": before, "after": before}),
        (UpdateError, "'4.bias' of the weights after holds 1 value", late("4_bias", nan)),
        (UpdateError, "'4.bias' of the weights before holds", early("4_bias", nan)),
        (ModelError, "missing: 4.bias", early("4_bias", None)),
        (ModelError, "unknown: 7.bias", early("7_bias", off)),
        (ModelError, "'7.bias', which the model does not have", late("7_bias", off)),
        (ShapeError, "'4.bias'.*has shape", early("4_bias", five)),
        (ShapeError, "'4.bias'.*has shape", late("4_bias", five)),
        (UpdateError, "expected floating-point", early("4_bias", whole)),
        (UpdateError, "is a str; expected a tensor", {"before": {"4.bias": "text"}, "after": after}),
        (UpdateError, "no tensor at all", {"before": {}, "after": after}),
        (OptionError, "Give either", {"before": before}),
        (OptionError, "Give either", {**both, "gradient": after}),
        (OptionError, "no learning rate", {**both, "training": LocalTraining()}),
        (OptionError, "learning rate 0.1; leave lr out", {"gradient": before}),
        (UpdateError, "'1.running_mean', which is no parameter", {"gradient": before, "training": LocalTraining()}),
        (OptionError, "num_examples is 0", {**both, "num_examples": 0}),
        (ShapeError, "2 labels for 4", {**both, "labels": [1, 2]}),
    ]
    for error, words, sources in cases:
        with pytest.raises(error, match=words):
            packed(network(), **sources)


def test_protocol_file(tmp_path: Path) -> None:
    path = tmp_path / "P.toml"
    path.write_text(
        'num_examples = 4\nloss = "mse"\nlabels = [0, 1, 2, 0]\nwithheld = ["4.bias"]\nmodel = "small"\n'
        '[training]\nlr = 0.1\nsteps = 2\nmode = "train"\nschedule = [1, 0.5]\n'
        "[spec]\nshape = [2, 6, 6]\nmean = [0.4, 0.5]\nstd = 0.3\n"
    )
    found = protocol_from_toml(path)
    assert found.training == LocalTraining(lr=0.1, steps=2, mode="train", schedule=(1.0, 0.5))
    assert found.spec is not None
    assert (found.spec.shape, found.spec.mean, found.spec.std) == ((2, 6, 6), (0.4, 0.5), 0.3)
    assert (found.num_examples, found.loss, found.withheld, found.model) == (4, "mse", ("4.bias",), "small")
    assert found.labels is not None
    assert found.labels.tolist() == [0, 1, 2, 0]
    path.write_text('lr = 0.1\nsteps = 2\nmode = "train"\nnum_examples = 4\nshape = [2, 6, 6]\n')
    flat = protocol_from_toml(str(path))
    assert flat.training == LocalTraining(lr=0.1, steps=2, mode="train")
    assert flat.spec is not None
    path.write_text("")
    assert protocol_from_toml(path).training == LocalTraining()


@pytest.mark.parametrize(
    ("error", "text", "words"),
    [
        (UpdateError, "lr = 0.1\nsteps = = 2\n", "not TOML: .*line 2"),
        (OptionError, "learning_rate = 0.1\nlrr = 1", "unknown key 'learning_rate'"),
        (OptionError, "[training]\nmomentun = 0.9", r"\[training\] of .*unknown key 'momentun'. Did you mean 'momentum'"),
        (OptionError, "lr = 0.1\n[training]\nlr = 0.2", "gives 'lr' twice"),
        (OptionError, "training = 3", r"expected a table, \[training\]"),
        (OptionError, "lr = 'fast'", "LocalTraining.lr is 'fast'"),
        (OptionError, "num_examples = 0", "num_examples = 0; expected a whole number"),
        (OptionError, "loss = 'cross_entrpy'", "Did you mean 'cross_entropy'"),
        (OptionError, "loss = 'os:system'", "never names code to run"),
        (OptionError, "labels = 'cat'", "labels = 'cat'; expected a list"),
        (OptionError, "withheld = 'fc.bias'", "expected a list of parameter names"),
        (OptionError, "mean = 0.5", "without a shape"),
        (OptionError, "shape = '3x32x32'", r"expected \[C, H, W\]"),
        (ShapeError, "shape = [3, 32]", "three positive integers"),
        (OptionError, "shape = [3, 2, 2]\nstd = 'a'", "std = 'a'; expected a number"),
        (OptionError, "shape = [3, 2, 2]\nmean = [0.1, 0.2]", "has 2 entries"),
        (OptionError, "model = 3", "model = 3; expected a name"),
    ],
)
def test_protocol_file_sentences(tmp_path: Path, error: type[LeakgaugeError], text: str, words: str) -> None:
    path = tmp_path / "P.toml"
    path.write_text(text)
    with pytest.raises(error, match=words):
        protocol_from_toml(path)
    with pytest.raises(UpdateError, match="cannot be read"):
        protocol_from_toml(tmp_path / "absent.toml")
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UpdateError, match="not text in UTF-8"):
        protocol_from_toml(path)
