"""Predictions in the terms of the truth: whose image, which class, what score, and masks as run lengths.

A file that annofree wrote has images and classes of its own, numbered as it likes, so images are matched by file
name and classes by name.  A bare COCO results list uses the ground truth's ids.
"""

from __future__ import annotations

import json
import math
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from annofree.errors import InputError
from annofree.evaluation.metrics.truth import find_id, index_ids
from annofree.formats.coco import CocoFile
from annofree.formats.values import read_size
from annofree.io.text import read_text
from annofree.ops.rle import compress_counts, fill_polygons
from annofree.structures import RLE

__all__ = [
    "Row",
    "View",
    "group_by_image",
    "list_predicted_images",
    "load_predictions",
    "match_predictions",
    "read_image_sizes",
    "read_mask_rle",
    "read_predictions",
]

View = Literal["class-aware", "class-agnostic"]
"""Whether a prediction has to name the class, or only has to find the thing."""

Row = Mapping[str, Any]
"""One annotation as COCO writes it."""

_SHOWN_IMAGES, _SHOWN_NAMES = 5, 100
_FARTHEST = 1e9  # px, all coordinates of a polygon together; more is no polygon on an image


def read_predictions(path: Path, truth: CocoFile, view: View = "class-aware") -> list[dict[str, Any]]:
    """Read a prediction file, a full COCO file or a bare results list, as rows with the truth's ids.

    Raises InputError when it is neither, and for everything that ``match_predictions`` refuses.
    """
    return match_predictions(truth, load_predictions(path), view, as_in_file=True)


def load_predictions(path: Path) -> CocoFile | list[dict[str, Any]]:
    """Read a prediction file as it is: a full COCO file, or the rows of a bare results list; InputError for anything else."""
    try:
        text = read_text(path)
        bare = text.lstrip().startswith("[")
        rows = json.loads(text) if bare else []
    except OSError as problem:
        raise InputError(f"expected a prediction file at {path}, but it cannot be read: {problem.strerror}") from None
    except ValueError as problem:
        raise InputError(f"expected COCO JSON in {path}, but it is not JSON: {problem}") from None
    return rows if bare else CocoFile.read(path)


def list_predicted_images(truth: CocoFile, predictions: CocoFile | Sequence[Row]) -> list[int] | None:
    """Return the ground-truth ids of the images listed in a prediction file; None for bare rows."""
    return list(_matched_images(truth, predictions).values()) if isinstance(predictions, CocoFile) else None


def match_predictions(
    truth: CocoFile, predictions: CocoFile | Sequence[Row], view: View = "class-aware", *, as_in_file: bool = False
) -> list[dict[str, Any]]:
    """Return the predictions as rows whose ``image_id`` and ``category_id`` are the truth's.

    A CocoFile is matched by ``file_name``, else where one name is the end of the other and its last part unique in the
    truth, and by category name in any case; a sequence of rows already has the truth's ids, or with ``as_in_file`` those that
    the truth had in its file.  The class-agnostic view leaves categories as they are, whatever they are called.

    Raises InputError for an image or a name that the truth does not have, for a row that points nowhere, and for a row
    without a finite ``score``.

    >>> truth, found = CocoFile.with_categories({18: "dog"}), CocoFile.with_categories({1: "Dog"})
    >>> truth.add_image("val/a.jpg", (4, 6)), found.add_image("a.jpg", (4, 6))
    (1, 1)
    >>> found.add_annotations([{"image_id": 1, "category_id": 1, "bbox": [0, 0, 2, 2], "score": 0.5}])
    >>> match_predictions(truth, found)[0]["category_id"]
    18
    """
    if isinstance(predictions, CocoFile):
        rows: Sequence[Row] = predictions.annotations
        images = _matched_images(truth, predictions)
        classes = {} if view == "class-agnostic" else _matched_names(truth, predictions)
    else:
        rows = predictions
        images, classes = (index_ids(*rows, as_in_file) for rows in ((truth.images, "image"), (truth.categories, "class")))
    return [_matched_row(row, number, images, None if view == "class-agnostic" else classes) for number, row in enumerate(rows)]


