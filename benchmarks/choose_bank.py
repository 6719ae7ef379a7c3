"""Choose what a bank of the folder does for consensus on the tiny models, on scenes of neither training nor validation.

    uv run python benchmarks/choose_bank.py --folder out/bank --json bank.json

Draws 150 scenes to fit on (seeds 101 and 202) and 150 to choose on (seed 424242), encodes each once (a run that keeps its
encodings), fits the logistic of ``BankCalibration`` for each choice of settings, its bank being of the scenes that it is fitted
on, and scores that on the scenes to choose on, their bank being of themselves: AP of the ranking, F1 of the answer and
calibration error at some floors, and how many candidates of a good mask have the right name.  Prints the numbers of a table
of ``src/annofree/assets/tuning.toml`` by each.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from annofree.datasets.emoji.files import write_scenes
from annofree.datasets.emoji.world import CATEGORIES, Split, World
from annofree.detections.bank import BANK_SIGNALS, Bank, BankCalibration, BankSettings, Named
from annofree.detections.collect_bank import collect_bank
from annofree.detections.nms import suppress
from annofree.detections.policy import OutputPolicy
from annofree.evaluation.metrics.answer import evaluate_answer
from annofree.evaluation.metrics.instance import evaluate_instances
from annofree.evaluation.metrics.predictions import read_mask_rle
from annofree.formats.coco import CocoFile
from annofree.methods.answering import Answering
from annofree.methods.build import build_method
from annofree.methods.components import Models
from annofree.methods.policies import apply_policy
from annofree.ops.rle import compute_rle_ious
from annofree.pipelines.segment import segment
from annofree.runs.store.chunks import Chunks
from annofree.runs.stored_encodings import StoredEncodings
from annofree.runs.tasks import Tasks
from annofree.structures import Detections, Vocabulary
from annofree.testing.timing import print_json
from annofree.training.calibration import Sample, fit_calibration

SPLITS: tuple[Split, ...] = ("plain", "touching", "cluttered")
NAMES = Vocabulary.of(list(CATEGORIES.values()))
THRESHOLDS = np.arange(0.5, 1, 0.05)
FLOORS = (0.3, 0.35, 0.4, 0.45, 0.5)
CHANGES: tuple[Mapping[str, Any], ...] = (
    {},
    {"mixture": 0.0},
    {"mixture": 0.3},
    {"mixture": 0.5},
    {"support": 0.0},
    {"support": 0.3},
    {"smoothing": 0.5},
    {"floor": 0.3},
    {"floor": 0.5},
    {"floor": 0.7},
    {"voters": 10},
    {"prior": 0.2},
    {"models": 5},
    {"witnesses": 40},
    {"likeness_scale": 20.0},
)


@dataclass(frozen=True, eq=False)
class Scenes:
    """Scenes with the candidates of each as text names them, its IoU with the truth (N, T), and the truth's classes (T)."""

    truth: CocoFile
    ids: list[int]
    named: list[Named]
    overlaps: list[npt.NDArray[np.float64]]
    classes: list[npt.NDArray[np.int64]]


def draw(folder: Path, count: int, seeds: Sequence[int]) -> CocoFile:
    """Scenes of all splits in a folder, drawn once."""
    if not (folder / "truth.json").is_file():
        world = World(None, 0.3)
        drawn = (
            (f"{split}-{seed}-{k:03d}", scene)
            for seed in seeds
            for split in SPLITS
            for k, scene in enumerate(world.draw_scenes(count, seed, split))
        )
        write_scenes(drawn, folder, f"tuning scenes of seeds {seeds}")
    return CocoFile.read(folder / "truth.json")


def read_scenes(folder: Path, truth: CocoFile, method: Answering) -> Scenes:
    """Encode the scenes of a folder, once, and name their candidates by text."""
    segment(
        folder / "images", NAMES, method="consensus", models="tiny", device="cpu", out=folder / "run", overlays=False,
        keep_encodings=True,
    )  # fmt: skip
    feed = StoredEncodings(folder / "run", Tasks(("instance",), method))
    places = {row["file_name"]: row["id"] for row in truth.images}
    ids = [places[id_] for id_ in Chunks(folder / "run").read_ids()]
    own: Any = method.method
    named = [own.name_candidates(encoding[0][0], NAMES, ()) for encoding in feed.read_encodings()]
    numbers = [row["id"] for row in truth.categories]
    rows: dict[int, list[Any]] = {id_: [] for id_ in ids}
    for row in truth.annotations:
        rows[row["image_id"]].append(row)
    overlaps, classes = [], []
    for id_, one in zip(ids, named, strict=True):
        masks = [read_mask_rle(row, one.candidates.size) for row in rows[id_]]
        overlaps.append(compute_rle_ious(one.candidates.rles, masks))
        classes.append(np.array([numbers.index(row["category_id"]) for row in rows[id_]], np.int64))
    return Scenes(truth, ids, named, overlaps, classes)


