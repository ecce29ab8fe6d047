"""A prior picture given as data: `--with bn-matching:prior=demo:cat`."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch
from cli_run import Leakgauge
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

import leakgauge as lg
from leakgauge.audit.case import Case, run_case
from leakgauge.audit.prior import prior_picture, with_picture, without_picture
from leakgauge.core import ImageSpec
from leakgauge.registry import parse_call

MODEL = "shallow-resnet:width=4"
SPEC = ImageSpec((1, 16, 12), mean=0.5, std=0.25)
START_ONLY = "warm=false,polish=false,grid=false"  # with a budget of 1 the result is the start itself


@pytest.fixture
def observation(leakgauge: Leakgauge) -> str:
    made = leakgauge(
        "capture", MODEL, "--data", "demo:astronaut?size=16&grey=true", "--labels", "--lr", 0.1, "--out", "o.safetensors"
    )
    assert made.code == 0, made.err
    return "o.safetensors"


def words(file: str, attack: str, *more: object) -> tuple[object, ...]:
    return ("attack", file, "--model", MODEL, "--with", attack, "--budget", 1, "--out", "run", *more)


def pixels_of(batch: lg.Batch) -> Tensor:
    assert batch.spec is not None
    assert isinstance(batch.inputs, Tensor)
    return batch.spec.denormalise(batch.inputs)


def test_the_attack_starts_from_the_named_picture(leakgauge: Leakgauge, observation: str) -> None:
    done = leakgauge(*words(observation, f"bn-matching:prior=demo:cat?size=16,{START_ONLY}", "--json"))
    assert done.code == 0, done.err
    expected = pixels_of(lg.load_data("demo:cat?size=16&grey=true"))
    torch.testing.assert_close(load_file("run/reconstruction.safetensors")["inputs"], expected, rtol=1e-5, atol=1e-5)


def test_several_pictures_are_averaged_at_the_observations_size(leakgauge: Leakgauge, observation: str) -> None:
    folder = Path("scans")
    folder.mkdir()
    for index, value in enumerate((0, 51, 255)):
        Image.new("L", (40, 40), value).save(folder / f"{index}.png")
    done = leakgauge(*words(observation, f"bn-matching:prior=folder:scans?indices=0,1&grey=true,{START_ONLY},tv=0"))
    assert done.code == 0, done.err
    torch.testing.assert_close(load_file("run/reconstruction.safetensors")["inputs"], torch.full((1, 1, 16, 16), 0.1))


@pytest.mark.parametrize(
    ("prior", "part"),
    [
        ("demo:cat?size=8", "asks for pictures of 8x8 (height by width); the observation has 16x16"),
        ("demo:cat?channels=3", "asks for 3 channel(s); the observation has 1"),
        ("folder:nowhere", "There is no nowhere"),
        ("dmo:cat", "There is no data source 'dmo'. Did you mean 'demo'?"),
        ("demo:cat?colour=1", "has no option 'colour'"),
        ("cat", "is a name; expected 'grey' or the picture itself"),
    ],
)
def test_a_prior_that_cannot_be_used_is_refused_in_a_sentence(
    leakgauge: Leakgauge, observation: str, prior: str, part: str
) -> None:
    assert part in leakgauge(*words(observation, f"bn-matching:prior={prior}")).sentence


def test_an_attack_without_a_prior_says_so(leakgauge: Leakgauge, observation: str) -> None:
    assert "has no option 'prior'" in leakgauge(*words(observation, "idlg:prior=demo:cat")).sentence


def test_a_case_reads_its_prior_too() -> None:
    case = Case(MODEL, "demo:astronaut?size=16&grey=true", f"bn-matching:prior=demo:cat,{START_ONLY}", budget=1)
    pictures = run_case(case).pictures
    assert pictures is not None
    assert pictures.guess is not None
    torch.testing.assert_close(pictures.guess, pixels_of(lg.load_data("demo:cat?size=16&grey=true")), rtol=1e-5, atol=1e-5)


def test_pictures_come_in_the_observations_shape_whatever_its_normalisation() -> None:
    found = prior_picture("demo:cat", SPEC)
    assert found.shape == SPEC.shape
    assert bool(((found >= 0) & (found <= 1)).all())
    expected = pixels_of(lg.load_data("demo:cat?size=16x12&grey=true"))[0]
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(prior_picture("demo:cat?mean=0.3&std=2", SPEC), expected)
    with pytest.raises(lg.errors.ShapeError, match="which have 1 or 3 channels; the observation has 2"):
        prior_picture("demo:cat", ImageSpec((2, 8, 8)))
    with pytest.raises(lg.errors.UnsupportedError, match="no shape of pictures"):
        with_picture({"prior": "demo:cat"}, None)


def test_other_priors_stay_as_they_are() -> None:
    tensor = torch.zeros(1, 16, 12)
    for options in ({}, {"prior": None}, {"prior": "grey"}, {"prior": tensor}, {"tv": 0.1}):
        assert with_picture(options, SPEC) == options
        assert without_picture(options) == options
    assert without_picture({"prior": "demo:cat", "tv": 1}) == {"prior": None, "tv": 1}


def test_data_in_an_option_keeps_its_commas() -> None:
    assert parse_call("bn-matching:prior=demo:cat,rocket?size=8,tv=0.5") == (
        "bn-matching",
        {"prior": "demo:cat,rocket?size=8", "tv": 0.5},
    )
    text = "bn-matching:tv=1,prior=folder:a,b?indices=0,2-4&grey=true,lr=0.2"
    assert parse_call(text)[1] == {"tv": 1, "prior": "folder:a,b?indices=0,2-4&grey=true", "lr": 0.2}
    with pytest.raises(lg.errors.OptionError, match="has no value"):
        parse_call("idlg:start=grey,refine")


def test_the_commands_on_the_page_run(leakgauge: Leakgauge) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "bn-matching.md").read_text(encoding="utf-8")
    lines = re.findall(r"^leakgauge (.*)$", page, re.MULTILINE)
    assert len(lines) == 2
    for line in lines:
        words = shlex.split(line)
        done = leakgauge(*words, *(["--budget", 4] if words[0] == "attack" else []))
        assert done.code == 0, done.err


def test_a_plan_may_name_the_prior_of_one_attack(leakgauge: Leakgauge) -> None:
    plan = """
name = "tiny"
model = "lenet-dlg:width=4"
input = "1x16x16"
classes = 2
rounds = 1
data = {validation = 10, public = 4}
training = {lr = 0.05}
clients = [{name = "single", examples = 1}]
attack = {with = ["bn-matching:prior=demo:cat"], budget = 4}
"""
    Path("plan.toml").write_text(plan, encoding="utf-8")
    done = leakgauge("simulate", "plan.toml", "--out", "run")
    assert done.code == 0, done.err
    records = [path.read_text(encoding="utf-8") for path in Path("run").rglob("*.json")]
    assert any("the picture demo:cat" in text for text in records)
    Path("plan.toml").write_text(plan.replace("demo:cat", "demo:cat?size=9"), encoding="utf-8")
    assert "asks for pictures of 9x9" in leakgauge("simulate", "plan.toml", "--out", "other").sentence
