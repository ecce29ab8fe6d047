"""A Flower mod as a filter of tensors; and that Flower is imported by nobody who does not ask for it."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from flwr.app import ArrayRecord, Error, Message, RecordDict
from flwr.client.mod.secure_aggregation.secaggplus_mod import secaggplus_mod
from flwr.clientapp.mod import LocalDpMod, adaptiveclipping_mod, fixedclipping_mod

import leakgauge as lg
from leakgauge.errors import IntegrationError
from leakgauge.integrations import flower
from leakgauge.integrations.flower import mod_as_filter

SHAPES = {"conv.weight": (40, 3, 3, 3), "conv.bias": (40,), "linear.weight": (10, 900)}


def update(scale):
    def draw(name):
        return {key: torch.randn(shape, generator=lg.rng(0, name, key)) for key, shape in SHAPES.items()}

    before = draw("before")
    return before, {name: before[name] + scale * change for name, change in draw("change").items()}


def change(before, after):
    return torch.cat([(after[name] - before[name]).flatten() for name in before])


def test_a_mod_that_does_nothing_lets_the_update_out_bit_for_bit():
    before, after = update(0.1)
    out = mod_as_filter(lambda message, context, call_next: call_next(message, context))(before, after)
    assert list(out) == list(after)
    assert all(torch.equal(out[name], after[name]) for name in after)


@pytest.mark.parametrize("mod", [fixedclipping_mod, adaptiveclipping_mod])
def test_clipping_mods_scale_the_whole_change_to_their_norm(mod):
    before, after = update(0.1)
    plain = change(before, after)
    clipped = change(before, mod_as_filter(mod, config={"clipping_norm": 0.5})(before, after))
    assert clipped.norm() == pytest.approx(0.5, rel=1e-4)
    assert torch.nn.functional.cosine_similarity(clipped, plain, dim=0) > 1 - 1e-5
    kept = change(before, mod_as_filter(mod, config={"clipping_norm": 100.0})(before, after))
    assert torch.allclose(kept, plain, atol=1e-6)


def test_local_privacy_adds_the_noise_that_its_parameters_say():
    before, _ = update(0.1)
    out = mod_as_filter(LocalDpMod(clipping_norm=1.0, sensitivity=0.01, epsilon=1.0, delta=1e-5))(before, update(1e-4)[1])
    noise = change(update(1e-4)[1], out)
    assert noise.std() == pytest.approx(0.01 * math.sqrt(2 * math.log(1.25 / 1e-5)), rel=0.05)


def test_a_mod_that_refuses_or_fails_says_why():
    before, after = update(0.1)
    with pytest.raises(IntegrationError, match="fixedclipping_mod let no update out: .*clipping_norm"):
        mod_as_filter(fixedclipping_mod)(before, after)
    with pytest.raises(IntegrationError, match="secaggplus_mod raised KeyError"):
        mod_as_filter(secaggplus_mod)(before, after)
    with pytest.raises(IntegrationError, match="that the mod silent let out holds no ArrayRecord"):

        def silent(message, context, call_next):
            return Message(RecordDict({}), reply_to=message)

        mod_as_filter(silent)(before, after)
    with pytest.raises(IntegrationError, match="let no update out: 7"):
        mod_as_filter(lambda message, context, call_next: Message(Error(7), reply_to=message))(before, after)


def test_a_mod_sees_the_settings_and_the_number_of_examples():
    seen = []

    def look(message, context, call_next):
        reply = call_next(message, context)
        seen.append((dict(message.content["config"]), dict(reply.content["metrics"]), message.metadata.message_type))
        reply.content["other"] = ArrayRecord()
        return reply

    mod_as_filter(look, config={"clipping_norm": 2.0, "server-round": 5}, num_examples=17)(*update(0.1))
    assert seen == [({"server-round": 5, "clipping_norm": 2.0}, {"num-examples": 17}, "train")]


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)


def test_nothing_but_the_flower_integration_imports_flower():
    code = (
        "import sys, leakgauge as lg; lg.Recorder, lg.Guard, lg.Exchange, lg.attack\n"
        "import leakgauge.cli.app, leakgauge.integrations\n"
        "print(sorted(name for name in ('flwr', 'ray') if name in sys.modules))"
    )
    done = run_python(code)
    assert done.stdout.strip() == "[]", done.stderr


def test_without_flower_a_sentence_names_the_extra():
    done = run_python("import sys; sys.modules['flwr'] = None\nimport leakgauge.integrations.flower")
    assert done.returncode != 0
    assert "leakgauge[flower]" in done.stderr.splitlines()[-1]


def test_the_page_names_what_is_there():
    page = (Path(__file__).resolve().parents[2] / "docs" / "flower.md").read_text()
    named = {
        name.strip() for line in re.findall(r"from leakgauge\.integrations\.flower import (.*)", page) for name in line.split(",")
    }
    assert named == {"RecordingMod", "RecordingGrid", "run_in_process"}
    assert named <= set(flower.__all__)
    assert set(flower.__all__) <= set(dir(flower))
