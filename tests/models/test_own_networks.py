"""Networks from an import path."""

import numpy as np
import pytest
import torch
from torch import nn

from leakgauge.errors import ModelError
from leakgauge.models import load_model

MODULE = """
import numpy as np
import torch
from torch import nn

ready = nn.Linear(2, 2)
number = 3
seen = {}

def plain():
    return nn.Linear(2, 2)

def noisy():
    layer = nn.Linear(2, 2)
    layer.bias.data += float(np.random.rand())
    return layer

def full(num_classes, input_shape=(3, 8, 8), *, seed=5, extra=1):
    seen.update(num_classes=num_classes, input_shape=input_shape, seed=seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(input_shape[0], num_classes))

def double():
    return nn.Linear(2, 2).double().train()

def greedy(depth):
    return nn.Linear(2, 2)

def broken():
    raise RuntimeError("no such layer")

def text():
    return "a model"

class Net(nn.Module):
    def __init__(self, num_classes=4):
        super().__init__()
        self.head = nn.Linear(2, num_classes)
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    name = f"leakgauge_nets_{abs(hash(str(tmp_path)))}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    (tmp_path / f"{name}_bad.py").write_text("import package_that_is_not_there\n")
    monkeypatch.chdir(tmp_path)
    return name


def test_only_named_arguments_are_passed(module):
    import sys

    load_model(f"{module}:full", num_classes=3, input_shape=(7, 1, 1), seed=11)
    assert sys.modules[module].seen == {"num_classes": 3, "input_shape": (7, 1, 1), "seed": 11}
    load_model(f"{module}:full", num_classes=3)
    assert sys.modules[module].seen == {"num_classes": 3, "input_shape": (3, 8, 8), "seed": 0}
    assert isinstance(load_model(f"{module}:plain", num_classes=3, input_shape=(1, 2, 3)), nn.Linear)
    assert load_model(f"{module}:Net").head.out_features == 4
    assert load_model(f"{module}:Net", num_classes=9).head.out_features == 9


def test_the_path_is_left_alone(module, tmp_path):
    import sys

    before = list(sys.path)
    load_model(f"{module}:plain")
    assert sys.path == before


def test_weights_depend_on_the_seed_alone(module):
    state, numpy_state = torch.get_rng_state(), np.random.get_state()
    first, second, other = (load_model(f"{module}:noisy", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.weight, second.weight)
    assert torch.equal(first.bias, second.bias)
    assert not torch.equal(first.weight, other.weight)
    assert torch.equal(state, torch.get_rng_state())
    assert np.array_equal(numpy_state[1], np.random.get_state()[1])


def test_comes_back_in_eval_mode_and_float32(module):
    model = load_model(f"{module}:double")
    assert not model.training
    assert model.weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "nowhere_to_be_found:net",
            "needs the module 'nowhere_to_be_found', which is neither installed nor in the current folder",
        ),
        ("MODULE_bad:net", "cannot be imported: No module named 'package_that_is_not_there'"),
        ("MODULE:plian", "has no 'plian'. Did you mean 'plain'?"),
        ("MODULE:number", "is a int, which cannot be called"),
        ("MODULE:ready", "is a ready module; expected a function or class that builds one"),
        ("MODULE:greedy", "has the parameter 'depth' without a default"),
        ("MODULE:full", "needs num_classes, which was not given"),
        ("MODULE:broken", "raised RuntimeError when called with (): no such layer"),
        ("MODULE:text", "returned str; expected a torch.nn.Module"),
    ],
)
def test_what_goes_wrong_is_said(module, name, words):
    with pytest.raises(ModelError) as caught:
        load_model(name.replace("MODULE", module))
    assert words in str(caught.value)
