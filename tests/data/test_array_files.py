"""CIFAR batches, IDX files, numpy archives."""

import gzip
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch

from leakgauge.data import load_data
from leakgauge.data.safe_pickle import read_pickle
from leakgauge.errors import DataError, OptionError


def as_python2(content: dict) -> bytes:
    """Protocol 2 with byte-string keys under numpy's old name, as the distributed files are written."""
    return pickle.dumps({key.encode(): value for key, value in content.items()}, 2).replace(b"numpy._core.", b"numpy.core.")


def write_cifar10(folder, noise, dump=as_python2):
    folder.mkdir(parents=True, exist_ok=True)
    data = {}
    for number, name in enumerate(["data_batch_1", "data_batch_2", "test_batch"]):
        data[name] = noise(3, 3072)
        names = [f"{name}_{row}.png".encode() for row in range(3)]
        content = {"data": data[name], "labels": [number, 1, 2], "filenames": names, "batch_label": b"x"}
        (folder / name).write_bytes(dump(content))
    return data


@pytest.mark.parametrize(
    "dump", [as_python2, *(lambda content, p=p: pickle.dumps(content, p) for p in range(6))], ids=["py2", *"012345"]
)
def test_cifar10(tmp_path, noise, dump):
    data = write_cifar10(tmp_path, noise, dump)
    batch = load_data(f"cifar10:{tmp_path}?indices=0,3,4")
    assert batch.inputs.shape == (3, 3, 32, 32)
    assert batch.labels.tolist() == [0, 1, 1]
    assert batch.names == ("data_batch_1_0.png", "data_batch_2_0.png", "data_batch_2_1.png")
    red = data["data_batch_1"][0][:1024].reshape(32, 32)  # the first third of a row is the red plane
    assert torch.equal((batch.inputs[0, 0] * 255).round().to(torch.uint8), torch.from_numpy(red.copy()))
    assert load_data(f"cifar10:{tmp_path}?split=test").names[0] == "test_batch_0.png"
    assert len(load_data(f"cifar10:{tmp_path / 'test_batch'}")) == 3


def test_cifar10_one_folder_up(tmp_path, noise):
    write_cifar10(tmp_path / "cifar-10-batches-py", noise)
    assert len(load_data(f"cifar10:{tmp_path}")) == 6


def test_cifar100(tmp_path, noise):
    content = {"data": noise(2, 3072), "fine_labels": [99, 3], "coarse_labels": [1, 2]}
    (tmp_path / "train").write_bytes(as_python2(content))
    batch = load_data(f"cifar100:{tmp_path}")
    assert batch.labels.tolist() == [99, 3]
    assert batch.names == ("train[0]", "train[1]")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"labels": [1]}, "has no 'data' of bytes with 3,072 columns"),
        ({"data": np.zeros((2, 3072), np.float32), "labels": [1, 2]}, "has no 'data' of bytes"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [1]}, "has 2 pictures and 1 under 'labels'"),
        ({"data": np.zeros((2, 3072), np.uint8)}, "has 2 pictures and none under 'labels'"),
        ({"data": np.zeros((1, 3072), np.uint8), "labels": [10]}, "a label that is not from 0 to 9"),
    ],
)
def test_cifar_batches_that_are_wrong(tmp_path, content, words):
    (tmp_path / "data_batch_1").write_bytes(as_python2(content))
    with pytest.raises(DataError) as caught:
        load_data(f"cifar10:{tmp_path}")
    assert words in str(caught.value)


def test_cifar_that_is_not_there(tmp_path, noise):
    with pytest.raises(DataError, match=r"holds neither the Python batches of cifar10 \(data_batch_1, \.\.\.\) nor pictures"):
        load_data(f"cifar10:{tmp_path}")
    write_cifar10(tmp_path, noise)
    with pytest.raises(OptionError, match="is one batch file and has no parts"):
        load_data(f"cifar10:{tmp_path / 'test_batch'}?split=test")


