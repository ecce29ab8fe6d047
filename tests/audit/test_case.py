"""Cases: from client to record, with every condition filled, and the attack kept from the truth."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import pytest
import torch

from leakgauge.audit import case as case_module
from leakgauge.audit.case import Case, attack_call, play, reproduce, run_case
from leakgauge.audit.conditions import conditions_of, defence_text, range_text, training_text
from leakgauge.audit.folder import load_records, save_record
from leakgauge.audit.making import FRAMES, calibration, record_of
from leakgauge.audit.record import Conditions, Series
from leakgauge.core.reconstruction import Frame, Outcome, Reconstruction, Stats, unverified
from leakgauge.core.spec import ImageSpec
from leakgauge.core.threat import ThreatModel
from leakgauge.core.training import LocalTraining
from leakgauge.data import load_data
from leakgauge.defences import GaussianNoise
from leakgauge.errors import OptionError, UnsupportedError
from leakgauge.measures.score import score_tensor
from leakgauge.models import load_model

MODEL = "mlp:hidden=16,activation=sigmoid"
CASE = Case(MODEL, "demo:cat?size=8", "linear-layer", title="A cat")


def perfect(case: Case, flip: bool = False, **stats: object) -> tuple[object, Reconstruction, object]:
    """An observation, its batch, and a reconstruction that is the batch itself (in reverse order)."""
    batch = load_data(str(case.data))
    model = load_model(MODEL, input_shape=batch.spec.shape)
    seen = play(model, batch, model_name=MODEL)
    inputs = batch.inputs.flip(0) if flip else batch.inputs
    labels = batch.labels.flip(0) if flip else batch.labels
    count = len(batch)
    guess = Reconstruction(
        inputs, labels, Outcome.CONVERGED, True, unverified(count), torch.ones(count), Stats(**stats), 0.5, "made-up"
    )
    return seen, guess, batch


def test_every_condition_is_filled() -> None:
    record = run_case(CASE)
    assert record.conditions.text is None
    for item in (item for item in fields(Conditions) if item.name != "text"):
        assert getattr(record.conditions, item.name) not in ("", None, {}), item.name
    assert record.conditions.model == MODEL
    assert record.conditions.model_state == "untrained"
    assert record.conditions.training == "one gradient"
    assert record.conditions.seeds == {"client": 0, "attack": 0, "model": 0}
    assert set(record.conditions.versions) == {"leakgauge", "python", "torch", "threads"}
    assert record.conditions.realistic
    assert record.bound
    assert record.certified == 1
    assert record.scores[0].certified
    assert record.scores[0].psnr > 80


def test_a_record_survives_the_disk(tmp_path) -> None:
    record = run_case(replace(CASE, series=Series("Sweep", 1.0, "one")))
    save_record(record, tmp_path)
    (loaded,) = load_records(tmp_path)
    assert repr(loaded) == repr(record)  # NaN differs from itself, its text does not
    assert torch.equal(loaded.pictures.guess, record.pictures.guess)


def test_the_same_case_gives_the_same_record() -> None:
    case = Case("lenet-dlg:width=2", "demo:cat?size=8", "idlg:refine=false", budget=12)
    first, second = run_case(case), run_case(case)
    assert replace(first, pictures=None, seconds=0.0) == replace(second, pictures=None, seconds=0.0)
    assert torch.equal(first.pictures.guess, second.pictures.guess)
    assert run_case(replace(case, attack_seed=1)).key != first.key


def test_the_attack_receives_the_observation_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever reaches the attack holds neither the picture, nor the labels, nor a seed of the client."""
    held: list[tuple[tuple[object, ...], dict[str, object]]] = []

    def spy(*positional: object, **named: object) -> Reconstruction:
        held.append((positional, named))
        raise UnsupportedError("only looking")

    monkeypatch.setattr(case_module, "attack", spy)
    run_case(replace(CASE, seed=12345, attack_seed=7), keep_unsupported=True)
    (positional, named) = held[0]
    seen = positional[0]
    assert positional[1:] == ("linear-layer",)
    assert set(named) == {"seed", "budget", "time_limit", "device", "cancelled", "progress"}
    assert named["seed"] == 7
    assert seen.labels is None
    assert "12345" not in repr(seen)
    assert "cat" not in repr(seen)


