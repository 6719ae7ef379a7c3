"""Fit how likely an instance is right, for each method on the tiny models, and choose the floor of its answers.

    uv run python benchmarks/calibrate.py --scenes 25 --seeds 101 202 --json calibrate.json

Draws emoji scenes that are neither those of training nor those of validation, asks all names in each, and fits the logistic of
``annofree.training.calibration`` on all of them.  What is told of it, and the floor, come from two halves, each scored by the
fit of the other: precision, recall and F1 of the answer at some floors, and the expected calibration error.  Prints the
tables of ``src/annofree/assets/tuning.toml``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from annofree.clues.background import with_negatives
from annofree.clues.regions import pool_features
from annofree.datasets.emoji.files import write_scenes
from annofree.datasets.emoji.world import Split, World
from annofree.detections.policy import OutputPolicy, compute_ranking_signals
from annofree.detections.verification import SIGNALS, Calibration
from annofree.evaluation.metrics.answer import compute_calibration_error
from annofree.evaluation.metrics.errors import assign_instances
from annofree.evaluation.metrics.predictions import read_mask_rle
from annofree.formats.coco import CocoFile
from annofree.io.images import read_image
from annofree.methods.answering import Answering, Verifying
from annofree.methods.build import build_method
from annofree.methods.components import Models
from annofree.methods.policies import apply_policy
from annofree.ops.rle import compute_rle_ious
from annofree.structures import Detections, Image, Vocabulary
from annofree.training.calibration import Sample, fit_calibration

METHODS = ("consensus", "zip", "sam_clip", "zutis")
FLOORS = (0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6)
USED = tuple(name for name in SIGNALS if name not in ("presence", "edge"))
"""Those that moved nothing are left out."""
SPLITS: tuple[Split, ...] = ("plain", "touching", "cluttered")


@dataclass(frozen=True, eq=False)
class Scored:
    """The candidates of one image under their new names, their signals, their IoU with the truth (N, T) and its classes (T)."""

    candidates: Detections
    signals: npt.NDArray[np.float32]
    overlaps: npt.NDArray[np.float64]
    truth: npt.NDArray[np.int64]

    def right(self) -> npt.NDArray[np.bool_]:
        """Whether each candidate has a true instance of its name with an IoU of 0.5 or more."""
        return np.asarray(self._of_name().max(1, initial=0.0) >= 0.5)

    def _of_name(self) -> npt.NDArray[np.float64]:
        return self.overlaps * np.equal.outer(self.candidates.class_ids, self.truth)

    def settled(self, scores: npt.NDArray[np.float32], policy: OutputPolicy) -> npt.NDArray[np.int64]:
        """Indices of who is left by these scores, strongest first."""
        order = np.argsort(-scores, kind="stable")
        ranked = replace(self.candidates[order], scores=scores[order])
        return order[replace(policy, floor=0.0).select(ranked)]

    def hits(self, kept: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Which of the answers, strongest first, are right, each true instance given once."""
        overlaps = np.where(np.equal.outer(self.candidates.class_ids, self.truth), self.overlaps, -1.0)[kept]
        return assign_instances(overlaps, np.zeros(len(self.truth), bool), 0.5) >= 0


def scored(method: Answering, image: Image, names: Vocabulary, rows: Sequence[Any], numbers: Sequence[int]) -> Scored:
    """Ask a method for its candidates, as its policy would name them, and compare them with the truth."""
    clip = method.clip
    assert clip is not None
    encoding, seen = method.encode([image])[0]
    words = clip.encode_text(with_negatives(names, method.distractors.choose(names, clip)))
    if isinstance(method.method, Verifying):
        own: Any = method.method
        shares = own.settings.naming.compute_shares(encoding.features.to(words), words)
        signals = own.compute_signals(encoding, words, shares)
        ranking = own.list_candidates(encoding)
    else:
        ranking, look = method.method.instances(encoding, names), seen or encoding
        features = pool_features(look.tokens, ranking.masks)
        shares = method.policy.naming.compute_shares(features, words)
        presence = clip.score_presence(look.whole, look.tokens, words)
        signals = compute_ranking_signals(ranking, features, words, shares, presence)
    best = shares.argmax(1).cpu().numpy().astype(np.int64)
    asked = np.flatnonzero(best < len(names))
    candidates = replace(ranking, names=names.names, class_ids=best)[asked]
    truth = [read_mask_rle(row, image.size) for row in rows]
    overlaps = compute_rle_ious(candidates.rles, truth)
    classes = np.array([numbers.index(row["category_id"]) for row in rows], np.int64)
    return Scored(candidates, signals[asked], overlaps, classes)


