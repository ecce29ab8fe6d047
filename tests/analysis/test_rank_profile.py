"""The rank profile: known networks, what pooling, ReLU and blocks do to it, and numerical ranks."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import leakgauge as lg
from leakgauge.analysis.rank_profile import RankProfile, rank_profile
from leakgauge.errors import ModelError, ShapeError
from leakgauge.randomness import rng


def convolutions(*layers: tuple[int, int, int, int], activation: type[nn.Module] = nn.Tanh) -> nn.Sequential:
    """(filters, kernel, stride, padding) each with an activation, and a linear layer, for 16x16 colour pictures."""
    torch.manual_seed(0)
    parts: list[nn.Module] = []
    channels, side = 3, 16
    for filters, kernel, stride, padding in layers:
        parts += [nn.Conv2d(channels, filters, kernel, stride, padding), activation()]
        channels, side = filters, (side + 2 * padding - kernel) // stride + 1
    return nn.Sequential(*parts, nn.Flatten(), nn.Linear(channels * side * side, 10))


def picture() -> Tensor:
    return torch.rand(1, 3, 16, 16, generator=rng(0, "picture"))


def named(name: str, shape: tuple[int, int, int] = (3, 32, 32)) -> RankProfile:
    return rank_profile(lg.load_model(name, num_classes=10, input_shape=shape, seed=0), shape)


def test_cnn6_is_complete_and_cnn6_d_is_not() -> None:
    complete, deficient = named("cnn6"), named("cnn6-d")
    assert [row.rank_deficiency for row in complete.layers] == [0] * 7
    assert [row.rank_deficiency for row in deficient.layers] == [0, 280, 0, 0, 0, 0, 0]
    layer = deficient.layers[1]
    assert (layer.unknowns, layer.weight_equations, layer.gradient_equations) == (3468, 1620, 2160)
    assert (layer.naive_deficiency, layer.rank, layer.redundancy, layer.dead) == (0, 3188, 400, 0)
    assert layer.virtual == 3468 - 3072
    assert "280 of 3,468" in layer.verdict
    assert "can make up for that" in layer.verdict
    assert complete.index == deficient.index == 0, "the virtual constraints of the first layer cover the 280"
    assert complete.undetermined == deficient.undetermined == 0
    assert "one after the other" in complete.verdict
    assert "layer conv2 is 280 equations short" in deficient.verdict
    assert not complete.reasons


def test_virtual_constraints_add_up() -> None:
    rows = named("cnn6").layers
    widening = [max(row.weight_equations - row.unknowns, 0) for row in rows]
    assert [row.virtual for row in rows] == [sum(widening[:number]) for number in range(len(rows))]


def test_a_larger_picture_leaves_cnn6_short() -> None:
    profile = named("cnn6", (3, 64, 64))
    assert [row.rank_deficiency for row in profile.layers] == [0, 72, 0, 0, 0, 0, 0]
    assert profile.layers[1].naive_deficiency == 0


@pytest.mark.parametrize("name", ["mlp", "fcn3"])
def test_a_linear_layer_is_solved_by_its_own_gradient(name: str) -> None:
    profile = named(name, (1, 28, 28))
    assert all(row.rank == row.unknowns for row in profile.layers)
    assert ("by one division" in profile.verdict) == (name == "mlp"), "the published FCN3 has no bias"


@pytest.mark.parametrize("model", ["resnet18-cifar", "resnet20"])
def test_layers_inside_blocks_have_rows(model: str) -> None:
    profile = named(model)
    names = [row.name for row in profile.layers]
    assert sum("conv" in name for name in names) == {"resnet18-cifar": 16, "resnet20": 18}[model]
    sides = [row for row in profile.layers if row.side]
    assert [row.name.rpartition(".")[0].rpartition(".")[2] for row in sides] == ["shortcut"] * {
        "resnet18-cifar": 3,
        "resnet20": 2,
    }[model]
    assert all("side branch" in row.verdict for row in sides)
    assert all("side branches hide its output" in row.verdict for row in profile.layers if "stage" in row.name)
    assert profile.critical not in {row.name for row in sides}


def test_a_large_network_is_counted_in_seconds() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 64, 7, 2, 3),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(64, 128, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(128, 256, 3, 2, 1),
    )
    started = time.process_time()
    profile = rank_profile(model, (3, 224, 224))
    assert time.process_time() - started < 5
    assert [row.rank is None for row in profile.layers] == [False, True, False, False]
    assert profile.undetermined == 0


@pytest.mark.parametrize(
    ("layer", "deficit"),
    [((6, 4, 2, 0), 222), ((1, 3, 1, 0), 546), ((12, 3, 4, 1), 405), ((12, 5, 2, 0), 93), ((9, 3, 2, 1), 30)],
)
def test_count_and_numerical_rank_agree(layer: tuple[int, int, int, int], deficit: int) -> None:
    model = convolutions(layer)
    profiles = [
        rank_profile(model, (3, 16, 16)),
        rank_profile(model, (3, 16, 16), numerical=True),
        rank_profile(model, (3, 16, 16), probe=(picture(), 4)),
    ]
    assert [profile.layers[0].rank_deficiency for profile in profiles] == [deficit] * 3
    assert [profile.undetermined for profile in profiles] == [deficit] * 3
    assert [profile.layers[0].method for profile in profiles] == ["confirmed", "numerical", "numerical"]
    assert f"At least {deficit} of 768" in profiles[0].verdict
    assert profiles[0].index == deficit


def test_pooling_leaves_what_it_returns() -> None:
    pooled = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(512, 4))
    plain = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(2048, 4))
    row, other = (rank_profile(model, (3, 16, 16)).layers[0] for model in (pooled, plain))
    assert (row.weight_equations, other.weight_equations) == (512 + 8, 2048), "a bias gradient per filter is known besides"
    assert (row.rank, other.rank) == (512 + 8 + 216, 768)


class Residual(nn.Module):
    """Three channels and a side branch."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.tanh(inputs + self.inner(inputs))