def test_an_attack_that_does_not_apply_raises_or_is_kept_with_its_reason() -> None:
    case = Case("lenet-dlg:width=2", "demo:cat,retina?size=8", "linear-layer")
    with pytest.raises(UnsupportedError):
        run_case(case)
    record = run_case(case, keep_unsupported=True)
    assert record.outcome == "UNSUPPORTED"
    assert "Conv2d" in record.cause
    assert [math.isnan(score.psnr) for score in record.scores] == [True, True]
    assert [score.guess for score in record.scores] == [-1, -1]
    assert all(score.psnr > 5 for score in record.control.scores)


def test_reconstructions_are_assigned_to_originals() -> None:
    seen, guess, batch = perfect(replace(CASE, data="demo:cat,retina?size=8"), flip=True)
    record = record_of(seen, guess, batch)
    assert [score.guess for score in record.scores] == [1, 0]
    assert [score.psnr for score in record.scores] == [math.inf, math.inf]
    assert [score.label_guess for score in record.scores] == [score.label for score in record.scores] == [0, 4]
    assert [score.name for score in record.scores] == ["cat", "retina"]


def test_without_the_truth_there_is_neither_score_nor_control() -> None:
    seen, guess, _ = perfect(CASE)
    record = record_of(seen, guess)
    assert record.scores == ()
    assert record.control is None
    assert record.pictures.truth is None
    assert record.pictures.guess.shape == (1, 3, 8, 8)


def test_the_control_is_scored_by_the_same_rule() -> None:
    record = run_case(replace(CASE, data="demo:cat,retina?size=8&mean=0.5&std=0.25"), keep_unsupported=True)
    batch = load_data("demo:cat,retina?size=8&mean=0.5&std=0.25")
    again = score_tensor(batch, batch.spec.normalise(record.pictures.control))
    assert [score.psnr for score in record.control.scores] == pytest.approx(again.psnr.tolist(), rel=1e-5)
    assert record.conditions.input_range == "mean 0.5, std 0.25"
    assert "public pictures" in record.control.rule or record.control.rule == "mid-grey"


def test_the_filmstrip_is_short_small_and_in_range() -> None:
    spec_case = replace(CASE, data="demo:cat?size=96&mean=0.5&std=0.5")
    batch = load_data(str(spec_case.data))
    frames = tuple(Frame(step, batch.inputs * 3) for step in range(50))
    seen, guess, batch = perfect(spec_case, frames=frames)
    record = record_of(seen, guess, batch)
    assert record.pictures.frames.shape == (FRAMES, 1, 3, 64, 64)
    assert record.frame_evaluations[0] == 0
    assert record.frame_evaluations[-1] == 49
    assert 0 <= float(record.pictures.frames.min()) <= float(record.pictures.frames.max()) <= 1


def test_values_that_are_not_finite_are_recorded_and_not_scored() -> None:
    seen, guess, batch = perfect(CASE)
    record = record_of(seen, replace(guess, inputs=guess.inputs * float("nan"), outcome=Outcome.NONFINITE), batch)
    assert record.outcome == "NONFINITE"
    assert not record.scores[0].psnr > 0


def test_granted_labels_make_a_diagnostic_figure() -> None:
    record = run_case(replace(CASE, threat=ThreatModel.honest_but_curious(labels=True)))
    assert not record.conditions.realistic
    assert "the labels of the batch" in record.conditions.knowledge
    assert record.conditions.labels == "known"


def test_a_defence_is_recorded_and_changes_the_result() -> None:
    record = run_case(replace(CASE, defences=("gaussian-noise:std=0.01",)))
    assert record.conditions.defence == "gaussian-noise (std 0.01)"
    assert record.scores[0].psnr < run_case(CASE).scores[0].psnr - 20
    same = run_case(replace(CASE, defences=(GaussianNoise(std=0.01),)))
    assert same.scores[0].psnr == record.scores[0].psnr


def test_an_unknown_defence_is_not_called_none() -> None:
    threat = ThreatModel.honest_but_curious(defence=False)
    assert run_case(replace(CASE, defences=("half-precision",), threat=threat)).conditions.defence == "not known"


@pytest.mark.parametrize("text", ["idlg:seed=1", "idlg:budget=5", "idlg:device=cpu"])
def test_what_belongs_to_the_call_is_no_option(text: str) -> None:
    with pytest.raises(OptionError, match="beside the attack"):
        attack_call(text)


