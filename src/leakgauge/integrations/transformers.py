"""Hugging Face: a callback that captures what `Trainer.train` would share as a client's update."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from leakgauge.core.callables import Loss, check_loss
from leakgauge.core.observation import Observation
from leakgauge.core.provenance import Provenance
from leakgauge.core.spec import Spec
from leakgauge.core.training import LocalTraining
from leakgauge.core.update import DefenceRecord
from leakgauge.defences.base import Defence
from leakgauge.errors import MissingExtraError
from leakgauge.integrations.recording.loop import LoopRecorder
from leakgauge.truth.batch import Batch

try:
    from transformers import TrainerCallback
except ImportError as error:
    raise MissingExtraError("transformers", "trainer", "RecordCallback") from error


class RecordCallback(TrainerCallback):  # type: ignore[misc]
    """Captures each call of `Trainer.train` as an observation: `Trainer(..., callbacks=[RecordCallback(out=FILE)])`.

    Weights before and after, optimiser, schedule, mini-batches, accumulation and modes are seen as `lg.record` sees them; clip
    norm, label smoothing and mixed precision come from the TrainingArguments. Afterwards `observation` (and `truth`, where a file
    was given for it) are there, and the files are written.

    Args:
        out: file for the observation; a second call of `train` writes it anew.
        truth: file for the private batch, with the order of the mini-batches. Without it no example is kept.
        loss: what the model computes from its 'labels': 'cross_entropy', or 'mse' for a regression.
        spec: the TextSpec of one padded text (or shape and normalisation of one picture); attacks need it.
        num_examples: examples in the client's data; by default the number of distinct rows seen.
        defences: applied inside the training, or their public records.
        model_name: as `load_model` takes it, for the record.
        batch_norm: whether the attacker is to see the buffers after training.
        labels: whether the attacker is to know the labels.
        round, client: for the record.

    Raises:
        OptionError: for an unknown loss.
        MissingExtraError: on import, without the package transformers.
    """

    def __init__(
        self,
        out: str | Path | None = None,
        *,
        truth: str | Path | None = None,
        loss: Loss = "cross_entropy",
        spec: Spec | None = None,
        num_examples: int | None = None,
        defences: Sequence[Defence | DefenceRecord] = (),
        model_name: str = "",
        batch_norm: bool = True,
        labels: bool = False,
        round: int | None = None,
        client: str = "",
    ) -> None:
        check_loss(loss)
        self.out, self.truth_file, self.loss, self.num_examples = out, truth, loss, num_examples
        self.spec = spec
        self.defences, self.model_name, self.batch_norm, self.labels = tuple(defences), model_name, batch_norm, labels
        self.round, self.client = round, client
        self.observation: Observation | None = None
        self.truth: Batch | None = None
        self._recorder: LoopRecorder | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, *, model: nn.Module, **_: Any) -> None:  # noqa: ARG002
        """Reads the weights and begins to watch."""
        self.close()
        self.observation = self.truth = None
        self._recorder = LoopRecorder(
            model,
            loss=self.loss,
            spec=self.spec,
            num_examples=self.num_examples,
            training=stated_in(args),
            out=self.out,
            truth_file=self.truth_file,
            defences=self.defences,
            model_name=self.model_name,
            batch_norm=self.batch_norm,
            grant_labels=self.labels,
            provenance=Provenance("transformers", round=self.round, client=self.client, run=str(args.run_name or "")),
            known={"amp": bool(args.bf16 or args.fp16)},
        )
        self._recorder.__enter__()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Reads the weights again and writes the files."""
        recorder, self._recorder = self._recorder, None
        if recorder is not None:
            try:
                recorder.__exit__(None, None, None)
            finally:
                self.observation, self.truth = recorder.observation, recorder.truth

    def close(self) -> None:
        """Takes the hooks away after a training that raised an error; the next `train` does so too."""
        recorder, self._recorder = self._recorder, None
        if recorder is not None:
            recorder.cancel()


def stated_in(args: Any) -> LocalTraining:
    """What TrainingArguments say that cannot be seen from outside: clip norm and label smoothing."""
    norm = float(args.max_grad_norm or 0.0)
    return LocalTraining(clip_norm=norm if norm > 0 else None, label_smoothing=float(args.label_smoothing_factor))