def _matched_row(row: Row, number: int, images: Mapping[str, int], classes: Mapping[str, int] | None) -> dict[str, Any]:
    if not isinstance(row, Mapping):
        raise InputError(f"expected prediction {number} as a COCO annotation, got {type(row).__name__}")
    score = row.get("score")
    if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
        raise InputError(
            f"expected every prediction with a finite score, got {score!r} for prediction {number}; is it a truth file?"
        )
    image, category = find_id(images, row.get("image_id")), find_id(classes or {}, row.get("category_id"))
    if image is None:
        raise InputError(f"prediction {number} is of image_id {row.get('image_id')!r}, expected one of {_few(images)}")
    if classes is None:
        return {"category_id": 1, **row, "image_id": image}
    if category is None:
        raise InputError(f"prediction {number} has category_id {row.get('category_id')!r}, expected one of {_few(classes)}")
    return {**row, "image_id": image, "category_id": category}


def _few(ids: Mapping[str, int]) -> str:
    return ", ".join(map(str, list(ids)[:10])) + (f" ... ({len(ids)} in all)" if len(ids) > 10 else "") or "none"


def _matched_images(truth: CocoFile, predictions: CocoFile) -> dict[str, int]:
    """Prediction image id, as it is looked up by -> truth image id."""
    whole = {_file_name(image): image["id"] for image in truth.images}
    counts = Counter(_last_part(name) for name in whole)
    last = {_last_part(name): (name, id_) for name, id_ in whole.items() if counts[_last_part(name)] == 1}
    own = index_ids(predictions.images, "image of the predictions")
    named = [_file_name(image) for image in predictions.images]
    found = [whole.get(name, _find_by_end(last, name)) for name in named]
    unknown = [name for name, id_ in zip(named, found, strict=True) if id_ is None]
    if unknown:
        raise _not_in_truth("images", unknown, list(whole), _SHOWN_IMAGES)
    doubled = {id_ for id_, count in Counter(found).items() if count > 1}
    if doubled:
        names = [name for name, id_ in zip(named, found, strict=True) if id_ in doubled]
        raise InputError(
            f"expected each image once, but several are the same one in the truth: {_quoted(names, _SHOWN_IMAGES)}"
        )
    return {key: id_ for key, id_ in zip(own, found, strict=True) if id_ is not None}


def _find_by_end(last: Mapping[str, tuple[str, int]], name: str) -> int | None:
    """The truth's image of which one name is the end of the other's: a.jpg is val/a.jpg, but train/a.jpg is not."""
    other, id_ = last.get(_last_part(name), ("", None))
    short, long = sorted((other.lstrip("/"), name.lstrip("/")), key=len)
    return id_ if f"/{long}".endswith(f"/{short}") else None


def _file_name(image: Row) -> str:
    """The name of an image with forward slashes, in one Unicode form."""
    return unicodedata.normalize("NFC", str(image.get("file_name", "")).replace("\\", "/"))


def _last_part(file_name: str) -> str:
    return file_name.rpartition("/")[2]


def _matched_names(truth: CocoFile, predictions: CocoFile) -> dict[str, int]:
    """Prediction category id, as it is looked up by -> truth category id."""
    exact = {_class_name(category): category["id"] for category in truth.categories}
    folded = {name.casefold(): id_ for name, id_ in exact.items()}
    own = index_ids(predictions.categories, "class of the predictions")
    named = [_class_name(category) for category in predictions.categories]
    found = [exact.get(name, folded.get(name.casefold())) for name in named]
    unknown = [name for name, id_ in zip(named, found, strict=True) if id_ is None]
    if unknown:
        raise _not_in_truth("class names", unknown, list(exact), _SHOWN_NAMES)
    return {key: id_ for key, id_ in zip(own, found, strict=True) if id_ is not None}


def _class_name(category: Row) -> str:
    return str(category.get("name", "")).strip()


def _not_in_truth(kind: str, unknown: Sequence[str], known: Sequence[str], shown: int) -> InputError:
    near = get_close_matches(unknown[0], known, n=3, cutoff=0.5)
    hint = f" (nearest to {unknown[0]!r}: {_quoted(near, 3)})" if near else ""
    return InputError(
        f"the predictions have {kind} that the truth does not have: {_quoted(unknown, shown)}{hint}; "
        f"the truth has {len(known)}: {_quoted(sorted(known), shown)}"
    )