def scenes(folder: Path, count: int, seeds: Sequence[int]) -> Iterator[tuple[Image, Vocabulary, list[Any], list[int]]]:
    """Draw scenes and give each with the names asked, its annotations, and the ids of the names."""
    for seed in seeds:
        for split in SPLITS:
            place = folder / f"{split}-{seed}"
            if not (place / "truth.json").exists():
                drawn = enumerate(World(None, 0.3).draw_scenes(count, seed, split, 256))
                write_scenes(((f"{split}-{k:05d}", scene) for k, scene in drawn), place, f"tuning, {split}, seed {seed}")
            truth = CocoFile.read(place / "truth.json")
            names = Vocabulary.of([row["name"] for row in truth.categories])
            numbers = [row["id"] for row in truth.categories]
            for row in truth.images[:count]:
                image = read_image(place / "images" / row["file_name"])
                yield image, names, [a for a in truth.annotations if a["image_id"] == row["id"]], numbers


def fitted(images: Sequence[Scored], policy: OutputPolicy, fitted_on: str) -> Calibration:
    """The logistic of some images."""
    samples = [Sample(s.signals, s.right(), partial(s.settled, policy=policy)) for s in images if len(s.candidates)]
    return fit_calibration(samples, fitted_on, USED)


def answers(images: Sequence[Scored], calibration: Calibration, policy: OutputPolicy) -> tuple[Any, Any, int]:
    """Scores and hits of what is left on some images, and how much is true."""
    scores, hits = [np.zeros(0, np.float32)], [np.zeros(0, bool)]
    for one in images:
        own = calibration.predict(one.signals)
        kept = one.settled(own, policy)
        scores.append(own[kept])
        hits.append(one.hits(kept))
    return np.concatenate(scores), np.concatenate(hits), sum(len(one.truth) for one in images)


def measured(images: Sequence[Scored], policy: OutputPolicy) -> dict[str, Any]:
    """P, R and F1 in percent at each floor and the calibration error, each half by the fit of the other."""
    halves = images[::2], images[1::2]
    parts = [answers(halves[1 - k], fitted(halves[k], policy, ""), policy) for k in (0, 1)]
    scores, hits = (np.concatenate([p[k] for p in parts]) for k in (0, 1))
    true = sum(p[2] for p in parts)
    rows = {}
    for floor in FLOORS:
        told = scores >= floor
        right = int(hits[told].sum())
        precision, recall = right / max(1, int(told.sum())), right / max(1, true)
        f1 = 2 * right / max(1, int(told.sum()) + true)
        rows[floor] = {n: round(100 * v, 1) for n, v in (("precision", precision), ("recall", recall), ("F1", f1))}
    return {"floors": rows, "calibration error": round(compute_calibration_error(scores, hits) or 0.0, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--scenes", type=int, default=25, help="scenes a split and seed")
    parser.add_argument("--seeds", type=int, nargs="+", default=(101, 202))
    parser.add_argument("--folder", type=Path, default=Path("out/tuning"), help="where scenes are drawn, or were")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    models = Models("tiny", "cpu", objectness="none")
    methods = {name: apply_policy(build_method(name, models), name, models, "answer") for name in asked.methods}
    found: dict[str, list[Scored]] = {name: [] for name in methods}
    for done, one in enumerate(scenes(asked.folder, asked.scenes, asked.seeds), 1):
        for name, method in methods.items():
            found[name].append(scored(method, *one))
        if done % 10 == 0:
            print(f"{done} scenes", flush=True)
    where = f"{asked.scenes * len(SPLITS) * len(asked.seeds)} emoji scenes of seeds {' and '.join(map(str, asked.seeds))}"
    results = {}
    for name, images in found.items():
        policy = methods[name].policy
        results[name] = measured(images, policy)
        calibration = fitted(images, policy, where)
        print(f"# {name}: {json.dumps(results[name])}")
        weights = ", ".join(f"{key} = {value}" for key, value in calibration.weights.items())
        print(f"[presets.tiny.methods.{name}.calibration]\nfitted_on = {json.dumps(where)}\noffset = {calibration.offset}")
        print(f"weights = {{ {weights} }}\n", flush=True)
    if asked.json:
        asked.json.write_text(json.dumps(results, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
