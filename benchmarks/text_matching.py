"""Gradient matching for texts: dlg-text, tag, lamp and the control, by their papers' settings and harder ones.

    python -m benchmarks.text_matching [SECTION] [--texts 20] [--budget 350] [--batch 1] [--only NAME,...] [--prior hf:FOLDER]

BERT of random weights, bert-base-uncased's vocabulary of 30,522, eval mode; 4 layers, 128 wide, unless the section says
otherwise. Sentences of at most 20 tokens, [CLS] and [SEP] included. Sections:

    gate            masked language model, embeddings frozen (no bag), batch 1
    base            the same, 12 layers, 768 wide
    heldout         the same as gate on sentences of SST-2 and CoLA, which no option was chosen on
    classification  the setting of TAG and LAMP: two classes, all layers trained, batch 1
    partial         masked and classification, only the head or only LoRA's adapters trained, batch 1

In a masked text 15 % of the words (at least one) are [MASK] and predicted. Masked positions and labels are not granted, except
labels for 'partial' masked LoRA. The length of unpadded texts is granted. The prior is trained in this process on the sentences
of all sets that are not attacked. The control draws nothing from the update: [CLS], the most frequent tokens of those sentences,
[SEP]. Every row has the same budget of gradient evaluations. ROUGE is taken on token ids, special tokens included.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import leakgauge as lg
from benchmarks.common import Clock, machine, say, table
from benchmarks.text_matching_cases import attacked, control, network, texts, trained_prior
from leakgauge.attacks.base import Attack, Limits
from leakgauge.attacks.text.matching.presets import dlg_text, lamp, tag
from leakgauge.core.reconstruction import Outcome
from leakgauge.measures.text import TextScores, score_texts

PUBLISHED: dict[str, Any] = {
    "distance": "l2", "start": "noise", "span": False, "positions": False, "snap": False, "discrete": False, "rounds": 1,
}  # fmt: skip


@dataclass(frozen=True)
class Section:
    """One table.

    Args:
        networks: name -> arguments of `network`.
        rows: attacks by name.
        texts: batches.
        budget: gradient evaluations for each attack.
        data: sets, `texts` batches of each.
        labels: networks for which labels are granted.
    """

    networks: dict[str, dict[str, Any]]
    rows: tuple[str, ...]
    texts: int = 20
    budget: int = 350
    data: tuple[str, ...] = ("rotten_tomatoes",)
    labels: tuple[str, ...] = ()


GATE = {"masked": {"task": "masked"}}
SECTIONS = {
    "gate": Section(
        GATE,
        (
            *("dlg-text", "dlg-text start=noise span=false", "dlg-text as published"),
            *("tag", "lamp", "lamp with prior", "control"),
        ),
    ),
    "base": Section({"base": {"task": "masked", "base": True}}, ("dlg-text", "control"), budget=300),
    "heldout": Section(GATE, ("dlg-text", "dlg-text start=noise span=false", "lamp", "control"), 10, data=("sst2", "cola")),
    "classification": Section(
        {"classification": {"task": "classification", "frozen": False}},
        ("dlg-text", "dlg-text as published", "tag", "tag bag=off", "lamp", "lamp bag=off", "lamp with prior", "control"),
        5,
        500,
    ),
    "partial": Section(
        {
            "masked, head": {"task": "masked", "tuned": "head"},
            "classification, head": {"task": "classification", "tuned": "head"},
            "masked, LoRA": {"task": "masked", "tuned": "lora"},
            "classification, LoRA": {"task": "classification", "tuned": "lora"},
        },
        ("dlg-text", "control"),
        3,
        500,
        labels=("masked, LoRA",),
    ),
}


def attack(name: str, prior: str) -> Attack:
    """The attack of a row; `prior` is the trained model's name."""
    made: dict[str, Attack] = {
        "dlg-text": dlg_text(),
        "dlg-text start=noise": dlg_text(start="noise"),
        "dlg-text start=noise span=false": dlg_text(start="noise", span=False),
        "dlg-text as published": dlg_text(**PUBLISHED),
        "tag": tag(),
        "tag bag=off": tag(bag="off"),
        "lamp": lamp(),
        "lamp bag=off": lamp(bag="off"),
        "lamp with prior": lamp(prior=prior),
    }
    return made[name]


@dataclass(frozen=True)
class Result:
    """One attack on one batch."""

    scores: TextScores
    explains: bool = False
    seconds: float = 0.0
    evaluations: int = 0
    outcome: Outcome | None = None