def settled(scores: npt.NDArray[np.float32], candidates: Detections, policy: OutputPolicy) -> npt.NDArray[np.int64]:
    """Indices of who is left by these scores, strongest first."""
    order = np.argsort(-scores, kind="stable")
    return order[replace(policy, floor=0.0).select(replace(candidates[order], scores=scores[order]))]


def list_samples(scenes: Scenes, bank: Bank, policy: OutputPolicy) -> Iterator[Sample]:
    """What the logistic is fitted to: part of the thresholds of AP at which a candidate is right."""
    for named, overlaps, classes in zip(scenes.named, scenes.overlaps, scenes.classes, strict=True):
        if not len(named.candidates):
            continue
        shares = bank.compute_shares(named)
        best = shares.argmax(1).numpy()
        of_name = (overlaps * np.equal.outer(best, classes)).max(1, initial=0.0)
        candidates = replace(named.candidates, class_ids=best)
        yield Sample(
            bank.compute_signals(named, shares),
            of_name >= THRESHOLDS[0],
            partial(settled, candidates=candidates, policy=policy),
            (of_name[:, None] >= THRESHOLDS).mean(1),
        )


def score(scenes: Scenes, bank: Bank | None, policy: OutputPolicy, within: float) -> dict[str, Any]:
    """AP of the ranking, and the answer's F1 and calibration error at each floor, in percent."""
    numbers = [row["id"] for row in scenes.truth.categories]
    ranking, answers = (CocoFile(scenes.truth.images, scenes.truth.categories) for _ in range(2))
    right = good = 0
    for id_, named, overlaps, classes in zip(scenes.ids, scenes.named, scenes.overlaps, scenes.classes, strict=True):
        if bank is not None and len(named.candidates):
            shares = bank.compute_shares(named)
            sure = overlaps.max(1, initial=0.0) >= 0.75
            right += int((shares.argmax(1).numpy() == classes[overlaps.argmax(1)])[sure].sum()) if len(classes) else 0
            good += int(sure.sum())
        found = suppress(named.rank() if bank is None else bank.name_again(named), within=within)
        ranking.add_annotations(found[:100].to_coco(id_, numbers))
        answers.add_annotations(replace(policy, floor=min(FLOORS)).decide(found).to_coco(id_, numbers))
    ap = evaluate_instances(scenes.truth, ranking).ap
    row: dict[str, Any] = {"AP": _percent(ap), "names": _percent(right / max(good, 1))}
    for floor in FLOORS:
        told = CocoFile(scenes.truth.images, scenes.truth.categories)
        told.add_annotations([a for a in answers.annotations if a["score"] >= floor])
        answer = evaluate_answer(scenes.truth, told)
        row[f"F1 {floor}"] = _percent(answer.f1)
        row[f"error {floor}"] = _percent(answer.calibration_error)
    return row


def _percent(value: float | None) -> float:
    return round(100 * (value or 0), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("out/bank"), help="where scenes are drawn, or were")
    parser.add_argument("--only", type=json.loads, help="one change instead of all, as JSON")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    models = Models("tiny", "cpu", objectness="none")
    method = apply_policy(build_method("consensus", models), "consensus", models, "answer")
    policy, within = method.policy, method.method.settings.within
    fit, tune = (
        read_scenes(asked.folder / name, draw(asked.folder / name, count, seeds), method)
        for name, count, seeds in (("fit", 25, (101, 202)), ("tune", 50, (424242,)))
    )
    rows = [{"text alone": True, **score(tune, None, policy, within)}]
    print(rows[-1], flush=True)
    for change in CHANGES if asked.only is None else (asked.only,):
        settings = BankSettings(**change)
        samples = list(list_samples(fit, collect_bank(fit.named, settings), policy))
        own = fit_calibration(samples, "150 emoji scenes of seeds 101 and 202", BANK_SIGNALS, BankCalibration)
        bank = collect_bank(tune.named, replace(settings, calibration=own))
        rows.append({**change, **score(tune, bank, policy, within)})
        weights = ", ".join(f"{key} = {value}" for key, value in own.weights.items())
        print(f"{rows[-1]}\noffset = {own.offset}\nweights = {{ {weights} }}", flush=True)
    print_json(rows, asked.json)


if __name__ == "__main__":
    main()
