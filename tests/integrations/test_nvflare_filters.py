"""NVFlare's filters, driven as a client drives them: recordings and log lines are counted, results pass or are held back."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from exchanges import LR, MODEL, SPEC, exchange, network
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare_client import hand_over, same, task

from leakgauge.core.observation import Observation
from leakgauge.core.provenance import array_digest
from leakgauge.errors import IntegrationError, OptionError
from leakgauge.federated.validate import validate
from leakgauge.integrations.nvflare import RecordUpdate, record
from leakgauge.integrations.recording.log import read_log
from leakgauge.truth import Batch

SHAPE = list(SPEC.shape)


def outgoing(folder: Path, **options: object) -> RecordUpdate:
    return RecordUpdate(str(folder / "{site}"), MODEL, input_shape=SHAPE, num_classes=10, **options)


def observations(folder: Path) -> list[Observation]:
    return [Observation.load(path, network()) for path in sorted(folder.glob("*/*.safetensors"))]


def lines(folder: Path, event: str, site: str = "site-1") -> list[dict]:
    return [line for line in read_log(folder / site) if line["event"] == event]


@pytest.mark.parametrize("kind", ["WEIGHTS", "WEIGHT_DIFF"])
def test_a_result_is_recorded_and_leaves_bit_for_bit(tmp_path, kind):
    message = exchange()
    left = task(outgoing(tmp_path), kind=kind)
    wanted = message.sent if kind == "WEIGHTS" else {name: message.sent[name] - message.before[name] for name in message.sent}
    assert same(left.data, wanted)
    assert left.meta["NUM_STEPS_CURRENT_ROUND"] == 1
    (seen,) = observations(tmp_path)
    where = seen.provenance
    assert (where.engine, where.side, where.round, where.client, where.run) == ("nvflare", "client", 3, "site-1", "job-7")
    assert where.digests == {name: array_digest(torch.as_tensor(entry)) for name, entry in wanted.items()}
    assert (seen.num_examples, seen.training.lr, seen.training.steps, seen.training.mode) == (1, LR, 1, "train")
    assert where.assumed == ()
    assert seen.buffers["norm.num_batches_tracked"] == 1
    torch.testing.assert_close(seen.buffers["norm.running_mean"], torch.as_tensor(message.sent["norm.running_mean"]))
    assert validate(seen, seen.model, hand_over("site-1", 3).batch).residual < 1e-5
    assert (tmp_path / "site-1" / "MODEL").read_text() == MODEL + "\n"


def test_every_round_and_site_is_counted(tmp_path):
    for site in ("site-1", "site-2"):
        own = outgoing(tmp_path)
        for number in (0, 1, 2):
            task(own, site=site, number=number)
    assert len(observations(tmp_path)) == 6
    assert sorted((seen.provenance.client, seen.provenance.round) for seen in observations(tmp_path)) == [
        (site, number) for site in ("site-1", "site-2") for number in (0, 1, 2)
    ]


@pytest.mark.parametrize("kind", ["WEIGHTS", "WEIGHT_DIFF"])
def test_a_counter_that_fedavg_averaged_still_tells_mode_and_steps(tmp_path, kind):
    """From the second round on NVFlare sends BatchNorm's counter as a float64 scalar; the client loads it as a whole number."""
    message = exchange()
    counters = [name for name in message.before if name.endswith("num_batches_tracked")]
    before = {**message.before, **dict.fromkeys(counters, np.float64(5 / 3))}
    after = {**message.sent, **dict.fromkeys(counters, np.array(2, dtype=np.int64))}
    sent = after if kind == "WEIGHTS" else {name: after[name] - before[name] for name in after}
    task(
        outgoing(tmp_path, training={"shuffle": False}), kind=kind, before=before, sent=sent, about={"num_examples": 1, "lr": LR}
    )
    (seen,) = observations(tmp_path)
    assert len(counters) == 3
    assert (seen.training.mode, seen.training.steps) == ("train", 1)
    assert all(seen.buffers[name] == 2 for name in counters)
    assert validate(seen, seen.model, hand_over("site-1", 3).batch).residual < 1e-5