class Payload:
    """Runs a command when it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def test_a_malicious_pickle_runs_nothing(tmp_path):
    mark = tmp_path / "ran"
    payloads = [
        Payload(os.system, f"touch {mark}"),
        Payload(eval, f"open({str(mark)!r}, 'w')"),
        Payload(getattr, Payload(__import__, "os"), "system"),
        Payload(np.load, str(mark)),
    ]
    for protocol in (0, 2, 5):
        for payload in payloads:
            (tmp_path / "data_batch_1").write_bytes(pickle.dumps({"data": payload, "labels": [1]}, protocol))
            with pytest.raises(DataError, match="it was refused and nothing was run"):
                load_data(f"cifar10:{tmp_path}")
    assert not mark.exists()


@pytest.mark.parametrize(
    "array",
    [np.array([{"a": 1}], dtype=object), np.array(["text"]), np.zeros(2, dtype=[("a", "u1"), ("b", "f4")])],
    ids=["objects", "text", "fields"],
)
def test_only_numbers_are_read(tmp_path, array):
    (tmp_path / "file").write_bytes(pickle.dumps({"data": array}, 2))
    with pytest.raises(DataError, match="cannot be read as a pickle"):
        read_pickle(tmp_path / "file")


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["u1", "<i2", ">i4", "f8", "?"])
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_arrays_come_back(tmp_path, noise, order, dtype, protocol):
    array = np.asarray(noise(4, 6) % 7, dtype=dtype, order=order)
    (tmp_path / "file").write_bytes(pickle.dumps({"data": array, "n": [1, 2.5, None, "x", b"y"]}, protocol))
    content = read_pickle(tmp_path / "file")
    assert np.array_equal(content["data"], array)
    assert content["data"].dtype == array.dtype
    assert len(content["n"]) == 5


def test_broken_pickles(tmp_path):
    for name, content, words in (
        ("cut", as_python2({"data": np.zeros(9, np.uint8)})[:-20], "cannot be read as a pickle"),
        ("text", b"not a pickle at all", "cannot be read as a pickle"),
        ("list", pickle.dumps([1, 2]), "holds a list; expected a dictionary"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=words):
            read_pickle(tmp_path / name)


def idx(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + b"".join(side.to_bytes(4, "big") for side in array.shape) + array.tobytes()


@pytest.mark.parametrize("place", ["", "raw", "MNIST/raw"])
@pytest.mark.parametrize("packed", [False, True])
def test_mnist(tmp_path, noise, place, packed):
    folder = tmp_path / place
    folder.mkdir(parents=True, exist_ok=True)
    pictures, labels = noise(5, 28, 28), noise(5) % 10
    for name, array in (("train-images-idx3-ubyte", pictures), ("train-labels-idx1-ubyte", labels)):
        content = idx(array)
        (folder / (name + ".gz" if packed else name)).write_bytes(gzip.compress(content) if packed else content)
    batch = load_data(f"mnist:{tmp_path}?indices=1-3")
    assert batch.inputs.shape == (3, 1, 28, 28)
    assert batch.labels.tolist() == labels[1:4].tolist()
    assert batch.names == ("train[1]", "train[2]", "train[3]")
    assert torch.equal((batch.inputs[0, 0] * 255).round().to(torch.uint8), torch.from_numpy(pictures[1]))
    with pytest.raises(DataError, match="has no t10k-images-idx3-ubyte; it holds the other part only"):
        load_data(f"mnist:{tmp_path}?split=test")


@pytest.mark.parametrize(
    ("pictures", "labels", "words"),
    [
        (b"not idx at all, but long enough", idx(np.zeros(2, np.uint8)), "is not an IDX file of bytes with 3 dimensions"),
        (idx(np.zeros((2, 4, 4), np.uint8))[:-3], idx(np.zeros(2, np.uint8)), "is shorter than its header says (2 x 4 x 4)"),
        (idx(np.zeros((2, 4, 4), np.uint8)) + b"x", idx(np.zeros(2, np.uint8)), "is longer than its header says"),
        (bytes((0, 0, 8, 3)) + b"\xff" * 12, idx(np.zeros(2, np.uint8)), "bytes of content, which is more than is read"),
        (idx(np.zeros((2, 4, 4), np.uint8)), idx(np.zeros(3, np.uint8)), "holds 2 pictures and"),
        (idx(np.zeros((2, 4, 4), np.uint8)), None, "but no train-labels-idx1-ubyte beside it"),
    ],
)
def test_mnist_files_that_are_wrong(tmp_path, pictures, labels, words):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(pictures)
    if labels is not None:
        (tmp_path / "train-labels-idx1-ubyte").write_bytes(labels)
    with pytest.raises(DataError) as caught:
        load_data(f"mnist:{tmp_path}")
    assert words in str(caught.value)


def test_medmnist(tmp_path, noise):
    pictures = noise(4, 28, 28, 3)
    arrays = {f"{part}_images": pictures for part in ("train", "val", "test")}
    labels = {"train_labels": [[0], [1], [2], [3]], "val_labels": [[4]] * 4, "test_labels": [[5]] * 4}
    np.savez(tmp_path / "pathmnist.npz", **arrays, **{key: np.array(value, np.uint8) for key, value in labels.items()})
    batch = load_data(f"medmnist:{tmp_path}/pathmnist.npz")
    assert batch.labels.tolist() == [0, 1, 2, 3]
    assert batch.inputs.shape == (4, 3, 28, 28)
    assert torch.equal((batch.inputs[2] * 255).round().to(torch.uint8), torch.from_numpy(pictures[2]).permute(2, 0, 1))
    assert load_data(f"medmnist:{tmp_path}/pathmnist.npz?split=val&indices=0").labels.tolist() == [4]


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x_train": np.zeros((2, 4, 4), np.uint8)}, "has no array 'y_train'"),
        ({"x_train": np.zeros((2, 4, 4), np.float32), "y_train": [1, 2]}, "is float32 (2, 4, 4); expected bytes"),
        ({"x_train": np.zeros((2, 3, 4, 4), np.uint8), "y_train": [1, 2]}, "expected bytes (N, H, W) or (N, H, W, 1 or 3)"),
        ({"x_train": np.zeros((2, 4, 4), np.uint8), "y_train": [1, 2, 3]}, "expected 2 integers"),
        ({"x_train": np.zeros((2, 4, 4), np.uint8), "y_train": [[1, 0], [0, 1]]}, "several labels per picture"),
        ({"x_train": np.array([{}], dtype=object), "y_train": [1]}, "holds Python objects, which are never unpickled"),
    ],
)
def test_archives_that_are_wrong(tmp_path, arrays, words):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError) as caught:
        load_data(f"npz:{tmp_path}/a.npz")
    assert words in str(caught.value)


def test_files_that_are_no_archives(tmp_path):
    (tmp_path / "a.npz").write_text("text")
    with pytest.raises(DataError, match="is not an .npz archive"):
        load_data(f"npz:{tmp_path}/a.npz")
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("x_train.npy", b"broken")
        archive.writestr("y_train.npy", b"broken")
    with pytest.raises(DataError, match="is broken"):
        load_data(f"npz:{tmp_path}/b.npz")


def test_real_archives(real_data):
    batch = load_data(f"npz:{real_data / 'cifar10' / 'aux.npz'}?split=test&mean=0.5&std=0.25")
    assert batch.inputs.shape == (500, 3, 32, 32)
    assert batch.labels.bincount().tolist() == [50] * 10
    assert batch.inputs.min() == -2
    assert load_data(f"npz:{real_data / 'mnist' / 'aux.npz'}?indices=0-9").inputs.shape == (10, 1, 28, 28)