CUTS = {
    "pooled": (lambda: [nn.Conv2d(2, 3, 3, padding=1), nn.Tanh(), nn.AvgPool2d(2)], 48, 23, True),
    "normalised and pooled": (
        lambda: [nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Tanh(), nn.AvgPool2d(2)], 48, 17, False,
    ),
    "largest of four": (lambda: [nn.Conv2d(2, 3, 3, padding=1), nn.Tanh(), nn.MaxPool2d(2)], 48, 23, False),
    "normalised input": (lambda: [nn.BatchNorm2d(2), nn.Conv2d(2, 3, 3, 2, 1), nn.Tanh()], 48, 128 - 48 - 54 + 9 - 4, False),
    "stride": (lambda: [nn.Conv2d(2, 3, 3, 2, 1), nn.Sigmoid()], 48, 128 - 48 - 54 + 9, True),
    "a block behind it": (lambda: [nn.Conv2d(2, 3, 3, 2, 1), nn.Sigmoid(), Residual()], 48, 128 - 48 - 54 + 9, True),
    "ReLU": (lambda: [nn.Conv2d(2, 3, 3, 2, 1), nn.ReLU()], 48, 128 - 48 - 54 + 9, False),
    "dead border": (lambda: [nn.Conv2d(2, 8, 3, 2, 0), nn.Tanh()], 72, 2 * (64 - 49), True),
}  # fmt: skip


@pytest.mark.parametrize(("build", "features", "undetermined", "exact"), CUTS.values(), ids=CUTS.keys())
def test_what_the_first_layer_leaves_open_is_open(
    build: Callable[[], list[nn.Module]], features: int, undetermined: int, exact: bool
) -> None:
    """The Jacobian of all gradients with respect to the picture has no more than the counted rank, and mostly just that."""
    torch.manual_seed(1)
    model = nn.Sequential(*build(), nn.Flatten(), nn.Linear(features, 5)).eval().double()
    state = dict(model.named_parameters())
    fixed = dict(model.named_buffers())

    def gradients(at: Tensor) -> Tensor:
        def loss(parameters: dict[str, Tensor]) -> Tensor:
            return nn.functional.cross_entropy(
                torch.func.functional_call(model, {**parameters, **fixed}, (at,)), torch.tensor([1])
            )

        return torch.cat([found.reshape(-1) for found in torch.func.grad(loss)(state).values()])

    at = torch.rand(1, 2, 8, 8, generator=rng(0), dtype=torch.float64)
    jacobian = torch.func.jacrev(gradients)(at).reshape(-1, 128).detach()
    rank = int(torch.linalg.matrix_rank(jacobian, rtol=1e-11))
    profile = rank_profile(model, (2, 8, 8))
    assert profile.undetermined == undetermined
    assert rank <= 128 - undetermined
    assert rank == 128 - undetermined or not exact