def test_what_is_stated_wins_in_the_order_client_server_job(tmp_path):
    task(
        outgoing(tmp_path, training={"lr": 1.0, "momentum": 0.5, "weight_decay": 0.1, "mode": "train"}),
        told={"fedprox_mu": 0.25, "momentum": 0.75},
        about={"lr": LR, "NUM_STEPS_CURRENT_ROUND": 4},
    )
    (seen,) = observations(tmp_path)
    told = seen.training
    assert (told.lr, told.momentum, told.weight_decay, told.proximal, told.steps) == (LR, 0.75, 0.1, 0.25, 4)
    assert "num_examples" in seen.provenance.assumed
    assert "lr" not in seen.provenance.assumed


@pytest.mark.parametrize(
    ("count", "wanted"), [(np.int64(1), 1), (1.0, 1), (0, None), (1.5, None), (float("nan"), None), ("1", None)]
)
def test_counts_of_any_number_type_are_read_and_others_are_assumed(tmp_path, count, wanted):
    task(outgoing(tmp_path), about={"num_examples": count, "lr": np.float64(LR), "NUM_STEPS_CURRENT_ROUND": np.int64(1)})
    (seen,) = observations(tmp_path)
    assert (seen.num_examples, "num_examples" in seen.provenance.assumed) == (1, wanted is None)
    assert (seen.training.lr, seen.training.steps) == (LR, 1)


def test_the_copy_of_the_received_model_survives_a_client_that_writes_into_it(tmp_path):
    message = exchange()
    before = {name: np.array(entry) for name, entry in message.before.items()}
    kept = {name: entry.copy() for name, entry in before.items()}
    own = outgoing(tmp_path)

    class Careless:  # training in place, between the two filters
        def process(self, shareable, context):
            from leakgauge.integrations.nvflare import ReceivedModel

            left = ReceivedModel().process(shareable, context)
            for name, array in before.items():
                array[...] = message.sent[name]
            return left

    task(own, incoming=Careless(), before=before)
    (seen,) = observations(tmp_path)
    assert max(float(tensor.abs().max()) for tensor in seen.tensors.values()) > 0
    assert all(np.array_equal(value.numpy(), kept[name]) for name, value in seen.model.state_dict().items())


def test_the_truth_is_written_only_when_asked(tmp_path):
    task(outgoing(tmp_path / "no", private="nvflare_client:hand_over"))
    task(outgoing(tmp_path / "yes", private="nvflare_client:hand_over", keep_truth=True))
    assert not list((tmp_path / "no").rglob("*truth*"))
    assert len(observations(tmp_path / "no")) == len(observations(tmp_path / "yes")) == 1
    (path,) = (tmp_path / "yes").rglob("*.truth.safetensors")
    assert torch.equal(Batch.load(path).inputs, hand_over("site-1", 3).batch.inputs)


def test_a_probe_logs_rdlv_and_is_waited_for_when_asked(tmp_path):
    task(outgoing(tmp_path, private="nvflare_client:hand_over", probe="control", probe_wait=True))
    (line,) = lines(tmp_path, "probe")
    assert line["attack"] == "control"
    assert line["rdlv"] is not None
    assert line["decoys"] == 20
    assert (line["round"], line["client"]) == (3, "site-1")


@pytest.mark.parametrize("blocked", ["nothing", "unchanged"])
@pytest.mark.parametrize("kind", ["WEIGHTS", "WEIGHT_DIFF"])
def test_a_blocked_result_does_not_leave(tmp_path, kind, blocked):
    own = outgoing(
        tmp_path, private="nvflare_client:hand_over", block="psnr > 0", guard_attack="control", blocked=blocked
    )  # fmt: skip
    left = task(
        own, kind=kind, about={"NUM_STEPS_CURRENT_ROUND": 1, "lr": LR, "num_examples": 1, "initial_metrics": {"loss": 0.5}}
    )
    before = exchange().before
    unchanged = before if kind == "WEIGHTS" else {name: np.zeros_like(entry) for name, entry in before.items()}
    assert left.data_kind == kind
    assert same(left.data, {} if blocked == "nothing" else unchanged)
    meta = {name: value for name, value in left.meta.items() if name != "filter_history"}
    assert meta == ({} if blocked == "nothing" else {"NUM_STEPS_CURRENT_ROUND": 1})
    (line,) = lines(tmp_path, "decision")
    assert line["send"] is False
    assert line["reason"].startswith("Blocked: psnr > 0")
    assert line["seconds"] > 0
    assert len(observations(tmp_path)) == 1