def result(name: str, prior: str, batch: lg.Batch, seen: lg.Observation, budget: int, seed: int) -> Result:
    """Runs a row on one batch."""
    if name == "control":
        return Result(score_texts(batch, control(batch)))
    clock = Clock.start()
    guess = attack(name, prior)(seen, lg.rng(seed, "attack"), Limits(budget))
    seconds = clock.seconds
    scores = score_texts(batch, guess.inputs, guess.labels)
    return Result(scores, guess.explains, seconds, guess.stats.evaluations, guess.outcome)


HEADER = (
    "attack", "tokens right, median (mean)", "masked labels right", "exact", "ROUGE-1", "ROUGE-2", "ROUGE-L", "explained",
    "CPU-s, median (max)", "evaluations, median",
)  # fmt: skip


def cells(results: list[Result]) -> list[str]:
    """A line of the table. Tokens right: where nothing is predicted, for masked texts; means are over texts."""

    def mean(field: str) -> str:
        values = torch.cat([getattr(one.scores, field) for one in results])
        return "-" if bool(values.isnan().all()) else f"{float(values.nanmean()):.2f}"

    open_places = torch.cat([one.scores.unmasked_accuracy for one in results])
    right = torch.cat([one.scores.token_accuracy for one in results]) if bool(open_places.isnan().all()) else open_places
    exact = torch.cat([one.scores.exact for one in results])
    seconds = [one.seconds for one in results]
    return [
        f"{float(right.median()):.2f} ({float(right.mean()):.2f})",
        mean("masked_accuracy"),
        f"{int(exact.sum())}/{len(exact)}",
        *(mean(field) for field in ("rouge1", "rouge2", "rougeL")),
        f"{sum(one.explains for one in results)}/{len(results)}",
        f"{statistics.median(seconds):.1f} ({max(seconds):.1f})",
        f"{statistics.median(one.evaluations for one in results):.0f}",
    ]


def measured(section: Section, options: argparse.Namespace, prior: str) -> list[list[str]]:
    """All lines of a section."""
    lines = []
    names = [name for name in section.rows if not options.only or name in options.only.split(",")]
    for kind, arguments in section.networks.items():
        model = network(**arguments)
        for data in section.data:
            rows = attacked(data)[: options.texts * options.batch]
            groups = [rows[index : index + options.batch] for index in range(0, len(rows), options.batch)]
            found: dict[str, list[Result]] = {name: [] for name in names}
            for index, group in enumerate(groups):
                batch = texts(group, arguments["task"], index)
                knows = lg.ThreatModel.honest_but_curious(labels=kind in section.labels)
                seen = knows.observe(lg.Client(model).train(batch), model, batch.spec)
                for name in names:
                    one = result(name, prior, batch, seen, options.budget, index)
                    found[name].append(one)
                    right = [round(value, 2) for value in one.scores.token_accuracy.tolist()]
                    say({"network": kind, "data": data, "batch": index, "attack": name, "right": right, "cpu_s": one.seconds,
                         "evaluations": one.evaluations, "outcome": str(one.outcome)})  # fmt: skip
            where = ", ".join([kind] * (len(section.networks) > 1) + [data] * (len(section.data) > 1))
            lines += [[f"{where}: {name}" if where else name, *cells(results)] for name, results in found.items()]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("section", nargs="?", default="gate", choices=SECTIONS)
    parser.add_argument("--texts", type=int, help="batches of each data set")
    parser.add_argument("--budget", type=int, help="gradient evaluations for each attack")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--only", default="")
    parser.add_argument("--prior", default="", help="one trained before, as hf:FOLDER")
    options = parser.parse_args()
    section = SECTIONS[options.section]
    options.texts, options.budget = options.texts or section.texts, options.budget or section.budget
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        prior = options.prior or f"hf:{folder}"
        if not options.prior and any(
            "prior" in name and (not options.only or name in options.only.split(",")) for name in section.rows
        ):
            clock = Clock.start()
            losses = trained_prior(Path(folder))
            print(f"Prior: {losses['prior']:.2f} nats per token on sentences held back (token frequencies alone: "
                  f"{losses['frequencies']:.2f}); trained in {clock.seconds:.0f} CPU-s.")  # fmt: skip
        lines = measured(section, options, prior)
    print(f"Machine: {machine()}. Batch {options.batch}, budget {options.budget} gradient evaluations.")
    if any(arguments["task"] == "masked" for arguments in section.networks.values()):
        granted = f" Labels granted for: {', '.join(section.labels)}." if section.labels else " Labels not granted."
        print(f"Masked positions: {'granted with the labels, else ' if section.labels else ''}not granted.{granted}")
    print(f"\n{table(HEADER, lines)}")


if __name__ == "__main__":
    main()
