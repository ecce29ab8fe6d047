"""Files as the installed engines write them, read back bit for bit, without unpickling; broken and hostile ones in a sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from small_network import SPEC, network
from torch import Tensor, nn

from leakgauge.core import LocalTraining
from leakgauge.core.files import read_state
from leakgauge.core.pack import pack, read_source
from leakgauge.errors import UpdateError

State = dict[str, Tensor]


def state(seed: int = 0) -> State:
    """A state dict with odd values: negative zero, the smallest number, a counter."""
    found = {name: tensor.clone() for name, tensor in network(seed=seed).state_dict().items()}
    first = next(iter(found))
    found[first].view(-1)[:2] = torch.tensor([-0.0, 2.0**-149])
    return found


def assert_same_bits(found: State, expected: State) -> None:
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
        assert found[name].numpy().tobytes() == tensor.numpy().tobytes(), name


def flower_record(values: State, path: Path) -> None:
    from flwr.app import ArrayRecord
    from flwr.common.serde import array_record_to_proto

    path.write_bytes(array_record_to_proto(ArrayRecord(values)).SerializeToString())


def flower_record_dict(values: State, path: Path) -> None:
    from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
    from flwr.common.serde import recorddict_to_proto

    records = RecordDict(
        {"config": ConfigRecord({"lr": 0.1}), "arrays": ArrayRecord(values), "metrics": MetricRecord({"num-examples": 3})}
    )
    path.write_bytes(recorddict_to_proto(records).SerializeToString())


def flower_torch(values: State, path: Path) -> None:
    from flwr.app import ArrayRecord

    torch.save(ArrayRecord(values).to_torch_state_dict(), path)


def nvflare_model(values: State, path: Path) -> None:
    from nvflare.app_opt.pt.file_model_persistor import PTFileModelPersistor
    from nvflare.app_opt.pt.model_persistence_format_manager import PTModelPersistenceFormatManager

    persistor = PTFileModelPersistor(model=network())
    arrays = {name: tensor.numpy() for name, tensor in values.items()}  # as the aggregator hands them over
    conf = {"train": {"model": "Sequential"}}
    persistor.persistence_manager = PTModelPersistenceFormatManager(arrays, default_train_conf=conf)
    persistor.save_model_file(str(path))
    assert list(torch.load(path, weights_only=True)) == ["model", "train_conf"]


def named_arrays(values: State, path: Path) -> None:
    np.savez(path, **{name: tensor.numpy() for name, tensor in values.items()})


def compressed_arrays(values: State, path: Path) -> None:
    np.savez_compressed(path, **{name: tensor.numpy() for name, tensor in values.items()})


def checkpoint(values: State, path: Path) -> None:
    torch.save({"epoch": 3, "model_state_dict": {f"module.{name}": tensor for name, tensor in values.items()}}, path)


NAMED: dict[str, tuple[str, Callable[[State, Path], None]]] = {
    "Flower ArrayRecord": ("record.bin", flower_record),
    "Flower RecordDict": ("reply.pb", flower_record_dict),
    "Flower torch": ("final_model.pt", flower_torch),
    "NVFlare": ("FL_global_model.pt", nvflare_model),
    "npz": ("weights.npz", named_arrays),
    "npz compressed": ("weights.npz", compressed_arrays),
    "checkpoint": ("last.pth", checkpoint),
}


@pytest.mark.parametrize("kind", NAMED)
def test_a_file_of_an_engine_comes_back_bit_for_bit(kind: str, tmp_path: Path) -> None:
    name, write = NAMED[kind]
    write(state(), tmp_path / name)
    assert_same_bits(read_state(tmp_path / name), state())


def test_lists_without_names_get_the_models_names(tmp_path: Path) -> None:
    """As Flower's own examples save a round: np.savez(file, *ndarrays); with more than ten, arr_10 comes after arr_9."""
    from flwr.app import ArrayRecord
    from flwr.common.serde import array_record_to_proto

    values = [tensor.numpy() for tensor in state().values()]
    np.savez(tmp_path / "round-1-weights.npz", *values)
    found = read_source(tmp_path / "round-1-weights.npz", network(), "weights")
    assert_same_bits(found, state())
    record = ArrayRecord(values)
    (tmp_path / "record.pb").write_bytes(array_record_to_proto(record).SerializeToString())
    assert_same_bits(read_source(tmp_path / "record.pb", network(), "weights"), state())
    assert_same_bits(read_source(record, network(), "weights"), state())
    assert_same_bits(read_source(ArrayRecord(state()), network(), "weights"), state())
    many = [np.full((1,), float(place)) for place in range(12)]
    np.savez(tmp_path / "many.npz", *many)
    assert [float(tensor) for tensor in read_state(tmp_path / "many.npz").values()] == list(range(12))


def test_nvflares_numpy_model_is_one_array(tmp_path: Path) -> None:
    model = nn.Linear(4, 3, bias=False)
    np.save(tmp_path / "server.npy", model.weight.detach().numpy())
    assert_same_bits(read_source(tmp_path / "server.npy", model, "weights"), {"weight": model.weight.detach()})


@pytest.mark.parametrize("dtype", ["float16", "float64", "int8", "uint8", "int64", "bool", ">f4"])
def test_types_and_byte_orders_keep_their_values(dtype: str, tmp_path: Path) -> None:
    array = np.array([[0, 1, 1], [1, 0, 100]]).astype(dtype)
    np.savez(tmp_path / "a.npz", w=array)
    found = read_state(tmp_path / "a.npz")["w"]
    assert found.tolist() == array.tolist()
    assert found.element_size() == array.itemsize


