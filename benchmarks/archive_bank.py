"""What the bank of an archive gives consensus on the tiny models, beside the folder's own bank and none, on the same encodings.

    uv run python benchmarks/archive_bank.py --archive ARCHIVE --folder out/bank --json banks.json

Encodes the images of ``--truth`` once (a run that keeps its encodings) and asks it for all names with each bank: AP of the
ranking, AP, precision, recall and F1 of the answer, mIoU of the label maps, in percent, and how many references there are.
An archive is made by ``annofree index``, ``retrieve`` and ``mask``; its images are looked at once.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from annofree.datasets.benchmarks.coco_object import open_coco_instances
from annofree.detections.nms import Overlaps
from annofree.evaluation.accumulators import Figures, InstanceAccumulator, LabelMapAccumulator
from annofree.formats.coco import CocoFile
from annofree.io.callbacks import Callbacks
from annofree.methods.build import build_method
from annofree.methods.components import Models
from annofree.methods.policies import apply_policy, resolve_bank
from annofree.pipelines.segment import segment
from annofree.retrieval.masked_archive import MaskedArchive
from annofree.runs.store.chunks import Chunks
from annofree.runs.stored_encodings import StoredEncodings
from annofree.runs.tasks import Tasks
from annofree.structures import Vocabulary
from annofree.testing.timing import print_json

FIGURES = ("AP", "precision", "recall", "F1", "mIoU")


def keep(truth: CocoFile, names: Vocabulary, images: Path, out: Path) -> StoredEncodings:
    """Encode all images, once."""
    segment(
        images, names, task="instance,semantic", method="consensus", models="tiny", policy="answer", device="cpu", out=out,
        overlays=False, keep_encodings=True,
    )  # fmt: skip
    models = Models("tiny", "cpu", objectness="none")
    method = apply_policy(build_method("consensus", models), "consensus", models, "answer")
    return StoredEncodings(out, Tasks(("instance",), method))


def score(feed: StoredEncodings, method: Any, truth: CocoFile, names: Vocabulary, images: Path, path: Path) -> dict[str, Any]:
    """The figures of one method on all images."""
    rows = {row["file_name"]: row for row in truth.images}
    ranking, answer = InstanceAccumulator(truth, "split"), InstanceAccumulator(truth, "split")
    maps = LabelMapAccumulator([row["id"] for row in truth.images], open_coco_instances(path, images), "split")
    every, told = replace(method.policy, overlaps=Overlaps(), floor=0.0), method.count_told(names)
    for id_, encoding in zip(Chunks(feed.folder).read_ids(), feed.read_encodings(), strict=True):
        found = method.rank(encoding[0], names)
        ranking.add(rows[id_], every.decide(found, told))
        answer.add(rows[id_], method.policy.decide(found, told))
        maps.add(rows[id_], method.semantic(encoding[0], names))
    figures: Figures = answer.compute_figures() | {"all mIoU": maps.compute_figures()["all mIoU"]}
    held = {} if method.bank is None else {"references": len(method.bank.references)}
    return {"ranking AP": ranking.compute_figures()["all AP"], **{name: figures[f"all {name}"] for name in FIGURES}, **held}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archive", type=Path, required=True, help="an archive with masks")
    parser.add_argument("--truth", type=Path, default=Path("examples/validation/truth.json"))
    parser.add_argument("--images", type=Path, default=Path("examples/validation/images"))
    parser.add_argument("--folder", type=Path, default=Path("out/bank"), help="where encodings are kept, or were")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    truth = CocoFile.read(asked.truth)
    names = Vocabulary.of([row["name"] for row in truth.categories])
    feed, settings = keep(truth, names, asked.images, asked.folder), resolve_bank("tiny", "consensus")
    archive, callbacks = MaskedArchive.read(asked.archive), Callbacks(on_note=print)
    banks: dict[str, Callable[[], Tasks]] = {
        "none": lambda: feed.tasks,
        "the folder's": lambda: feed.with_bank(names, settings),
        "the archive's": lambda: feed.with_archive(names, settings, archive, callbacks),
    }
    rows = []
    for name, give in banks.items():
        rows.append({"bank": name} | score(feed, give().instances, truth, names, asked.images, asked.truth))
        print(rows[-1], flush=True)
    print_json(rows, asked.json)


if __name__ == "__main__":
    main()
