"""Does it help to set the presence of a class against the folder?

    uv run python benchmarks/presence.py --ask zip --json presence.json

The emoji validation scenes, all names of the truth asked in each.  First how well presence ranks the names that are in an
image before those that are not: average precision over all pairs of an image and a name, and what the gate of Zip's
``default`` lets through.  Then, with ``--ask``, the AP of Zip's masks by split, as it is and calibrated on the same images.
The mean logit of a class is taken from 10, 20, 40, ... other images, too, to see how many it needs.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from annofree.clues.presence import FEWEST, measure_folder_levels, subtract_levels
from annofree.evaluation.accumulators import InstanceAccumulator
from annofree.formats.coco import CocoFile
from annofree.io.images import read_image
from annofree.methods.build import load
from annofree.methods.zip import Zip, ZipEncoding
from annofree.structures import Vocabulary

WORLD = Path(__file__).parents[1] / "examples" / "validation"


def ranking(presence: Tensor, there: Tensor, gate: float) -> dict[str, float]:
    """Average precision over pairs (N, K), and what a gate keeps: names an image, recall and precision, in percent."""
    order = torch.argsort(presence.flatten(), descending=True, stable=True)
    hits = there.flatten()[order].double()
    precision = hits.cumsum(0) / torch.arange(1, len(hits) + 1)
    kept = presence >= gate
    shares = {
        "average precision": (precision * hits).sum() / hits.sum(),
        "recall": (kept & there).sum() / there.sum(),
        "precision": (kept & there).sum() / kept.sum().clamp(min=1),
    }
    percent = {name: round(100 * float(value), 2) for name, value in shares.items()}
    return percent | {"kept an image": round(float(kept.sum(1).double().mean()), 2)}


def truth_of(truth: CocoFile) -> Tensor:
    """Which names are in which images, (N, K) bool."""
    rows = {image["id"]: k for k, image in enumerate(truth.images)}
    columns = {category["id"]: k for k, category in enumerate(truth.categories)}
    there = torch.zeros(len(rows), len(columns), dtype=torch.bool)
    for row in truth.annotations:
        there[rows[row["image_id"]], columns[row["category_id"]]] = True
    return there


def held_out(presence: Tensor, there: Tensor, draws: int = 20) -> dict[str, float]:
    """Average precision on one half of the images, levels from some of the other; the mean of several draws."""
    rng, half, found = np.random.default_rng(0), len(presence) // 2, {}
    for count in (c for c in (10, FEWEST, 40, 75) if c <= half):
        values = []
        for _ in range(draws):
            order = rng.permutation(len(presence))
            own, rest = order[half:], order[:count]
            levels = measure_folder_levels(presence[np.resize(rest, max(count, FEWEST))])
            values.append(ranking(subtract_levels(presence[own], levels), there[own], 0.0)["average precision"])
        found[str(count)] = round(float(np.mean(values)), 2)
    return found


def asked_of(method: Zip, encodings: Sequence[ZipEncoding], truth: CocoFile, words: Vocabulary) -> dict[str, Any]:
    """Figures of the method's masks, by split."""
    answers = InstanceAccumulator(truth, "split")
    for row, encoding in zip(truth.images, encodings, strict=True):
        answers.add(row, method.instances(encoding, words))
    return {"instances": len(answers.found.annotations), **answers.compute_figures()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, measure, and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="tiny")
    parser.add_argument("--limit", type=int, help="take every n-th scene only, so that about this many are left")
    parser.add_argument("--ask", choices=["zip"], help="measure the masks, too")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args(arguments)
    truth = CocoFile.read(WORLD / "truth.json")
    truth.images = truth.images[:: max(1, len(truth.images) // asked.limit) if asked.limit else 1]
    ids = {image["id"] for image in truth.images}
    truth.annotations = [row for row in truth.annotations if row["image_id"] in ids]
    words = Vocabulary.of([row["name"] for row in truth.categories])
    plain = load("zip", models=asked.models, device="cpu")
    assert isinstance(plain, Zip)
    encodings = [plain.encode([read_image(WORLD / "images" / row["file_name"])])[0] for row in truth.images]
    texts = plain.clip.encode_text(words)
    presence = torch.stack([plain.clip.score_presence(e.whole, e.tokens, texts) for e in encodings])
    there, gate = truth_of(truth), plain.settings.presence
    found: dict[str, Any] = {
        "fixed": ranking(presence, there, gate),
        "folder": ranking(subtract_levels(presence, measure_folder_levels(presence)), there, gate),
        "levels of other images, average precision": held_out(presence, there),
    }
    print(json.dumps(found, indent=2))
    if asked.ask:
        methods = {"zip, fixed": plain, "zip, folder": plain.with_calibration(encodings, words)}
        found |= {name: asked_of(method, encodings, truth, words) for name, method in methods.items()}
        print(json.dumps({name: found[name] for name in methods}, indent=2))
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