def test_shards_of_hugging_face_are_put_together(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        vocab_size=50,
        max_position_embeddings=16,
    )
    model = transformers.BertForSequenceClassification(config)
    model.save_pretrained(tmp_path / "whole")
    model.save_pretrained(tmp_path / "shards", max_shard_size="4KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    expected = dict(sorted((name, tensor) for name, tensor in model.state_dict().items()))
    for place in ("whole", "shards", "shards/model.safetensors.index.json"):
        assert_same_bits(dict(sorted(read_state(tmp_path / place).items())), expected)


def test_pack_takes_what_the_engines_wrote(tmp_path: Path) -> None:
    before, after = state(), state()
    for name, tensor in after.items():
        after[name] = tensor + 0.5 if tensor.is_floating_point() else tensor + 1
    flower_record(before, tmp_path / "before.pb")
    nvflare_model(after, tmp_path / "after.pt")
    seen = pack(
        network(seed=5),
        before=tmp_path / "before.pb",
        after=tmp_path / "after.pt",
        training=LocalTraining(lr=0.1, steps=1, mode="train"),
        spec=SPEC,
        num_examples=4,
    )
    parameters = [name for name, _ in network().named_parameters()]
    assert list(seen.tensors) == parameters
    for name in parameters:
        assert torch.equal(seen.tensors[name], after[name] - before[name])
    assert torch.equal(seen.model.state_dict()["1.running_mean"], before["1.running_mean"])
    assert torch.equal(seen.buffers["1.running_mean"], after["1.running_mean"])


def test_the_command_packs_a_list_of_a_flower_round(tmp_path: Path) -> None:
    from leakgauge.cli import main
    from leakgauge.models import load_model

    model = load_model("mlp:hidden=16,activation=sigmoid", input_shape=(1, 4, 4), seed=0)
    values = [tensor.numpy() for tensor in model.state_dict().values()]
    np.savez(tmp_path / "before.npz", *values)
    np.savez(tmp_path / "after.npz", *[value + 0.25 for value in values])
    (tmp_path / "p.toml").write_text("num_examples = 2\n[training]\nlr = 0.1\nsteps = 1\n", encoding="utf-8")
    words = ["pack", "--before", "before.npz", "--after", "after.npz", "--protocol", "p.toml", "--out", "o.safetensors"]
    words = [str(tmp_path / word) if "." in word and not word.startswith("--") else word for word in words]
    assert main([*words, "--model", "mlp:hidden=16,activation=sigmoid", "--input", "1x4x4"]) == 0
    assert (tmp_path / "o.safetensors").is_file()


class Trap:
    """Would leave a file behind if it were unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.path,)


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    trap = np.array([Trap(sprung)], dtype=object)
    np.savez(tmp_path / "trap.npz", w=trap)
    np.save(tmp_path / "trap.npy", trap)
    np.save(tmp_path / "dict.npy", {"w": np.ones(3)}, allow_pickle=True)  # type: ignore[arg-type]
    for name in ("trap.npz", "trap.npy", "dict.npy"):
        with pytest.raises(UpdateError, match=r"pickled objects, which leakgauge never loads.*np\.savez"):
            read_state(tmp_path / name)
    assert not sprung.exists()


def test_broken_files_are_one_sentence(tmp_path: Path) -> None:
    from flwr.app import ArrayRecord, RecordDict
    from flwr.common.serde import recorddict_to_proto

    flower_record(state(), tmp_path / "whole.pb")
    data = (tmp_path / "whole.pb").read_bytes()
    for place in range(1, len(data), 97):
        (tmp_path / "cut.pb").write_bytes(data[:place])
        with pytest.raises(UpdateError, match="truncated|cannot be read|no array"):
            read_state(tmp_path / "cut.pb")
    (tmp_path / "deflated").write_bytes(ArrayRecord(state()).deflate())
    with pytest.raises(UpdateError, match="references to its arrays and no values"):
        read_state(tmp_path / "deflated")
    two = RecordDict({"first": ArrayRecord(state()), "second": ArrayRecord(state())})
    (tmp_path / "two.pb").write_bytes(recorddict_to_proto(two).SerializeToString())
    with pytest.raises(UpdateError, match="several array records .first, second."):
        read_state(tmp_path / "two.pb")
    np.savez(tmp_path / "words.npz", w=np.array(["a", "b"]))
    with pytest.raises(UpdateError, match="array of <U1; expected a tensor or array of numbers"):
        read_state(tmp_path / "words.npz")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UpdateError, match="holds neither model.safetensors"):
        read_state(tmp_path / "empty")


def test_an_index_may_not_name_files_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    save_file({"w": torch.ones(2)}, tmp_path / "secret.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"w": "../secret.safetensors"}}), encoding="utf-8")
    with pytest.raises(UpdateError, match="no plain file name"):
        read_state(folder)
    save_file({"w": torch.ones(2)}, folder / "a.safetensors")
    index.write_text(json.dumps({"weight_map": {"w": "a.safetensors", "v": "a.safetensors"}}), encoding="utf-8")
    with pytest.raises(UpdateError, match="'v' is missing"):
        read_state(folder)
    index.write_text("[]", encoding="utf-8")
    with pytest.raises(UpdateError, match="is damaged"):
        read_state(folder)
