"""What a run found, turned into labels to learn from: LABELS/labels.json (COCO) and LABELS/sheet.jpg, to look at first.

A run is read image by image and what stays is spooled to the disk, so that memory holds scores and file names but no
masks; those of earlier labels, where they are merged in, stay run lengths.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from annofree.datasets.labeled import AGNOSTIC, Labeled, find_labels_file, read_info
from annofree.errors import InputError
from annofree.io.atomic import make_folder
from annofree.io.json_stream import write_lists
from annofree.runs.store.reader import RunLabels, Spool, StoredRun
from annofree.structures import BoolArray, Detections, FloatArray, IntArray
from annofree.training.pseudo_labels.preview import LabelSheet
from annofree.training.pseudo_labels.rules import (
    LabelRules,
    apply_rules,
    cap_per_class,
    compute_repeat_factors,
    compute_share_floors,
    join_names,
    merge_labels,
)

__all__ = ["select_labels"]

Progress = Callable[[int, int], None]

_TOLD = ("settings", "provenance", "versions")  # of run.json


def select_labels(
    run: Path,
    out: Path,
    rules: LabelRules | None = None,
    *,
    images: Path | None = None,
    earlier: Path | None = None,
    leave_out: Collection[str] = (),
    sheet: int = 24,
    on_progress: Progress | None = None,
) -> dict[str, Any]:
    """Write the instances of a run's folder as labels to ``out``, and return what their info says.

    ``images``: where the images are, if not where the run had them; ``earlier``: labels of an earlier round to merge in;
    ``leave_out``: images that get no labels, by file name; ``sheet``: how many labeled images the contact sheet has, 0 for
    none.  The info has ``rules``, ``counts`` of what was found, dropped by each rule and kept, ``classes`` likewise, the least
    scores ``min_scores``, the ``run`` with its models and tiers, and the info of the ``earlier`` labels.  The same input gives
    the same bytes.

    Raises InputError when the run has no instances or does not say where its images are, for names that are no classes of
    it, and when nothing is left.
    """
    rules, source = rules or LabelRules(), StoredRun.read(run, images)
    before = None if earlier is None else _earlier(earlier, source.root, rules, anywhere=images is not None)
    names = (AGNOSTIC,) if rules.agnostic else join_names(source.names, before.names if before else ())
    make_folder(out)
    with Spool(out) as kept, Spool(out) as final:
        counts, floors = _select(source, rules, kept, leave_out, on_progress)
        final.write(_final(kept, names, rules, before, counts))
        tally = _Tally.of(final, len(names))
        if not tally.instances.sum():
            raise InputError(f"expected labels, but the rules leave none of {counts['found']} things; lower the least score")
        least = {name: round(f, 6) for name, f in zip(source.names, floors.tolist(), strict=True) if np.isfinite(f)}
        info = _info(source, rules, counts, earlier) | {"min_scores": least, "classes": tally.as_table(names, source)}
        factors = compute_repeat_factors(tally.pictures, tally.total, rules.rare)
        _write(out / "labels.json", info, names, final, factors)
        drawn = LabelSheet(source.root, sheet, tally.with_any)
        drawn.draw(final)
    drawn.save(out / "sheet.jpg", f"{tally.instances.sum()} labels in {tally.total} images")
    return info


def _earlier(labels: Path, root: Path, rules: LabelRules, anywhere: bool) -> Labeled:
    """Read earlier labels; they are of the same images, or the user says ``anywhere`` that they are."""
    place = find_labels_file(labels)
    told = read_info(place).get("images")
    if isinstance(told, str) and not anywhere and Path(told).resolve() != root:
        raise InputError(
            f"expected earlier labels of the images in {root}, as the run has them, got labels of images in {told}; "
            "run over the same folder, or name the folder of both with --images"
        )
    return Labeled.read(place, root, agnostic=rules.agnostic)


def _select(
    source: StoredRun, rules: LabelRules, kept: Spool, leave_out: Collection[str], on_progress: Progress | None
) -> tuple[dict[str, int], FloatArray]:
    """Spool what the rules for single images leave; tells the counts and the least score of each class."""
    floors, counts = _floors(source, rules), {"found": source.summary.instances}

    def pictures() -> Iterator[RunLabels]:
        if on_progress:
            on_progress(0, len(source.summary.pictures))
        for number, (name, found) in enumerate(source.read_images(), 1):
            if name in leave_out:
                counts["left_out"] = counts.get("left_out", 0) + len(found)
                continue
            left, dropped = apply_rules(found, floors, rules)
            for rule, count in dropped.items():
                counts[rule] = counts.get(rule, 0) + count
            yield RunLabels(name, left)
            if on_progress:
                on_progress(number, len(source.summary.pictures))

    kept.write(pictures())
    return counts, floors


def _floors(source: StoredRun, rules: LabelRules) -> FloatArray:
    """The least score of each class; a share is of those over the least score that was asked for."""
    floors, shares = rules.min_score.list_values(source.names), rules.keep.list_values(source.names)
    if (shares >= 1).all():
        return floors
    class_ids, scores = _columns(labels.found for labels in source.read_images())
    over = scores >= floors[class_ids]
    return np.maximum(floors, compute_share_floors(class_ids[over], scores[over], shares))


def _columns(found: Iterable[Detections]) -> tuple[IntArray, FloatArray]:
    """The classes and scores (M) of all instances."""
    class_ids, scores = array("q"), array("f")
    for one in found:
        class_ids.extend(one.class_ids.tolist())
        scores.extend(one.scores.tolist())
    return np.array(class_ids, np.int64), np.array(scores, np.float32)


def _final(
    kept: Spool, names: tuple[str, ...], rules: LabelRules, before: Labeled | None, counts: dict[str, int]
) -> Iterator[RunLabels]:
    """Cap the classes, add the earlier labels that stay, and leave out what is empty."""
    chosen = cap_per_class(*_columns(labels.found for labels in kept), rules.per_class)
    counts |= {"per_class": int((~chosen).sum()), "kept": int(chosen.sum()), "earlier": 0, "earlier_gone": 0}
    for labels in _joined(_capped(kept, chosen), names, before, rules.earlier, counts):
        if len(labels.found) or not rules.drop_empty:
            yield labels


def _capped(kept: Spool, chosen: BoolArray) -> Iterator[RunLabels]:
    start = 0
    for name, found in kept:
        end = start + len(found)
        yield RunLabels(name, found[chosen[start:end]])
        start = end


def _joined(
    new: Iterable[RunLabels], names: tuple[str, ...], before: Labeled | None, most: float, counts: dict[str, int]
) -> Iterator[RunLabels]:
    """Merge earlier labels in, image by image; then come the images that only the earlier round has."""
    places = {} if before is None else {id_: place for place, id_ in enumerate(before.ids)}
    for name, found in new:
        place, ours = places.pop(name, None), found.with_names(names)
        if before is None or place is None:
            yield RunLabels(name, ours)
            continue
        old = before.read_instances(place).with_names(names)
        if old.size != found.size:
            raise InputError(f"expected earlier labels of {name} of its size (H, W) {found.size}, got {old.size}")
        both = merge_labels(ours, old, most)
        counts["earlier"] += len(both) - len(ours)
        counts["earlier_gone"] += len(old) - (len(both) - len(ours))
        yield RunLabels(name, both)
    for name, place in places.items():
        assert before is not None  # noqa: S101 -- it has the places
        old = before.read_instances(place).with_names(names)
        counts["earlier"] += len(old)
        yield RunLabels(name, old)


@dataclass(frozen=True)
class _Tally:
    """Instances and images of each class (K), and images in all, ``with_any`` label."""

    instances: IntArray
    pictures: IntArray
    total: int
    with_any: int

    @classmethod
    def of(cls, labels: Iterable[RunLabels], count: int) -> _Tally:
        instances, images, total, filled = np.zeros(count, np.int64), np.zeros(count, np.int64), 0, 0
        for _, found in labels:
            own = np.bincount(found.class_ids, minlength=count)
            instances += own
            images += own > 0
            total += 1
            filled += bool(len(found))
        return cls(instances, images, total, filled)

    def as_table(self, names: tuple[str, ...], source: StoredRun) -> dict[str, dict[str, int]]:
        """What was found of each class and what is labeled."""
        found = {count.name: count.instances for count in source.summary.classes.values()}
        rows = zip(names, self.instances.tolist(), self.pictures.tolist(), strict=True)
        table: dict[str, dict[str, int]] = {}
        for name, instances, images in rows:
            table[name] = {"found": found.get(name, 0), "labels": instances, "pictures": images}
        if names == (AGNOSTIC,):
            table[AGNOSTIC]["found"] = source.summary.instances
        return table


def _info(source: StoredRun, rules: LabelRules, counts: Mapping[str, int], earlier: Path | None) -> dict[str, Any]:
    """Where the labels come from."""
    run = {key: source.summary.about[key] for key in _TOLD if key in source.summary.about}
    models = [{key: model.get(key) for key in ("name", "kind", "tier", "licence")} for model in source.summary.list_models()]
    info = {
        "description": "labels that annofree made of what a run found",
        "images": str(source.root),
        "rules": rules.to_settings(),
        "counts": dict(counts),
        "run": {"folder": str(source.annotations.parent), **run, "models": models},
    }
    return (
        info if earlier is None else info | {"earlier": {"labels": str(earlier), "info": read_info(find_labels_file(earlier))}}
    )


def _write(path: Path, info: Mapping[str, Any], names: tuple[str, ...], labels: Spool, factors: FloatArray) -> None:
    """Write a COCO file row by row, the info first."""
    annotations = (row for id_, (_, found) in enumerate(labels, 1) for row in found.to_coco(id_))
    lists = {
        "images": (_image(id_, one, factors) for id_, one in enumerate(labels, 1)),
        "categories": [{"id": k, "name": name} for k, name in enumerate(names, 1)],
        "annotations": ({"id": number, **row} for number, row in enumerate(annotations, 1)),
    }
    write_lists(path, lists, info)


def _image(id_: int, labels: RunLabels, factors: FloatArray) -> dict[str, Any]:
    """An image, with how often it is to be seen where that is not once."""
    found = labels.found
    row = {"id": id_, "file_name": labels.file_name, "height": found.size[0], "width": found.size[1]}
    repeat = float(factors[found.class_ids].max(initial=1.0))
    return row if repeat == 1 else row | {"repeat": round(repeat, 6)}