def test_a_guard_whose_rules_do_not_hold_lets_the_result_pass(tmp_path):
    left = task(outgoing(tmp_path, private="nvflare_client:hand_over", block="psnr > 1000", guard_attack="control"))
    assert same(left.data, exchange().sent)
    assert lines(tmp_path, "decision")[0]["send"] is True


@pytest.mark.parametrize("default", ["block", "send"])
def test_a_guard_over_its_time_follows_its_stated_default(tmp_path, default):
    own = outgoing(
        tmp_path, private="nvflare_client:hand_over", block="psnr > 0", guard_attack="bn-matching",
        guard_seconds=0.01, guard_failure=default,
    )  # fmt: skip
    left = task(own)
    assert bool(left.data) is (default == "send")
    (line,) = lines(tmp_path, "decision")
    assert line["failure"]
    assert line["seconds"] < 5


@pytest.mark.parametrize("name", ["loses_the_batch", "hands_over_a_word", "is_not_there"])
def test_a_function_for_the_truth_that_fails_is_logged_or_stops_the_task(tmp_path, name):
    left = task(outgoing(tmp_path / "on", private=f"nvflare_client:{name}"))
    assert same(left.data, exchange().sent)
    (line,) = lines(tmp_path / "on", "error")
    assert {"loses_the_batch": "is gone", "hands_over_a_word": "returned str", "is_not_there": "no attribute"}[name] in line[
        "words"
    ]
    assert len(lines(tmp_path / "on", "recorded")) == 1
    with pytest.raises(IntegrationError, match="told to stop"):
        task(outgoing(tmp_path / "stop", private=f"nvflare_client:{name}", on_error="stop"))
    guarded = task(outgoing(tmp_path / "guard", private=f"nvflare_client:{name}", block="psnr > 99"))
    assert guarded.data == {}


def test_a_folder_that_cannot_be_written_costs_nothing_but_the_recording(tmp_path, caplog):
    (tmp_path / "site-1").write_text("a file where the folder should be")
    left = task(outgoing(tmp_path))
    assert same(left.data, exchange().sent)
    assert "cannot be written" in caplog.text
    with pytest.raises(IntegrationError):
        task(outgoing(tmp_path, on_error="stop"))


def test_a_missing_input_filter_is_named(tmp_path):
    class Nothing:
        def process(self, shareable, context):
            return shareable

    left = task(outgoing(tmp_path), incoming=Nothing())
    assert same(left.data, exchange().sent)
    assert "add ReceivedModel() as an input filter" in lines(tmp_path, "error")[0]["words"]


def test_a_result_without_arrays_which_no_filter_sees_is_reported(tmp_path):
    left = task(outgoing(tmp_path), sent={})
    assert left.data == {}
    assert observations(tmp_path) == []
    (line,) = lines(tmp_path, "error")
    assert "round 3, client site-1: Nothing was recorded" in line["words"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"training": {"learning": 1}}, "learning"),
        ({"training": {"reduction": "sum"}}, "'mode'"),
        ({"block": "leaks > 1"}, "leaks"),
        ({"probe": "dlq"}, "dlg"),
        ({"blocked": "zero"}, "'unchanged'"),
        ({"on_error": "cry"}, "'stop'"),
        ({"keep_truth": True}, "private="),
        ({"private": "hand_over"}, "pkg.mod:callable"),
    ],
)
def test_wrong_settings_are_refused_in_the_job_script(tmp_path, options, words):
    with pytest.raises((OptionError, TypeError), match=words):
        outgoing(tmp_path, **options)


