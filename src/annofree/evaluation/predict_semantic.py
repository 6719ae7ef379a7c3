"""Scoring a method, or a folder of its label maps, against a data set, one image in memory at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from annofree.datasets.benchmarks.semantic import Labels, SemanticDataset, SemanticSample
from annofree.errors import ImageError, InputError
from annofree.evaluation.metrics.confusion import Confusion
from annofree.evaluation.metrics.semantic import SemanticScorer, SemanticScores
from annofree.evaluation.protocols.semantic import SemanticProtocol, resize_labels, resize_shorter_side
from annofree.evaluation.reports.semantic import draw_confusion
from annofree.formats.label_maps import ClassList, read_label_map
from annofree.io.atomic import write_atomic, write_json
from annofree.protocols import SemanticSegmenter
from annofree.structures import VOID, LabelMap, Vocabulary

__all__ = ["SemanticResult", "align_labels", "score_label_maps", "score_method", "write_semantic"]

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class SemanticResult:
    """``scores``, the ``confusion`` matrix they come from, the ``names`` of its rows, and ``about``: what was scored how."""

    scores: SemanticScores
    confusion: Confusion
    names: tuple[str, ...]
    about: dict[str, Any]

    def to_json_dict(self) -> dict[str, Any]:
        """Return everything but the matrix as plain values."""
        return {**self.about, "scores": self.scores.to_json_dict()}


def score_method(
    method: SemanticSegmenter, dataset: SemanticDataset, protocol: SemanticProtocol, on_progress: Progress
) -> SemanticResult:
    """Ask a method for the data set's names on each of its images, and score what it says.

    Raises InputError for an image without its file, for names that were not asked for, and for sizes that differ from the
    truth's where the protocol does not stretch.
    """

    def predict(sample: SemanticSample) -> LabelMap:
        return method.semantic(sample.read_image(), _vocabulary(sample.asked or dataset.asked, dataset.background, protocol))

    result = _scored(dataset, protocol, predict, on_progress)
    result.about["provenance"] = method.provenance
    return result


def score_label_maps(
    folder: Path, dataset: SemanticDataset, protocol: SemanticProtocol, on_progress: Progress
) -> SemanticResult:
    """Score the label maps of a folder, ``ID.png`` for each sample's id, with ``classes.json``; names are matched by name.

    Raises InputError for maps that are missing and as ``score_method`` does.
    """
    classes = ClassList.read(folder)
    missing = [sample.id for sample in dataset if not (folder / f"{sample.id}.png").is_file()]
    if missing:
        raise InputError(
            f"expected a label map in {folder} for each of {len(dataset)} images, {len(missing)} have none, "
            f"{missing[0]}.png among them"
        )

    def predict(sample: SemanticSample) -> LabelMap:
        return read_label_map(folder / f"{sample.id}.png", classes)

    result = _scored(dataset, protocol, predict, on_progress)
    result.about["predictions"] = folder.name
    return result


def _vocabulary(asked: tuple[str, ...], background: int | None, protocol: SemanticProtocol) -> Vocabulary:
    left_out = background if protocol.background == "separate" else None
    return Vocabulary.from_entries((name,) for k, name in enumerate(asked) if k != left_out)


def _scored(
    dataset: SemanticDataset,
    protocol: SemanticProtocol,
    predict: Callable[[SemanticSample], LabelMap],
    on_progress: Progress,
) -> SemanticResult:
    scorer = SemanticScorer(dataset.names, dataset.background)
    elsewhere = frozenset(name for sample in dataset for name in sample.asked or ())
    left_out = 0
    for done, sample in enumerate(dataset):
        on_progress(done, len(dataset))
        truth = dataset.read_truth(sample).labels
        if not protocol.is_counted(truth, dataset.background):
            left_out += 1
            continue
        try:
            said = align_labels(predict(sample), dataset, sample.asked, elsewhere)
            scorer.add(*_at_one_size(truth, said, protocol))
        except ImageError:
            raise
        except InputError as problem:
            raise InputError(f"{sample.id}: {problem}") from None
    on_progress(len(dataset), len(dataset))
    about = {"dataset": dataset.name, "protocol": protocol.to_json_dict(), "asked": dataset.asked, "left_out": left_out}
    return SemanticResult(scorer.compute_scores(protocol.absent), scorer.confusion, dataset.names, about)


def _at_one_size(truth: Labels, said: Labels, protocol: SemanticProtocol) -> tuple[Labels, Labels]:
    if protocol.truth_side is not None:
        truth = resize_shorter_side(truth, protocol.truth_side)
    return truth, resize_labels(said, (truth.shape[0], truth.shape[1])) if protocol.stretch else said


def align_labels(
    predicted: LabelMap,
    dataset: SemanticDataset,
    asked: tuple[str, ...] | None = None,
    elsewhere: frozenset[str] = frozenset(),
) -> Labels:
    """Return predicted labels as indices of the data set's names, matched by name: as it was asked for, or as it is called.

    The prediction's background becomes the truth's, whatever either is called, or void where the truth has none.  A name
    that is ``asked`` of other images only becomes void, which is wrong wherever it is.  Raises InputError for others.
    """
    index = {name: k for names in (dataset.names, asked or dataset.asked) for k, name in enumerate(names)}
    folded = {name.casefold(): k for name, k in index.items()}
    others = {name.casefold() for name in elsewhere}
    places = [index.get(name, folded.get(name.casefold(), VOID)) for name in predicted.names]
    unknown = [
        name
        for k, name in enumerate(predicted.names)
        if places[k] == VOID and k != predicted.background and name.casefold() not in others
    ]
    if unknown:
        near = get_close_matches(unknown[0], dict.fromkeys(dataset.asked + dataset.names), n=3, cutoff=0.5)
        hint = f", nearest to {' or '.join(map(repr, near))}" if near else ""
        raise InputError(
            f"expected only names of the truth, got {len(unknown)} that it does not have, {unknown[0]!r} among them{hint}; "
            f"it has {len(dataset.names)}: {', '.join(dataset.names[:30])}{' ...' if len(dataset.names) > 30 else ''}"
        )
    lookup = np.array([*places, VOID], np.int32)
    if predicted.background is not None:
        lookup[predicted.background] = VOID if dataset.background is None else dataset.background
    return np.asarray(lookup[predicted.labels], np.int32)  # VOID, -1, is the last


def write_semantic(result: SemanticResult, out: Path) -> None:
    """Write the scores as JSON, and the confusion matrix as a PNG of that name beside it."""
    write_json(out, result.to_json_dict(), indent=2)
    image = draw_confusion(result.confusion, result.names)
    write_atomic(out.with_suffix(".png"), lambda temporary: image.save(temporary, "PNG"))
