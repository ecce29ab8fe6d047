"""The public list: what `leakgauge` offers, resolved lazily, and nothing else."""

from __future__ import annotations

import inspect

import pytest

import leakgauge

CONTRACT = {
    "Attack",
    "Batch",
    "Client",
    "Cosine",
    "GaussianNoise",
    "GradientMatching",
    "HalfPrecision",
    "ImageSpec",
    "Knowledge",
    "LaplacianNoise",
    "LeakgaugeError",
    "LocalTraining",
    "Observation",
    "Outcome",
    "Prune",
    "Reconstruction",
    "ThreatModel",
    "Update",
    "attack",
    "catalogue",
    "counting_bound",
    "identification",
    "load_model",
    "recover_labels",
    "rng",
    "score",
    "validate",
}


def names() -> list[str]:
    return [name for name in getattr(leakgauge, "__all__", []) if not name.startswith("__")]


def test_the_contract_is_kept() -> None:
    assert set(leakgauge.__all__) >= CONTRACT, sorted(CONTRACT - set(leakgauge.__all__))


def test_the_list_is_what_dir_shows() -> None:
    assert sorted(name for name in dir(leakgauge) if not name.startswith("_")) == sorted(names())
    assert len(set(leakgauge.__all__)) == len(leakgauge.__all__)


@pytest.mark.parametrize("name", names())
def test_every_name_resolves_and_says_what_it_is(name: str) -> None:
    value = getattr(leakgauge, name)
    if inspect.isclass(value) or inspect.isroutine(value):
        words = value.__doc__ or ""
        assert words.strip(), f"{name} has no docstring"
        assert not words.startswith(f"{name}("), f"{name} has only the docstring that dataclass writes"
        assert value.__module__.startswith("leakgauge."), f"{name} comes from {value.__module__}"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing_like_this'"):
        _ = leakgauge.nothing_like_this


def test_all_names_can_be_starred() -> None:
    scope: dict[str, object] = {}
    exec("from leakgauge import *", scope)
    assert set(names()) <= set(scope)
