"""The guard: what it blocks, that it keeps its time, and that a failure has the stated default."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from exchanges import SPEC, exchange, network, private

from leakgauge.audit.guard.guard import Guard
from leakgauge.audit.guard.probe import Private, Probe
from leakgauge.errors import OptionError, ShapeError
from leakgauge.federated.client import Client
from leakgauge.integrations.recording.exchange import observation_of
from leakgauge.local.derivatives import directional
from leakgauge.models import load_model
from leakgauge.randomness import beside, isolated
from leakgauge.truth import Batch

LINEAR = Probe("linear-layer", time_limit=20)


def perceptron(count: int = 1):
    """An observation whose picture the linear-layer attack reads off, and its truth with 30 decoys."""
    from leakgauge.core.threat import ThreatModel

    model = load_model("mlp:hidden=32,activation=sigmoid", 10, SPEC.shape)
    own = private(count=count, decoys=30)
    update = Client(model).train(own.batch, seed=0)
    return ThreatModel.honest_but_curious().observe(update, model, SPEC), own


def test_an_identified_picture_is_blocked_and_the_reason_says_by_what():
    seen, own = perceptron()
    decision = Guard("identification < 0.05", probe=LINEAR).check(seen, own)
    assert not decision.send
    assert decision.reason == "Blocked: identification < 0.05 (it is 0.0323), by linear-layer (DETERMINED)."
    assert decision.failure == ""
    assert decision.finding.rank == 1
    assert decision.finding.decoys == 30


@pytest.mark.parametrize("rule", ["certified > 0", "explains == 1", "psnr > 30 dB", "ssim >= 0.9", "determinable > 0"])
def test_every_rule_that_holds_blocks(rule):
    seen, own = perceptron()
    assert not Guard(rule, probe=LINEAR).check(seen, own).send


@pytest.mark.parametrize("rule", ["psnr < 10", "certified > 1", "identification >= 0.5"])
def test_a_rule_that_does_not_hold_lets_the_update_go(rule):
    seen, own = perceptron()
    decision = Guard(rule, probe=LINEAR).check(seen, own)
    assert decision.send
    assert decision.reason.startswith("Sent: no rule holds")


def test_heavy_noise_lets_the_update_go_under_the_same_policy():
    seen, own = perceptron()
    noisy = {
        name: tensor + torch.randn(tensor.shape, generator=torch.Generator().manual_seed(1))
        for name, tensor in seen.tensors.items()
    }
    assert Guard("certified > 0, psnr > 20", probe=LINEAR).check(dataclasses.replace(seen, tensors=noisy), own).send


def test_a_rank_verdict_needs_neither_truth_nor_attack():
    seen, _ = perceptron()
    decision = Guard("deficit == 0").check(seen)
    assert not decision.send
    assert decision.finding is None
    deep = observation_of(exchange(), network(), spec=SPEC)
    assert Guard("deficit == 0").check(deep).failure or Guard("deficit == 0").check(deep).values["deficit"] >= 0


@pytest.mark.parametrize(("default", "send"), [("block", False), ("send", True)])
def test_without_what_a_rule_needs_the_stated_default_applies(default, send):
    seen, own = perceptron()
    decision = Guard("rdlv > 0.3", probe=LINEAR, on_failure=default).check(seen)
    assert decision.send is send
    assert "needs the truth" in decision.failure
    assert f"on_failure={default!r}" in decision.reason
    alone = Private(own.batch)
    assert "needs decoys" in Guard("identification < 0.05", probe=LINEAR, on_failure=default).check(seen, alone).failure


@pytest.mark.parametrize(("default", "send"), [("block", False), ("send", True)])
def test_a_guard_that_runs_over_its_time_decides_on_time_by_its_default(monkeypatch, default, send):
    seen, own = perceptron()
    monkeypatch.setattr(Probe, "run", lambda *_, **__: time.sleep(5))
    start = time.perf_counter()
    decision = Guard("psnr > 20", probe=LINEAR, time_limit=0.2, on_failure=default).check(seen, own)
    assert time.perf_counter() - start < 2.0
    assert decision.send is send
    assert decision.failure == "it ran over its 0.2 s"


def test_a_process_that_ends_while_a_late_guard_still_works_ends_cleanly(tmp_path):
    """An attack in a daemon thread would otherwise be cut off inside torch, and the process end by a signal."""
    script = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import torch
torch.set_num_threads(1)
from exchanges import SPEC, exchange, network, private
from leakgauge.audit.guard.guard import Guard
from leakgauge.audit.guard.probe import Probe
from leakgauge.integrations.recording.exchange import observation_of
seen = observation_of(exchange(), network(), spec=SPEC)
print(Guard("psnr > 1000", probe=Probe("bn-matching"), time_limit=0.05).check(seen, private()).failure)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "it ran over its 0.05 s\n"


def test_the_attack_of_a_guard_ends_before_the_guard_s_own_time(tmp_path):
    seen = observation_of(exchange(), network(), spec=SPEC)
    decision = Guard("psnr > 1000", probe=Probe("bn-matching", budget=10**6, time_limit=60), time_limit=3).check(seen, private())
    assert decision.failure == ""
    assert decision.seconds < 3
    assert decision.finding.psnr > 20


def test_whatever_an_attack_raises_is_a_failure_and_no_crash(monkeypatch):
    seen, own = perceptron()

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the solver broke")

    monkeypatch.setattr(Probe, "run", broken)
    decision = Guard("psnr > 20", probe=LINEAR, on_failure="send").check(seen, own)
    assert decision.send
    assert decision.failure == "RuntimeError: the solver broke"


def test_an_attack_that_does_not_apply_is_a_failure_too():
    seen = observation_of(exchange(), network(), spec=SPEC)
    decision = Guard("certified > 0", probe=LINEAR).check(seen, private())
    assert not decision.send
    assert "does not apply" in decision.failure


def test_the_training_s_draws_go_on_as_without_a_guard():
    seen, own = perceptron()
    torch.manual_seed(7)
    wanted = torch.rand(4)
    torch.manual_seed(7)
    Guard("psnr > 20", probe=LINEAR).check(seen, own)
    assert torch.equal(torch.rand(4), wanted)


def test_a_thread_beside_the_training_never_rewinds_its_draws():
    """Saving and putting back the global generator there would let noise for privacy be drawn twice."""
    torch.manual_seed(3)
    first, second = torch.rand(1), torch.rand(1)
    for inside, wanted in ((True, second), (False, first)):
        torch.manual_seed(3)
        with beside() if inside else contextlib.nullcontext(), isolated():
            assert torch.equal(torch.rand(1), first)
        assert torch.equal(torch.rand(1), wanted)


def test_two_attacks_with_forward_derivatives_in_two_threads_both_work():
    """torch keeps the level of forward differentiation per process."""
    function, point = (lambda x: (x**3).sum(0, keepdim=True)), torch.arange(1.0, 2001.0)
    wanted, wrong = directional(function, point, torch.ones(2000)), []

    def work() -> None:
        for _ in range(200):
            try:
                if not torch.equal(directional(function, point, torch.ones(2000)), wanted):
                    wrong.append("another value")
            except RuntimeError as error:
                wrong.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_decision_is_strict_json():
    seen, own = perceptron()
    decision = Guard("psnr > 20, rdlv > 5", probe=LINEAR).check(seen, own)
    assert json.loads(json.dumps(decision.to_json(), allow_nan=False))["send"] is False


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Guard("leak > 3"), "names the measure 'leak'"),
        (lambda: Guard("rdlv"), "expected MEASURE SIGN NUMBER"),
        (lambda: Guard(""), "holds no rule"),
        (lambda: Guard("rdlv > 1", on_failure="maybe"), "expected 'block' or 'send'"),
        (lambda: Guard("rdlv > 1", time_limit=0), "expected seconds > 0"),
        (lambda: Probe("linear-layr"), "linear-layer"),
        (lambda: Probe(time_limit=-1), "expected seconds > 0"),
    ],
)
def test_a_policy_that_cannot_be_read_is_refused_at_once(make, words):
    with pytest.raises(OptionError, match=words):
        make()


def test_decoys_of_another_shape_are_refused():
    with pytest.raises(ShapeError, match=r"Private.decoys has inputs of shape \(1, 9, 9\)"):
        Private(Batch(torch.zeros(1, 1, 8, 8), torch.zeros(1, dtype=torch.int64), SPEC), decoys=torch.zeros(5, 1, 9, 9))
