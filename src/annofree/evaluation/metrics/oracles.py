"""Oracle split: AP and F1 with perfect classes, masks or ranking, separately and combined.

A fix changes rows and nothing else, as ``fix_rows`` hands them over; AP is what ``evaluate_instances`` says of these, F1 what
``evaluate_answer`` says.  One kind of error at a time is the way of TIDE (Bolya et al., ECCV 2020), and so are the bounds: an
IoU of 0.5 is right, one below 0.1 is nothing.  TIDE asks at one IoU, this AP is the mean over all ten.

    names   a prediction that overlaps a true instance by 0.5 takes the class of the one that it overlaps most (of equals its
            own); one that overlaps none but lies in a crowd by 0.5 takes the crowd's; others keep theirs
    masks   a prediction stands for the true instance of its class that it overlaps most, if by 0.1, and takes the mask of that
            prediction of the image, of whatever class, which overlaps this instance most; one that stands for none keeps its
            mask, and so does one that reaches 0.5 with none and lies in a crowd of its class by 0.5, which counts nowhere
    order   pairs of a prediction and a true instance of its class are matched from the largest IoU down to 0.5, each once; what
            is matched scores 1 + IoU, all else below 1, as it was ordered: no wrong answer comes before a right one
    all     names, then masks, then order

"Mask" is "box" where boxes are scored.  A fix may also do harm: with true names the five guesses at one object are one right
answer and four duplicates, where four were false alarms of classes that are not there.  An upper bound has the choice: what a
fix would lower is left as it is, and all together are worth at least the best of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from annofree.errors import build_unknown_error
from annofree.evaluation.metrics.known_overlaps import ImageOverlaps, compute_ap, compute_f1
from annofree.evaluation.metrics.limits import check_limit
from annofree.evaluation.metrics.predictions import Row, group_by_image, match_predictions, read_image_sizes
from annofree.evaluation.metrics.shapes import IouType
from annofree.formats.coco import CocoFile

__all__ = ["FIXES", "Fix", "Oracle", "OracleSplit", "evaluate_oracles", "fix_rows"]

Fix = Literal["names", "masks", "order", "all"]

Pair = tuple[float | None, float | None]
"""AP and F1."""

_RIGHT, _NEAR = 0.5, 0.1
_SHAPE = ("segmentation", "bbox", "area")


@dataclass(frozen=True)
class Oracle:
    """What AP and the F1 of all that is said would be with one fix, and what is gained: fractions, None without any truth."""

    ap: float | None
    f1: float | None
    ap_gain: float | None
    f1_gain: float | None


@dataclass(frozen=True)
class OracleSplit:
    """AP and F1 as they are and with each fix, class-aware.

    ``candidate_recall`` is the part of the ``n_truth`` true instances, crowds aside, that some prediction overlaps by 0.5,
    whatever its name, its score and what else it overlaps.
    """

    ap: float | None
    f1: float | None
    oracles: Mapping[Fix, Oracle]
    candidate_recall: float | None
    n_truth: int


def _true_names(seen: ImageOverlaps) -> ImageOverlaps:
    if not seen.overlaps.size:
        return seen
    reached = np.where(seen.overlaps >= _RIGHT, seen.overlaps, 0.0)
    solid = reached * ~seen.crowd
    reached = np.where(solid.any(1, keepdims=True), solid, reached)
    wrong = reached.max(1) > (reached * seen.same).max(1)
    return replace(seen, said=np.where(wrong, seen.real[reached.argmax(1)], seen.said))


def _best_masks(seen: ImageOverlaps) -> ImageOverlaps:
    if not seen.overlaps.size:
        return seen
    own = seen.overlaps * seen.same
    solid, crowds = (np.where(which, own, 0.0) for which in (~seen.crowd, seen.crowd))
    of, most = solid.argmax(1), solid.max(1)
    stands = (most >= _NEAR) & ~((most < _RIGHT) & (crowds.max(1) >= _RIGHT))
    best = seen.overlaps.argmax(0)[of]
    better = stands & (seen.overlaps[best, of] > most)
    taken = np.where(better, best, np.arange(len(best)))
    return replace(seen, overlaps=seen.overlaps[taken], source=seen.source[taken])


def _perfect_order(seen: ImageOverlaps) -> ImageOverlaps:
    fits = np.where(seen.same & ~seen.crowd, seen.overlaps, 0.0)
    scores = 0.5 + 0.5 * seen.scores / (1.0 + np.abs(seen.scores))  # in their order, 0 .. 1
    pairs = np.argwhere(fits >= _RIGHT)
    used = set[int](), set[int]()
    for p, n in pairs[np.argsort(-fits[tuple(pairs.T)], kind="stable")].tolist():
        if p not in used[0] and n not in used[1]:
            used[0].add(p)
            used[1].add(n)
            scores[p] = 1.0 + fits[p, n]
    return replace(seen, scores=scores)


Change = Callable[[ImageOverlaps], ImageOverlaps]

FIXES: Mapping[Fix, tuple[Change, ...]] = {
    "names": (_true_names,),
    "masks": (_best_masks,),
    "order": (_perfect_order,),
    "all": (_true_names, _best_masks, _perfect_order),
}
"""The fixes by name, each as what is done to an image one after another."""


def _through(seen: ImageOverlaps, changes: Sequence[Change]) -> ImageOverlaps:
    for change in changes:
        seen = change(seen)
    return seen


def _changed(said: Sequence[Row], seen: ImageOverlaps) -> Iterator[dict[str, Any]]:
    """Yield the predictions of an image as they were changed."""
    changes = zip(said, seen.source.tolist(), seen.said.tolist(), seen.scores.tolist(), strict=True)
    for row, source, class_, score in changes:
        kept = {key: value for key, value in row.items() if key not in _SHAPE}
        shape = {key: said[source][key] for key in _SHAPE if key in said[source]}
        yield {**kept, **shape, "category_id": class_, "score": score}


def fix_rows(
    truth: CocoFile,
    predictions: CocoFile | Sequence[Row],
    fix: Fix,
    *,
    iou_type: IouType = "segm",
    image_ids: Collection[int] | None = None,
) -> list[dict[str, Any]]:
    """Return the predictions with one fix applied, as rows with ground-truth ids; for ``order``, scores are replaced.

    Arguments and errors are those of ``evaluate_instances``; InputError for an unknown fix too.

    >>> truth = CocoFile.with_categories({1: "dog", 2: "cat"})
    >>> row = {"image_id": truth.add_image("a.jpg", (40, 40)), "category_id": 1, "bbox": [0, 0, 20, 20]}
    >>> truth.add_annotations([row])
    >>> fix_rows(truth, [{**row, "category_id": 2, "score": 0.9}], "names", iou_type="bbox")[0]["category_id"]
    1
    """
    if fix not in FIXES:
        raise build_unknown_error("fix", fix, FIXES)
    sizes = read_image_sizes(truth, image_ids)
    real, said = group_by_image(truth.annotations), group_by_image(match_predictions(truth, predictions))
    rows = list[dict[str, Any]]()
    for image_id, size in sizes.items():
        seen = ImageOverlaps.of(said[image_id], real[image_id], size, iou_type)
        rows += _changed(said[image_id], _through(seen, FIXES[fix]))
    return rows


def evaluate_oracles(
    truth: CocoFile,
    predictions: CocoFile | Sequence[Row],
    *,
    iou_type: IouType = "segm",
    image_ids: Collection[int] | None = None,
    max_detections: int = 100,
) -> OracleSplit:
    """Score predictions as they are and with each fix made, class-aware; arguments and errors of ``evaluate_instances``.

    Overlaps are computed once an image.  AP counts the ``max_detections`` surest of an image and class, after a fix as before
    it, and F1 all predictions.  Fixes look at all of them, so perfect order brings up what the limit had cut.

    >>> truth = CocoFile.with_categories({1: "dog", 2: "cat"})
    >>> row = {"image_id": truth.add_image("a.jpg", (40, 40)), "category_id": 1, "bbox": [0, 0, 20, 20]}
    >>> truth.add_annotations([row])
    >>> split = evaluate_oracles(truth, [{**row, "category_id": 2, "score": 0.9}], iou_type="bbox")
    >>> split.ap, split.oracles["names"].ap, split.oracles["order"].ap_gain, split.candidate_recall
    (0.0, 1.0, 0.0, 1.0)
    """
    check_limit(max_detections)
    sizes = read_image_sizes(truth, image_ids)
    real, said = group_by_image(truth.annotations), group_by_image(match_predictions(truth, predictions))
    images = [ImageOverlaps.of(said[id_], real[id_], size, iou_type) for id_, size in sorted(sizes.items())]

    def scored(changes: Sequence[Change]) -> Pair:
        changed = [_through(seen, changes) for seen in images]
        return compute_ap(changed, max_detections), compute_f1(changed)

    plain = scored(())
    oracles = _upper_bounds(plain, {fix: scored(changes) for fix, changes in FIXES.items()})
    n_truth = sum(int((~seen.crowd).sum()) for seen in images)
    n_found = sum(int((seen.overlaps[:, ~seen.crowd] >= _RIGHT).any(0).sum()) for seen in images)
    return OracleSplit(*plain, oracles, n_found / n_truth if n_truth else None, n_truth)


def _upper_bounds(plain: Pair, fixed: Mapping[Fix, Pair]) -> dict[Fix, Oracle]:
    """Upper bounds: each fix where it helps, and the best combination."""
    oracles: dict[Fix, Oracle] = {}
    for fix, own in fixed.items():
        choice = [plain, *(fixed.values() if fix == "all" else [own])]
        ap, f1 = (max((v for v in values if v is not None), default=None) for values in zip(*choice, strict=True))
        gains = [None if new is None or old is None else new - old for new, old in zip((ap, f1), plain, strict=True)]
        oracles[fix] = Oracle(ap, f1, *gains)
    return oracles