def test_record_writes_both_filters_into_the_job_and_no_copy_of_leakgauge(tmp_path):
    from nvflare.app_opt.pt.recipes.fedavg import FedAvgRecipe

    (tmp_path / "train.py").write_text("import leakgauge\n")
    recipe = FedAvgRecipe(
        name="job", model={"class_path": "torch.nn.Linear", "args": {"in_features": 2, "out_features": 2}}, min_clients=2,
        train_script=str(tmp_path / "train.py"),
    )  # fmt: skip
    with pytest.raises(OptionError, match="runs no filter for"):
        record(recipe, "out", MODEL, tasks=["*"])
    added = record(recipe, str(tmp_path / "{site}"), MODEL, input_shape=SHAPE, training={"lr": LR}, block="certified > 0")
    recipe.export(str(tmp_path / "jobs"))
    (path,) = (tmp_path / "jobs").rglob("config_fed_client.json")
    config = json.loads(path.read_text())
    (way_in,), (way_out,) = config["task_data_filters"], config["task_result_filters"]
    assert way_in["tasks"] == way_out["tasks"] == ["train"]
    assert [entry["path"].rpartition(".")[2] for entry in way_in["filters"] + way_out["filters"]] == [
        "ReceivedModel",
        "RecordUpdate",
    ]
    rebuilt = RecordUpdate(**way_out["filters"][0]["args"])
    assert {name: value for name, value in vars(rebuilt).items() if not name.startswith("_") and name != "logger"} == {
        name: value for name, value in vars(added).items() if not name.startswith("_") and name != "logger"
    }
    assert not list((tmp_path / "jobs").rglob("leakgauge"))
    assert list((tmp_path / "jobs").rglob("train.py"))


def test_a_site_can_impose_the_filters_on_every_job_by_its_own_privacy_file(tmp_path):
    """privacy.json read by NVFlare's own loader, applied as its client runner applies it, to a job that knows no filter."""
    from nvflare.apis.fl_constant import FilterKey, FLContextKey
    from nvflare.apis.fl_context import FLContextManager
    from nvflare.apis.utils.task_utils import apply_filters
    from nvflare.apis.workspace import Workspace
    from nvflare.private.fed.app.fl_conf import create_privacy_manager
    from nvflare.private.privacy_manager import Scope

    for folder in ("startup", "local"):
        (tmp_path / folder).mkdir()
    module = "leakgauge.integrations.nvflare.filters"
    options = {
        "folder": str(tmp_path / "{site}"),
        "model": MODEL,
        "input_shape": SHAPE,
        "num_classes": 10,
        "block": "deficit >= 0",
    }
    scope = {
        "name": "site",
        "task_data_filters": [{"path": f"{module}.ReceivedModel"}],
        "task_result_filters": [{"path": f"{module}.RecordUpdate", "args": options}],
    }
    (tmp_path / "local" / "privacy.json").write_text(json.dumps({"scopes": [scope], "default_scope": "site"}))
    imposed = create_privacy_manager(Workspace(str(tmp_path), "site-1"), names_only=False).get_scope("")
    message = exchange()
    with FLContextManager(engine=None, identity_name="site-1", job_id="job-7").new_context() as context:
        context.set_prop(FLContextKey.SCOPE_OBJECT, imposed, private=True, sticky=False)
        received = DXO(DataKind.WEIGHTS, data=dict(message.before)).to_shareable()
        result = DXO(DataKind.WEIGHTS, data=dict(message.sent), meta={"lr": LR, "num_examples": 1}).to_shareable()
        apply_filters(Scope.TASK_DATA_FILTERS_NAME, received, context, {}, "train", FilterKey.IN)
        left = apply_filters(Scope.TASK_RESULT_FILTERS_NAME, result, context, {}, "train", FilterKey.OUT)
    assert from_shareable(left).data == {}
    assert len(observations(tmp_path)) == 1
    assert lines(tmp_path, "decision")[0]["reason"].startswith("Blocked: deficit >= 0")


def test_without_nvflare_a_sentence_names_the_extra():
    code = "import sys; sys.modules['nvflare'] = None; import leakgauge.integrations.nvflare"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "MissingExtraError" in done.stderr
    assert "leakgauge[nvflare]" in done.stderr