def test_relu_makes_the_rank_an_upper_bound() -> None:
    model = convolutions((12, 3, 2, 1), (12, 3, 1, 1), activation=nn.ReLU)
    counted, seen = rank_profile(model, (3, 16, 16)), rank_profile(model, (3, 16, 16), probe=(picture(), 0))
    assert "ReLU withholds inactive units" in counted.layers[0].verdict
    assert "ReLU" not in seen.layers[0].verdict
    assert counted.layers[0].limited
    for bound, row in zip(counted.layers, seen.layers, strict=True):
        assert bound.rank is not None
        assert row.rank is not None
        assert row.rank <= bound.rank
    assert seen.layers[0].rank < counted.layers[0].rank


def test_an_input_that_is_pooled_or_normalised_first() -> None:
    pooled = nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(192, 4))
    profile = rank_profile(pooled, (3, 16, 16))
    assert profile.undetermined == 768 - 192
    normalised = nn.Sequential(nn.BatchNorm2d(3), *convolutions((6, 4, 2, 0)))
    assert rank_profile(normalised, (3, 16, 16)).undetermined == 222 - 6, "its two gradients per channel are equations too"


def test_unsupported_layers_have_rows_with_reasons() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, padding_mode="circular"),
        nn.GELU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3),
        nn.Flatten(),
        nn.Linear(288, 4),
    )
    profile = rank_profile(model, (3, 16, 16))
    reasons = {row.name: row.reason for row in profile.layers if row.reason}
    assert set(reasons) == {"0", "1", "2"}
    assert "padding_mode='circular'" in reasons["0"]
    assert "max-pooling has no inverse" in reasons["2"]
    assert all(row.rank is None and row.rank_deficiency is None for row in profile.layers if row.reason)
    assert len(profile.reasons) == 3
    assert profile.undetermined is None
    assert "Counting cannot tell" in profile.verdict


def test_a_network_that_cannot_be_traced() -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(12, 2)

        def forward(self, inputs: Tensor) -> Tensor:
            return self.linear(inputs.flatten(1) if inputs.sum() > 0 else -inputs.flatten(1))

    profile = rank_profile(Branching(), (3, 2, 2))
    assert profile.index is None
    assert profile.verdict == "Nothing can be counted here: Branching (Branching) cannot be treated."


def test_bad_probes_and_shapes() -> None:
    model = convolutions((6, 4, 2, 0))
    with pytest.raises(ShapeError, match=r"expected one example, \(1, 3, 16, 16\)"):
        rank_profile(model, (3, 16, 16), probe=(torch.zeros(2, 3, 16, 16), 0))
    with pytest.raises(ShapeError, match="label is 10; the network has classes 0 to 9"):
        rank_profile(model, (3, 16, 16), probe=(picture(), 10))
    with pytest.raises(ModelError, match="does not accept inputs of shape"):
        rank_profile(model, (1, 16, 16))


def test_nothing_is_changed() -> None:
    model = convolutions((6, 4, 2, 0)).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    rank_profile(model, (3, 16, 16), probe=(picture(), 4))
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_weights_that_are_made_of_others() -> None:
    """Weights made of other parameters are named as out of reach; pruned filters lower the rank."""
    torch.manual_seed(0)
    normed = nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 9, 3, 2, 1)), nn.Tanh(), nn.Flatten(), nn.Linear(576, 2)
    )
    assert "computed from other parameters" in rank_profile(normed, (3, 16, 16)).layers[0].reason
    pruned = convolutions((9, 3, 2, 1))
    with torch.no_grad():
        pruned[0].weight[:3] = 0
    counted, own = rank_profile(pruned, (3, 16, 16)), rank_profile(pruned, (3, 16, 16), numerical=True)
    assert counted.layers[0].rank_deficiency == 30
    assert own.layers[0].rank_deficiency == 768 - (6 * 64 + 3 * 9 * 9 - 6 * 9)


def test_groups_have_the_sum_of_their_ranks() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 8, 3, 2, 1, groups=4), nn.Tanh(), nn.Flatten(), nn.Linear(128, 2))
    for numerical in (False, True):
        assert rank_profile(model, (4, 8, 8), numerical=numerical).layers[0].rank == 4 * (32 + 18 - 4)