def test_the_command_names_what_differs_from_the_default() -> None:
    command = reproduce(CASE)
    assert command.startswith(f"leakgauge capture {MODEL} --data 'demo:cat?size=8' --out client.safetensors && leakgauge attack")
    assert "--lr" not in command
    training = LocalTraining(steps=2, lr=0.1, shuffle=False, nesterov=True, momentum=0.5, schedule=(1.0, 0.5))
    longer = reproduce(replace(CASE, training=training, budget=30, attack_seed=3, defences=(GaussianNoise(std=0.5),)))
    for part in ("--steps 2", "--lr 0.1", "--no-shuffle", "--nesterov", "--schedule 1,0.5", "--defence gaussian-noise:std=0.5"):
        assert part in longer
    assert "--budget 30" in longer
    assert "--seed 3" in longer
    assert reproduce(replace(CASE, data=load_data("demo:cat?size=8"))) == ""


@pytest.mark.parametrize(
    ("training", "words"),
    [
        (LocalTraining(), "one gradient"),
        (LocalTraining(steps=5, lr=0.1), "5 SGD steps, lr 0.1"),
        (LocalTraining(epochs=1, lr=0.01, optimiser="adam", batch_size=4), "1 epoch of Adam, lr 0.01, mini-batches of 4"),
        (LocalTraining(clip_norm=1.0, label_smoothing=0.1), "one gradient, gradient norm at most 1, label smoothing 0.1"),
    ],
)
def test_training_in_words(training: LocalTraining, words: str) -> None:
    assert training_text(training) == words


def test_ranges_and_defences_in_words() -> None:
    assert range_text(ImageSpec((3, 4, 4))) == "[0, 1]"
    assert range_text(ImageSpec((3, 4, 4), (0.1, 0.2, 0.3), 0.5)) == "mean 0.1 0.2 0.3, std 0.5"
    assert defence_text(()) == "none"


def test_batch_norm_in_words() -> None:
    case = Case("resnet20", "demo:cat?size=8", "control", training=LocalTraining(mode="train"))
    assert run_case(case).conditions.batch_norm == "statistics seen"
    blind = run_case(replace(case, threat=ThreatModel.honest_but_curious(batch_norm=False)))
    assert blind.conditions.batch_norm == "statistics not seen"
    assert run_case(CASE).conditions.batch_norm == "none in the network"
    assert "the BatchNorm statistics after local training" not in run_case(CASE).conditions.knowledge


def test_labels_in_words() -> None:
    seen, guess, _ = perfect(CASE)
    told = {"model": MODEL, "model_state": "as given", "budget": 1, "seeds": {}}
    for mode, words in (("joint", "optimised jointly"), ("softmax", "optimised jointly"), ("recovered", "recovered")):
        labelled = replace(guess, stats=Stats(options={"labels": mode}))
        assert conditions_of(seen, labelled, **told).labels == words
    assert conditions_of(seen, replace(guess, labels=None), **told).labels == "not used"


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_there_are_public_pictures_of_any_number_of_channels(channels: int) -> None:
    pictures = calibration((channels, 9, 7), 3)
    assert pictures.shape == (3, channels, 9, 7)
    assert 0 <= float(pictures.min()) <= float(pictures.max()) <= 1


def test_cancelling_reaches_the_attack() -> None:
    case = Case("lenet-dlg:width=2", "demo:cat?size=8", "inverting-gradients", budget=100_000)
    polls = iter(range(1000))
    assert run_case(case, cancelled=lambda: next(polls) > 5).outcome == "TIMEOUT"


def test_the_table_and_the_radius_of_a_closed_form_reach_the_record() -> None:
    record = run_case(Case("lenet-dlg", "demo:cat?size=16", "recursive"), device="cpu")
    assert record.outcome == "DETERMINED"
    assert record.certified == 1
    assert [layer.name for layer in record.layers] == ["conv3", "conv2", "conv1"]
    assert all(layer.rank_deficiency == 0 for layer in record.layers)
    assert 0 < record.radius < 1e-3
    assert record.scores[0].psnr > 90
    assert not run_case(CASE).layers
    assert math.isnan(run_case(CASE).radius)
