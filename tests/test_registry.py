"""Names to objects: entry points, catalogues, options, and the sentences for wrong ones."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leakgauge.attacks.base import Attack
from leakgauge.defences import Defence, GaussianNoise
from leakgauge.errors import OptionError
from leakgauge.registry import KINDS, catalogue, find, make, parse_call

NEEDED: dict[str, dict[str, float]] = {
    "central-dp": {"noise_multiplier": 1.0, "clip_norm": 1.0},
    "clip": {"norm": 1.0},
    "dp-sgd": {"noise_multiplier": 1.0, "clip_norm": 1.0},
    "gaussian-noise": {"std": 0.1},
    "laplacian-noise": {"scale": 0.1},
    "percentile-noise": {"sigma0": 0.1},
    "percentile-sharing": {"percentile": 50.0, "gamma": 1.0},
    "prune": {"fraction": 0.1},
    "quantise": {"bits": 8},
    "svt": {"fraction": 0.1},
    "top-k": {"fraction": 0.1},
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_entry_describes_itself(kind: str) -> None:
    entries = catalogue(kind)
    assert [entry.name for entry in entries] == sorted({entry.name for entry in entries})
    for entry in entries:
        assert entry.summary.endswith("."), entry.name
        assert len(entry.summary) > 20
        if kind == "attacks":
            assert entry.needs, entry.name
            assert any(character.isdigit() for character in entry.source), f"{entry.name}: a source has a year"


def test_attacks_and_defences_are_what_they_say() -> None:
    attacks = {entry.name for entry in catalogue("attacks")}
    assert {"dlg", "idlg", "inverting-gradients", "mu-2022", "linear-layer", "control"} <= attacks
    for name in attacks:
        made = make("attacks", name)
        assert isinstance(made, Attack)
        assert type(made)(**{k: getattr(made, k) for k in made.__dataclass_fields__}) == made or name == "control"
    for entry in catalogue("defences"):
        made = make("defences", entry.name, **NEEDED.get(entry.name, {}))
        assert isinstance(made, Defence)
        assert made.name == entry.name
        assert made.record().name == entry.name


def test_the_options_listed_are_those_that_are_taken() -> None:
    for kind in KINDS:
        for entry in catalogue(kind):
            taken = list(inspect.signature(find(kind, entry.name)).parameters)
            assert [option.partition("=")[0] for option in entry.options] == [name for name in taken if name not in ("kwargs",)]
    listed = {entry.name: entry.options for entry in catalogue("attacks")}
    assert "labels=joint" in listed["dlg"]
    assert {entry.name: entry.options for entry in catalogue("defences")}["prune"] == ("fraction",)


@pytest.mark.parametrize(
    ("kind", "name", "options", "words"),
    [
        ("attacks", "dgl", {}, r"There is no attack 'dgl'\. Did you mean 'dlg'\?"),
        ("attacks", "inverting-gradient", {}, r"Did you mean 'inverting-gradients'\?"),
        ("attacks", "xyzzy", {}, r"There is no attack 'xyzzy'\. Known: .*control.*dlg"),
        ("defences", "gaussian", {}, r"There is no defence 'gaussian'\. Did you mean 'gaussian-noise'\?"),
        ("attack", "dlg", {}, r"There is no catalogue of 'attack'\. Did you mean 'attacks'\?"),
        ("attacks", "dlg", {"restart": 2}, r"The attack 'dlg' has no option 'restart'\. Did you mean 'restarts'\?"),
        ("defences", "half-precision", {"bits": 8}, r"The defence 'half-precision' has no option 'bits'\. It takes no options\."),
        (
            "defences",
            "gaussian-noise",
            {},
            r"The defence 'gaussian-noise' needs the option 'std', as in gaussian-noise:std=\.\.\.",
        ),
    ],
)
def test_wrong_names_and_options_are_named(kind: str, name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        make(kind, name, **options)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dlg", ("dlg", {})),
        (" dlg : ", ("dlg", {})),
        ("dlg:restarts=3", ("dlg", {"restarts": 3})),
        ("dlg:tv=1e-3,signed=false, start = grey", ("dlg", {"tv": 1e-3, "signed": False, "start": "grey"})),
        ("x:a=True,b=NONE,c=-2,d=.5,e=1.0,f=", ("x", {"a": True, "b": None, "c": -2, "d": 0.5, "e": 1.0, "f": ""})),
        ("x:tv-weight=1", ("x", {"tv_weight": 1})),
        ("x:path=a=b", ("x", {"path": "a=b"})),
        ("x:url=http://h:1", ("x", {"url": "http://h:1"})),
    ],
)
def test_calls_as_text(text: str, expected: tuple[str, dict[str, Any]]) -> None:
    name, options = parse_call(text)
    assert (name, options) == expected
    assert {key: type(value) for key, value in options.items()} == {key: type(value) for key, value in expected[1].items()}


def test_an_option_without_a_value_is_named() -> None:
    with pytest.raises(OptionError, match=r"The option 'signed' in 'dlg:signed' has no value; expected dlg:signed=VALUE"):
        parse_call("dlg:signed")


WORDS = st.from_regex(r"[a-z][a-z_]{0,8}", fullmatch=True).filter(
    lambda word: word not in ("true", "false", "none", "inf", "nan", "infinity")
)
VALUES = st.one_of(st.booleans(), st.none(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), WORDS)


@settings(max_examples=80, deadline=None)
@given(WORDS, st.dictionaries(WORDS, VALUES, max_size=4))
def test_what_is_written_is_read(name: str, options: dict[str, Any]) -> None:
    text = f"{name}:" + ",".join(f"{key}={value}" for key, value in options.items())
    assert parse_call(text) == (name, options)


def test_made_objects_print_as_the_call_that_makes_them() -> None:
    made = make("defences", "gaussian-noise", std=0.25)
    assert made == GaussianNoise(std=0.25)
    assert repr(made) == "GaussianNoise(std=0.25, buffers=False)"
    name, options = parse_call("gaussian-noise:std=0.25")
    assert make("defences", name, **options) == made
