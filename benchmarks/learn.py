"""What `annofree learn` makes of a folder of emoji scenes, round by round, against the truth that it never sees.

    uv run python benchmarks/learn.py --out out/learn --scenes 200 --seed 0
    uv run python benchmarks/learn.py --out out/learn --scenes 100 --steps 500     # so many steps a round, whatever the clock

Scenes of all splits are drawn into one folder, and learned from as photographs would be, by the command.  Then each round is
scored: the answer to the folder itself (with a bank, also what it is without), and that to the committed validation scenes,
which nothing was learned from.  The AP is that of what runs hold: of the folder the ranking from half of the answer's floor on,
of the validation scenes the answer.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import PIL.Image

from annofree.datasets.emoji.world import CATEGORIES, SPLITS
from annofree.evaluation.metrics.answer import evaluate_answer
from annofree.evaluation.metrics.instance import evaluate_instances
from annofree.evaluation.metrics.predictions import read_predictions
from annofree.evaluation.metrics.separation import evaluate_separation
from annofree.formats.coco import CocoFile
from annofree.pipelines.learning.summary import read_summary
from annofree.pipelines.segment import segment
from annofree.pipelines.training.scenes import draw_scenes
from annofree.testing.timing import print_json

_SIDE = 288  # px of an image in the image
VALIDATION = Path(__file__).parents[1] / "examples" / "validation"


@contextmanager
def show(what: str) -> Iterator[Callable[[int, int], None]]:
    """Say what begins, and nothing more."""
    print(what, flush=True)
    yield lambda done, total: None


def score(truth: CocoFile, run: Path, floor: float) -> dict[str, float]:
    """AP, and precision, recall, F1 and separated pairs from the floor on, in percent."""
    found = read_predictions(run / "annotations.json", truth)
    answer, separated = evaluate_answer(truth, found, min_score=floor), evaluate_separation(truth, found, min_score=floor)
    figures = {
        "AP": evaluate_instances(truth, found).ap,
        "precision": answer.precision,
        "recall": answer.recall,
        "F1": answer.f1,
        "separated": separated.rate,
    }
    return {name: round(100 * (value or 0), 1) for name, value in figures.items()}


def draw_changes(page: Path, out: Path, rounds: int) -> None:
    """The first six images of a learning's page, those that changed most, under the method alone and after the last round."""
    pairs = [
        [PIL.Image.open(next(page.glob(f"images/{place:02d}-{number}-*"))).convert("RGB") for number in (1, 1 + rounds)]
        for place in range(1 + rounds, 7 + rounds)
    ]
    sheet = PIL.Image.new("RGB", (6 * _SIDE, 2 * _SIDE))
    for place, pair in enumerate(pairs):
        for column, drawn in enumerate(pair):
            at = ((2 * (place % 3) + column) * _SIDE, place // 3 * _SIDE)
            sheet.paste(drawn.resize((_SIDE, _SIDE)), at)
    sheet.save(out, quality=82)


def main() -> None:
    """Draw, learn, and score each round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of scenes and of what is learned; resumed")
    parser.add_argument("--scenes", type=int, default=200, help="of a split")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--no-bank", action="store_true", help="learn without the folder as its bank")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path, help="where the images that changed most are drawn, before and after")
    asked = parser.parse_args()
    world, learned = asked.out / "world", asked.out / "learned"
    truth = draw_scenes(world, dict.fromkeys(SPLITS, asked.scenes), 256, 9_000_000 + asked.seed, "images to learn from", show)
    command = [sys.executable, "-m", "annofree", "learn", str(world / "images"), "--classes", ", ".join(CATEGORIES.values())]
    command += ["--models", "tiny", "--device", "cpu", "--out", str(learned), "--rounds", str(asked.rounds)]
    command += ["--steps", str(asked.steps)] if asked.steps else ["--minutes", str(asked.minutes)]
    command += ["--no-bank"] if asked.no_bank else []
    subprocess.run(command, check=True)
    if asked.picture:
        draw_changes(learned / "page", asked.picture, len(read_summary(learned)["rounds"]) - 1)
    rows: list[dict[str, Any]] = []
    unseen = CocoFile.read(VALIDATION / "truth.json")
    for number, said in enumerate(read_summary(learned)["rounds"]):
        run = learned / f"round-{number}" / "run" if number else learned / "first"
        detector = learned / f"round-{number}" / "detector" if number else None
        fresh = asked.out / f"validation-{number}"
        segment(
            VALIDATION / "images", list(CATEGORIES.values()), models="tiny", device="cpu", detector=detector, out=fresh,
            overlays=False,
        )  # fmt: skip
        kept = learned / f"round-{number}" / "kept"
        without = {"without the bank": score(truth, kept, said["floor"])} if kept.exists() else {}
        told = {name: said[name] for name in ("stability", "agreement", "expected", "seconds")}
        rows.append(
            {
                "round": number,
                **told,
                "the folder": score(truth, run, said["floor"]),
                **without,
                "unseen": score(unseen, fresh, said["floor"]),
            }
        )
        print(rows[-1], flush=True)
    print_json(rows, asked.json)


if __name__ == "__main__":
    main()
