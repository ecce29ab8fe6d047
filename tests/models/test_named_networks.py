"""The papers' networks: sizes, initial weights, options, shapes."""

import pytest
import torch
from torch import nn

from leakgauge.errors import ModelError, OptionError
from leakgauge.models import ModelName, load_model, names
from leakgauge.models.catalogue import NETWORKS

CONVOLUTIONAL = [name for name in NETWORKS if name not in ("mu-fc", "mlp", "fcn3")]
NARROW = {"resnet18-cifar": "resnet18-cifar:width=8"}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def narrow(name: str) -> str:
    return NARROW.get(name, name)


@pytest.mark.parametrize(
    ("name", "classes", "shape", "expected"),
    [
        ("lenet-dlg", 100, (3, 32, 32), 85_036),  # gradient-matching.md 1.1
        ("resnet18-cifar", 10, (3, 32, 32), 11_173_962),  # as commonly reported for the CIFAR stem
        ("shallow-resnet", 2, (1, 32, 32), 35_298),  # nvflare-leakage.md 5: '35k parameters'
        ("fcn3", 1, (1, 28, 28), 784 * 1000 + 1000 * 100 + 100),  # R-GAP
        ("cnn6", 1, (3, 32, 32), 576 + 3888 + 11_664 + 11_664 + 20_736 + 73_728 + 3200),  # R-GAP
        ("cnn6-d", 1, (3, 32, 32), 576 + 2160 + 6480 + 11_664 + 20_736 + 73_728 + 3200),
    ],
)
def test_published_sizes(name, classes, shape, expected):
    assert parameters(load_model(name, classes, shape)) == expected


def test_lenet_dlg_is_the_published_one():
    model = load_model("lenet-dlg", num_classes=10, input_shape=(3, 32, 32), seed=0)
    convolutions = [module for module in model if isinstance(module, nn.Conv2d)]
    assert [(c.out_channels, c.kernel_size, c.stride, c.padding) for c in convolutions] == [
        (12, (5, 5), (2, 2), (2, 2)),
        (12, (5, 5), (2, 2), (2, 2)),
        (12, (5, 5), (1, 1), (2, 2)),
    ]
    assert sum(isinstance(module, nn.Sigmoid) for module in model) == 3
    assert model.linear.in_features == 768
    weights = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    assert weights.min() >= -0.5
    assert weights.max() <= 0.5
    assert abs(weights.std().item() - 1 / 12**0.5) < 0.005  # U(-0.5, 0.5), biases and linear layer too


def test_cnn6_has_no_bias_unless_asked():
    assert not [name for name, _ in load_model("cnn6", 1).named_parameters() if "bias" in name]
    assert [name for name, _ in load_model("cnn6:bias=last", 10).named_parameters() if "bias" in name] == ["linear.bias"]
    assert len([name for name, _ in load_model("cnn6-d:bias=all", 10).named_parameters() if "bias" in name]) == 7
    slopes = {module.negative_slope for module in load_model("cnn6") if isinstance(module, nn.LeakyReLU)}
    assert slopes == {0.2}


def test_shallow_resnet_has_three_batch_norms():
    assert sum(isinstance(module, nn.BatchNorm2d) for module in load_model("shallow-resnet").modules()) == 3


@pytest.mark.parametrize("name", NETWORKS)
def test_default_call(name):
    network = NETWORKS[name]
    model = load_model(narrow(name))
    outputs = model(torch.rand(2, *network.default_shape))
    assert outputs.shape == (2, network.default_classes)
    assert not any(module.training for module in model.modules())
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", CONVOLUTIONAL)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 13), (2, 33, 20)])
def test_any_picture(name, shape):
    assert load_model(narrow(name), 3, shape)(torch.rand(2, *shape)).shape == (2, 3)


