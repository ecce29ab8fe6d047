"""The leakage score against slow, independent references, and nets whose missing dimensions are known on paper."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import leakgauge as lg
from leakgauge.analysis.bottleneck import call_order, error_up_to
from leakgauge.analysis.image_prior import ImagePrior
from leakgauge.analysis.jacobian import UpdateJacobian
from leakgauge.analysis.lanczos import quadrature
from leakgauge.analysis.posterior import exact_posterior

SHAPE = (3, 16, 16)


def chain(*convolutions: tuple[int, int, int, int], shape: tuple[int, int, int] = SHAPE, bias: bool = False) -> nn.Sequential:
    """Tanh convolutions (channels, kernel, stride, padding) and a linear layer to 10 classes, weights by a fixed seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        channels, side, layers = shape[0], shape[1], list[nn.Module]()
        for width, kernel, stride, padding in convolutions:
            layers += [nn.Conv2d(channels, width, kernel, stride, padding, bias=bias), nn.Tanh()]
            channels, side = width, (side + 2 * padding - kernel) // stride + 1
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * side * side, 10))


def picture(shape: tuple[int, ...] = SHAPE, seed: int = 0) -> Tensor:
    return (
        ImagePrior((3, 16, 16)).draw(1, lg.rng(seed, "test")) if shape == SHAPE else torch.rand(1, *shape, generator=lg.rng(seed))
    )


def gradient_of(model: nn.Module, inputs: np.ndarray, label: int) -> np.ndarray:
    """All gradient entries by plain autograd in float64."""
    copy = model.double().eval()
    loss = nn.functional.cross_entropy(copy(torch.from_numpy(inputs)[None]), torch.tensor([label]))
    return np.concatenate([part.detach().numpy().ravel() for part in torch.autograd.grad(loss, list(copy.parameters()))])


def dense_covariance(prior: ImagePrior) -> np.ndarray:
    root = prior.root(torch.eye(prior.size, dtype=torch.float64)).numpy()
    return np.asarray(root @ root)