def _quoted(names: Sequence[str], shown: int) -> str:
    return ", ".join(map(repr, names[:shown])) + (" ..." if len(names) > shown else "")


def group_by_image(rows: Sequence[Row]) -> defaultdict[int, list[Row]]:
    """Group rows by image id, in order; empty for unknown ids."""
    groups: defaultdict[int, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["image_id"]].append(row)
    return groups


def read_image_sizes(truth: CocoFile, image_ids: Collection[int] | None = None) -> dict[int, tuple[int, int]]:
    """Return (H, W) of ground-truth images by id: all or the given ones.

    Raises InputError for an unknown id or a missing size.
    """
    known = {image["id"]: image for image in truth.images}
    asked = set(known if image_ids is None else image_ids)
    unknown = sorted(asked - known.keys())
    if unknown:
        raise InputError(f"expected image ids of the truth, got {len(unknown)} that it does not have: {unknown[:10]}")
    chosen = {id_: image for id_, image in known.items() if id_ in asked}
    absent = [
        str(image.get("file_name", id_))
        for id_, image in chosen.items()
        if image.get("height") is None or image.get("width") is None
    ]
    if absent:
        raise InputError(f"expected height and width of every image in the truth; none for {_quoted(absent, _SHOWN_IMAGES)}")
    return {
        id_: read_size(image["height"], image["width"], f"the truth, image {image.get('file_name', id_)}")
        for id_, image in chosen.items()
    }


def read_mask_rle(row: Row, size: tuple[int, int]) -> RLE:
    """Return the mask of an annotation on an image of ``size`` (H, W) as compressed run lengths.

    Polygons, plain and compressed run lengths are understood.  Raises InputError without a mask, and for run
    lengths of another size, with which the COCO API would silently match nothing.

    >>> read_mask_rle({"segmentation": [[1, 1, 3, 1, 3, 3, 1, 3]]}, (4, 6))["size"]
    [4, 6]
    """
    drawn = row.get("segmentation")
    if not drawn:
        raise InputError(
            f"expected a segmentation in every annotation, none in one of image {row.get('image_id')}; score boxes instead?"
        )
    if isinstance(drawn, list):
        return _filled(drawn if isinstance(drawn[0], list) else [drawn], row, size)
    if not isinstance(drawn, Mapping) or not {"size", "counts"} <= drawn.keys():
        raise _broken(row, f"got {type(drawn).__name__}")
    if not isinstance(drawn["size"], list | tuple) or tuple(drawn["size"]) != size:
        raise InputError(f"expected masks of {size} (H, W) for image {row.get('image_id')}, got one of {_size(drawn['size'])}")
    counts = drawn["counts"]
    if isinstance(counts, list):
        counts = _whole_counts(counts, row, size)
    if not isinstance(counts, list | str | bytes):
        raise _broken(row, f"got {type(counts).__name__} as run lengths")
    return compress_counts(counts, size) if isinstance(counts, list) else dict(drawn)


def _size(given: Any) -> str:
    return str(tuple(given) if isinstance(given, list) else given)[:40]


def _whole_counts(counts: Sequence[Any], row: Row, size: tuple[int, int]) -> list[int]:
    """Plain run lengths, which may be written as 8.0."""
    if not all(isinstance(n, int | float) and n >= 0 and n == n // 1 for n in counts):
        raise _broken(row, f"got run lengths such as {str(list(counts))[:40]}")
    whole = [int(n) for n in counts]
    if sum(whole) != size[0] * size[1]:
        raise _broken(row, f"got run lengths of {sum(whole)} px on an image of {size[0] * size[1]}")
    return whole


def _filled(polygons: Sequence[Any], row: Row, size: tuple[int, int]) -> RLE:
    """Draw polygons; where the first has four numbers the COCO API would take all for boxes, and what is none would end it."""
    try:
        fit = len(polygons[0]) > 4 and all(sum(map(abs, points)) < _FARTHEST for points in polygons)
    except TypeError:
        fit = False
    if not fit:
        raise _broken(row, f"got {str(polygons)[:60]}")
    return fill_polygons(polygons, size)


def _broken(row: Row, got: str) -> InputError:
    return InputError(
        f"expected a mask as polygons of three points or more, x y x y ..., or as run lengths that cover the image, {got} "
        f"on image {row.get('image_id')}"
    )