@pytest.mark.parametrize("name", ["mlp:hidden=5", "mu-fc:hidden=5", "fcn3:hidden=7-5"])
def test_dense_networks_take_a_table_row(name):
    assert load_model(name, 2, (1, 1, 14))(torch.rand(4, 1, 1, 14)).shape == (4, 2)


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_depend_on_the_seed_alone(name):
    torch.manual_seed(1)
    first = load_model(narrow(name), seed=3).state_dict()
    torch.manual_seed(2)
    before = torch.get_rng_state()
    second = load_model(narrow(name), seed=3).state_dict()
    assert torch.equal(before, torch.get_rng_state())  # the global generator did not move
    assert all(torch.equal(first[key], second[key]) for key in first)
    other = load_model(narrow(name), seed=4).state_dict()
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_default_dtype_does_not_matter():
    expected = load_model("lenet-dlg").state_dict()
    torch.set_default_dtype(torch.float64)
    try:
        found = load_model("lenet-dlg").state_dict()
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(torch.equal(expected[key], found[key]) for key in expected)


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
@pytest.mark.parametrize("name", ["resnet18-cifar", "resnet20", "shallow-resnet"])
def test_residual_networks_differentiate_twice(name, norm):
    model = load_model(f"{name}:norm={norm},width=4,activation=softplus", 3, (3, 8, 8))
    inputs = torch.rand(1, 3, 8, 8, requires_grad=True)
    gradients = torch.autograd.grad(model(inputs).square().sum(), list(model.parameters()), create_graph=True)
    (second,) = torch.autograd.grad(sum(gradient.square().sum() for gradient in gradients), inputs)
    assert second.isfinite().all()
    assert second.abs().max() > 0


def test_options_change_the_network():
    model = load_model("mu-cnn:width=24,activation=tanh,convolutions=2", num_classes=2, input_shape=(3, 64, 64))
    assert sum(isinstance(module, nn.Tanh) for module in model) == 2
    assert model.conv2.out_channels == 24
    assert model.linear.in_features == 24 * 16 * 16
    assert load_model("mu-cnn").conv1.weight.abs().max() < 0.2
    assert load_model("mu-cnn:init=uniform").conv1.weight.abs().max() > 0.4
    assert load_model("mlp:activation=leaky-relu,slope=0.3").activation1.negative_slope == 0.3
    assert [m.out_features for m in load_model("mlp:hidden=7-5", 2) if isinstance(m, nn.Linear)] == [7, 5, 2]


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("lenet-dgl", ModelError, "There is no network 'lenet-dgl'. Did you mean 'lenet-dlg'?"),
        ("mu-cn:width=3", ModelError, "There is no network 'mu-cn'. Did you mean 'mu-cnn'?"),
        ("nets.small", ModelError, "a callable of your own is written 'nets:small'"),
        ("mu-cnn:widht=3", OptionError, "The network 'mu-cnn' has no option 'widht'. Did you mean 'width'?"),
        ("mu-cnn:width=0", OptionError, "mu-cnn:width is '0'; expected a positive integer."),
        ("mu-cnn:convolutions=4", OptionError, "mu-cnn:convolutions is '4'; expected one of 1, 2, 3."),
        ("mu-cnn:activation=sigmoit", OptionError, "Did you mean 'sigmoid'?"),
        ("mlp:hidden=3-x", OptionError, "mlp:hidden is '3-x'; expected positive integers joined by '-'."),
        ("cnn6:slope=2", OptionError, "cnn6:slope is '2'; expected a number from 0 to 1."),
        ("mu-cnn:", OptionError, "expected NAME=VALUE"),
        ("mu-cnn:width=3,width=4", OptionError, "gives the option 'width' twice"),
        ("hf:", ModelError, "names nothing after 'hf'; expected hf:PATH"),
    ],
)
def test_wrong_names(name, error, words):
    with pytest.raises(error) as caught:
        load_model(name)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"input_shape": (3, 7, 32)}, "takes pictures (C, H, W) with H and W of at least 8; got (3, 7, 32)"),
        ({"input_shape": (5,)}, "takes pictures (C, H, W)"),
        ({"input_shape": (3, 0, 32)}, "expected positive integers such as (3, 32, 32)"),
        ({"num_classes": 0}, "num_classes is 0; expected a positive integer"),
    ],
)
def test_shapes_that_do_not_fit(arguments, words):
    with pytest.raises(ModelError) as caught:
        load_model("lenet-dlg", **arguments)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "text", ["lenet-dlg", "mu-cnn:width=24,activation=tanh", "pkg.mod:make", "hf:/some/where", "timm:vit", "torchvision:resnet18"]
)
def test_names_print_as_they_were_written(text):
    assert str(ModelName.parse(text)) == text


def test_listing_is_complete():
    entries = {entry.name: entry for entry in names()}
    assert set(NETWORKS) < set(entries)
    assert {"pkg.mod:callable", "hf:PATH", "timm:NAME", "torchvision:NAME"} < set(entries)
    assert all(entry.description and entry.source for entry in entries.values())
    assert [option.name for option in entries["mu-cnn"].options] == ["width", "activation", "slope", "convolutions", "init"]
    assert all(option.description and option.values for entry in entries.values() for option in entry.options)