class TestAgainstReferences:
    @pytest.mark.parametrize("prior", ["natural", "white"])
    def test_dense_formula_with_finite_differences(self, prior: str) -> None:
        shape, label, noise, step = (2, 4, 4), 3, 1e-2, 1e-5
        model = chain((3, 3, 1, 1), (2, 3, 2, 1), shape=shape, bias=True).double()
        x = torch.rand(shape, generator=lg.rng(1), dtype=torch.float64)
        columns = []
        for index in range(x.numel()):
            move = np.zeros(x.numel())
            move[index] = step
            move = move.reshape(shape)
            columns.append(
                (gradient_of(model, x.numpy() + move, label) - gradient_of(model, x.numpy() - move, label)) / (2 * step)
            )
        jacobian, gradient = np.stack(columns, 1), gradient_of(model, x.numpy(), label)
        variance = noise**2 * (gradient @ gradient) / len(gradient)
        precision = np.linalg.inv(dense_covariance(ImagePrior(shape, prior)))
        inverse = np.linalg.inv(precision + jacobian.T @ jacobian / variance)
        found = lg.leakage_score(model, x[None], noise=noise, label=label, prior=prior)
        assert found.method == "exact"
        assert found.unknowns == 32
        assert found.posterior_error == pytest.approx(np.trace(inverse) / 32, rel=1e-6)
        assert found.psnr_equivalent == pytest.approx(-10 * math.log10(np.trace(inverse) / 32), abs=1e-5)
        leaked = np.trace(jacobian.T @ jacobian @ np.linalg.inv(jacobian.T @ jacobian + variance * precision))
        assert found.leaked_dimensions == pytest.approx(leaked, rel=1e-6)
        assert found.joint_deficit == 32 - np.linalg.matrix_rank(jacobian, tol=1e-7)

    def test_compression_keeps_lengths_and_angles(self) -> None:
        model = nn.Sequential(nn.Flatten(), nn.Linear(48, 20), nn.Tanh(), nn.Linear(20, 5))
        x = torch.rand(3, 4, 4, generator=lg.rng(2), dtype=torch.float64)
        jacobian = UpdateJacobian(model, x, torch.tensor([1]))
        assert jacobian.equations == (48 + 20) + 20 + (20 + 5) + 5
        stored = jacobian.matrix()

        def plain(point: Tensor) -> Tensor:
            return torch.cat([part.reshape(-1) for part in jacobian.gradients(point).values()])

        whole = torch.func.jacfwd(plain)(jacobian.point)
        assert len(whole) == jacobian.entries == 48 * 20 + 20 + 20 * 5 + 5
        torch.testing.assert_close(stored.T @ stored, whole.T @ whole, rtol=1e-10, atol=1e-14)
        vectors = torch.randn(3, 48, generator=lg.rng(3), dtype=torch.float64)
        torch.testing.assert_close(jacobian.gram_products(vectors), vectors @ whole.T @ whole, rtol=1e-9, atol=1e-13)

    @pytest.mark.parametrize("convolutions", [((6, 4, 2, 0),), ((8, 3, 1, 1), (8, 3, 2, 1)), ((1, 3, 1, 0),)])
    def test_lanczos_agrees_with_exact(self, convolutions: tuple[tuple[int, int, int, int], ...]) -> None:
        model, x = chain(*convolutions, shape=(3, 10, 10)), torch.rand(1, 3, 10, 10, generator=lg.rng(4))
        exact = lg.leakage_score(model, x, noise=1e-2)
        estimate = lg.leakage_score(model, x, noise=1e-2, exact=False, probes=16)
        assert (exact.method, estimate.method) == ("exact", "lanczos")
        assert abs(estimate.leaked_dimensions - exact.leaked_dimensions) < 3.5 * estimate.leaked_standard_error
        assert estimate.leaked_standard_error < 0.05 * exact.leaked_dimensions
        assert 0 < estimate.standard_error < 0.15 * exact.posterior_error
        assert abs(estimate.posterior_error - exact.posterior_error) < 3.5 * estimate.standard_error
        assert estimate.joint_deficit is None
        assert any("standard error" in sentence for sentence in estimate.caveats)

    def test_without_storing_the_jacobian(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model, x = chain((6, 4, 2, 0), shape=(3, 10, 10)), torch.rand(1, 3, 10, 10, generator=lg.rng(4))
        stored = lg.leakage_score(model, x)
        monkeypatch.setattr("leakgauge.analysis.leakage_score.STORED_NUMBERS", 1_000)
        products = lg.leakage_score(model, x)
        assert products.posterior_error == pytest.approx(stored.posterior_error, rel=1e-6)
        assert products.leaked_dimensions == pytest.approx(stored.leaked_dimensions, rel=1e-6)
        assert products.joint_deficit == stored.joint_deficit
        assert products.rank_tolerance > stored.rank_tolerance
        assert any("too large to store" in sentence for sentence in products.caveats)

    def test_the_bracket_holds_the_value_at_every_length(self) -> None:
        factor = (
            torch.randn(60, 80, generator=lg.rng(5), dtype=torch.float64)
            * torch.logspace(3, -2, 60, dtype=torch.float64)[:, None]
        )
        matrix = factor.T @ factor
        starts = torch.randn(4, 80, generator=lg.rng(6), dtype=torch.float64)
        truth = (starts @ torch.linalg.inv(torch.eye(80, dtype=torch.float64) + matrix) * starts).sum(1)
        for steps in (3, 10, 30, 80):
            bracket = quadrature(lambda vectors: vectors @ matrix, starts, steps, 0.0)
            assert bool((bracket.lower <= truth * (1 + 1e-6)).all())
            assert bool((bracket.upper >= truth * (1 - 1e-6)).all())
        torch.testing.assert_close(bracket.middle, truth, rtol=2e-3, atol=0.0)


class TestKnownDeficits:
    @pytest.mark.parametrize(
        ("first", "missing"),
        [((6, 4, 2, 0), 222), ((1, 3, 1, 0), 546), ((12, 3, 4, 1), 405), ((12, 5, 2, 0), 93), ((9, 3, 2, 1), 30)],
    )
    def test_one_layer(self, first: tuple[int, int, int, int], missing: int) -> None:
        found = lg.leakage_score(chain(first), picture())
        assert found.joint_deficit == missing
        assert found.leaked_dimensions <= found.unknowns - missing + 1e-6

    def test_a_deeper_deficit_that_earlier_gradients_complete_is_no_deficit(self) -> None:
        found = lg.leakage_score(chain((16, 3, 1, 1), (16, 3, 2, 1), (32, 3, 2, 1)), picture())
        assert found.joint_deficit == 0
        assert found.bottleneck is None
        assert found.psnr_equivalent > 50

    def test_the_first_layer_is_a_cut(self) -> None:
        found = lg.leakage_score(chain((6, 4, 2, 0), (16, 3, 1, 1)), picture())
        assert found.joint_deficit is not None
        assert found.joint_deficit >= 222
        assert found.bottleneck == "0"

    def test_the_layer_at_fault_is_named(self) -> None:
        found = lg.leakage_score(chain((6, 3, 1, 0), (3, 4, 2, 0)), picture())
        assert found.bottleneck == "2"
        pooled = nn.Sequential(nn.AvgPool2d(4), *chain((12, 3, 1, 1), shape=(3, 4, 4)))
        assert lg.leakage_score(pooled, picture()).bottleneck == "0"
        jacobian = UpdateJacobian(pooled, picture()[0], torch.tensor([0]))
        assert call_order(jacobian) == ["0", "1", "2", "3", "4"]

    def test_knowing_a_later_output_leaves_more_unknown(self) -> None:
        shape = (3, 10, 10)
        x, prior = torch.rand(shape, generator=lg.rng(8), dtype=torch.float64), ImagePrior(shape)
        jacobian = UpdateJacobian(chain((6, 3, 1, 0), (4, 3, 2, 0), (3, 2, 1, 0), shape=shape), x, torch.tensor([0]))
        matrix, std = jacobian.matrix(), 1e-2 * jacobian.norm / math.sqrt(jacobian.entries)
        root, order = prior.root(torch.eye(300, dtype=torch.float64)), call_order(jacobian)
        errors = [error_up_to(jacobian, matrix, prior, std, order, index, root) for index in range(len(order))]
        errors.append(exact_posterior(matrix, prior, std).error)
        assert all(later >= earlier * (1 - 1e-6) for earlier, later in pairwise(errors))
        assert errors[2] > 100 * errors[1] > 0


class TestPrior:
    @pytest.mark.parametrize("shape", [(3, 8, 6), (1, 5, 5), (1, 1, 12), (4, 1, 7), (6, 3, 3)])
    @pytest.mark.parametrize("kind", ["natural", "white"])
    def test_symmetric_with_the_variance_it_says(self, shape: tuple[int, int, int], kind: str) -> None:
        prior = ImagePrior(shape, kind)
        root = prior.root(torch.eye(prior.size, dtype=torch.float64))
        torch.testing.assert_close(root, root.T)
        assert float(torch.linalg.eigvalsh(root).min()) > 0
        assert float((root @ root).trace()) / prior.size == pytest.approx(prior.error) == pytest.approx(1 / 16)

    def test_leading_directions_are_eigenvectors_of_large_variance(self) -> None:
        prior = ImagePrior((3, 8, 6))
        waves = prior.leading(5)
        torch.testing.assert_close(waves @ waves.T, torch.eye(5, dtype=torch.float64))
        sizes = prior.root(waves).norm(dim=1)
        torch.testing.assert_close(prior.root(waves), waves * sizes[:, None])
        assert float(sizes.square().sum()) > 0.5 * prior.size * prior.error
        assert len(ImagePrior((3, 8, 6), "white").leading(5)) == 0

    def test_neighbours_and_channels_correlate(self) -> None:
        covariance = dense_covariance(ImagePrior(SHAPE)).reshape(3, 16, 16, 3, 16, 16)
        own, near, far = covariance[0, 8, 8, 0, 8, 8], covariance[0, 8, 8, 0, 8, 9], covariance[0, 8, 8, 0, 8, 15]
        assert 0.7 < near / own < 1
        assert far < 0.7 * near
        assert covariance[0, 8, 8, 1, 8, 8] / own == pytest.approx(0.87)

    def test_white_overstates_what_is_missing(self) -> None:
        model = chain((6, 4, 2, 0))
        natural, white = (lg.leakage_score(model, picture(), prior=kind) for kind in ("natural", "white"))
        assert white.posterior_error > 3 * natural.posterior_error
        assert any("overstates safety" in sentence for sentence in white.caveats)


class TestMeaning:
    def test_more_noise_leaks_less(self) -> None:
        scores = [lg.leakage_score(chain((6, 4, 2, 0)), picture(), noise=noise) for noise in (1e-7, 1e-2, 1e4)]
        errors = [score.posterior_error for score in scores]
        assert errors == sorted(errors)
        assert errors[-1] == pytest.approx(1 / 16, rel=0.05)
        assert scores[0].leaked_dimensions == pytest.approx(768 - 222, abs=0.1)

    def test_pixel_units(self) -> None:
        spec = lg.ImageSpec(SHAPE, mean=0.5, std=0.25)
        model, x = chain((6, 4, 2, 0)), picture()
        scaled = nn.Sequential(nn.BatchNorm2d(3, eps=0.0, affine=False), model)
        scaled[0].running_mean.fill_(0.5)  # type: ignore[union-attr, operator]
        scaled[0].running_var.fill_(0.0625)  # type: ignore[union-attr, operator]
        inside = lg.leakage_score(scaled, x, label=1)
        outside = lg.leakage_score(model, spec.normalise(x), label=1, spec=spec)
        assert inside.posterior_error == pytest.approx(outside.posterior_error, rel=1e-5)

    def test_without_a_probe_pictures_are_drawn_by_seed(self) -> None:
        shape = (3, 9, 9)
        model = chain((6, 4, 2, 0), shape=shape)
        first, again, other = (lg.leakage_score(model, input_shape=shape, seed=seed, pictures=2) for seed in (0, 0, 1))
        assert first == again
        assert first.pictures == 2
        assert first.standard_error > 0
        assert first.posterior_error != other.posterior_error
        assert any("drawn from the prior" in sentence for sentence in first.caveats)

    def test_rows_of_a_table_and_other_losses(self) -> None:
        row = torch.rand(1, 14, generator=lg.rng(7))
        model = nn.Sequential(nn.Linear(14, 8), nn.Tanh(), nn.Linear(8, 1))
        found = lg.leakage_score(model, row, loss="binary_cross_entropy", prior="white")
        assert found.label in (0, 1)
        assert found.joint_deficit == 0
        assert lg.leakage_score(model, row, loss="mse", label=torch.tensor([[0.3]])).label is None
        wider = nn.Sequential(nn.Linear(14, 8), nn.Tanh(), nn.Linear(8, 3))
        assert any("prior='white'" in sentence for sentence in lg.leakage_score(wider, row, loss="mse").caveats)

    def test_a_network_without_signal_leaks_nothing(self) -> None:
        model = chain((6, 4, 2, 0))
        for parameter in model.parameters():
            parameter.data.zero_()
        model[-1].bias.data.copy_(torch.tensor([1e4] + [0.0] * 9))  # type: ignore[union-attr, operator, arg-type]
        found = lg.leakage_score(model, picture())
        assert found.posterior_error == pytest.approx(1 / 16)
        assert (found.leaked_dimensions, found.joint_deficit) == (0.0, 768)

    def test_the_model_is_left_alone_and_the_record_is_json(self) -> None:
        import json

        model = chain((6, 4, 2, 0)).train()
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        record = lg.leakage_score(model, picture()).to_json()
        assert model.training
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
        assert json.loads(json.dumps(record))["psnr_equivalent"] == pytest.approx(record["psnr_equivalent"])


class TestErrors:
    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ({}, "needs a probe"),
            ({"probe": torch.rand(2, 3, 16, 16)}, "expected one example"),
            ({"probe": torch.zeros(1, 3, 16, 16, dtype=torch.int64)}, "floating-point"),
            ({"probe": torch.full((1, 3, 16, 16), math.nan)}, "not finite"),
            ({"input_shape": (3, 16)}, "pictures \\(C, H, W\\) or rows"),
            ({"input_shape": (5, 16, 16)}, "does not take one example"),
            ({"input_shape": SHAPE, "noise": 0.0}, "noise is 0.0"),
            ({"input_shape": SHAPE, "prior": "nature"}, "Did you mean 'natural'"),
            ({"input_shape": SHAPE, "loss": "hinge"}, "no loss 'hinge'"),
            ({"input_shape": SHAPE, "label": 10}, "10 classes"),
            ({"input_shape": SHAPE, "pictures": 0}, "pictures is 0"),
        ],
    )
    def test_one_clear_sentence(self, arguments: dict[str, object], words: str) -> None:
        with pytest.raises(lg.LeakgaugeError, match=words):
            lg.leakage_score(chain((6, 4, 2, 0)), **arguments)  # type: ignore[arg-type]

    def test_nothing_to_train(self) -> None:
        with pytest.raises(lg.LeakgaugeError, match="requires_grad"):
            lg.leakage_score(chain((6, 4, 2, 0)).requires_grad_(False), picture())
